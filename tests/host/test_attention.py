"""Attention maps of genuine samplings: nothing changes, and what is recorded is what was attended."""

import comfy_extras.nodes_custom_sampler as custom
import pytest
import seeded
import torch
from sefi_pack.nodes.host.attention import KEPT_RUNS, watch_attention
from sefi_pack.nodes.host.sampling import apply_identity
from sefi_pack.sefi_core.errors import MismatchError, SettingsError

import nodes

TEXT = "a photo of V* with a red hat"


def encode(clip, text):
    return nodes.CLIPTextEncode().encode(clip, text)[0]


def empty(batch=1, height=64, width=64):
    return nodes.EmptyLatentImage().generate(width, height, batch)[0]


def sampled(model, positive, negative, latent=None, sampler="euler", steps=5, cfg=6.0, denoise=1.0):
    args = (sampler, "normal", positive, negative, latent or empty(), denoise)
    return nodes.KSampler().sample(model, 3, steps, cfg, *args)[0]["samples"]


def record_of(recording, samples, number=1):
    return recording.prompt(samples, number)


def test_smoke(model, clip, learned):
    applied, positive = apply_identity(model, clip, learned, TEXT)
    plain = sampled(applied, positive, encode(clip, "bad"))
    watched, recording = watch_attention(applied)
    samples = sampled(watched, positive, encode(clip, "bad"))
    assert torch.equal(plain, samples)
    r = record_of(recording, samples)
    print(r.sums.shape, r.counts, recording.nbytes)
    print(r.mean().sum(dim=1).sub(1).abs().max(), r.stages().sum(2).sub(1).abs().max())
