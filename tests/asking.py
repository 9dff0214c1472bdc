"""Asks a backbone about samples without a training around it; stops a training at a step."""

from contextlib import contextmanager

import comfy.model_management as management
import torch
from sefi_pack.sefi_core.predict import Source, predict
from sefi_pack.sefi_core.samples import Samples
from sefi_pack.sefi_core.stages import stage_of
from torch.optim.optimizer import register_optimizer_step_post_hook


def samples_of(latents, noise, timesteps):
    masks, prompts = torch.ones_like(latents[:, :1]), torch.zeros_like(timesteps)
    seen, subjects = torch.ones(len(timesteps)), (0,) * len(timesteps)
    return Samples(latents, masks, noise, timesteps, prompts, seen, subjects)


def predicted(backbone, encoder, pairs, edges, samples, with_maps=True):
    """Denoises samples with the pair of each one's stage."""
    rows = stage_of(samples.timesteps, edges)
    return predict(backbone, [Source(encoder, pairs)], samples, rows, with_maps)


@contextmanager
def stopped_at(step):
    """Presses the host's stop button once so many optimiser steps are taken."""
    taken = 0

    def count(*_):
        nonlocal taken
        taken += 1
        if taken == step:
            management.interrupt_current_processing(True)

    handle = register_optimizer_step_post_hook(count)
    try:
        yield
    finally:
        handle.remove()
