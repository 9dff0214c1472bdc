"""Asks a backbone about samples without a training around it."""

import torch
from sefi_pack.sefi_core.predict import Source, predict
from sefi_pack.sefi_core.samples import Samples
from sefi_pack.sefi_core.stages import stage_of


def samples_of(latents, noise, timesteps):
    masks, prompts = torch.ones_like(latents[:, :1]), torch.zeros_like(timesteps)
    seen, subjects = torch.ones(len(timesteps)), (0,) * len(timesteps)
    return Samples(latents, masks, noise, timesteps, prompts, seen, subjects)


def predicted(backbone, encoder, pairs, edges, samples, with_maps=True):
    """Denoises samples with the pair of each one's stage."""
    rows = stage_of(samples.timesteps, edges)
    return predict(backbone, [Source(encoder, pairs)], samples, rows, with_maps)
