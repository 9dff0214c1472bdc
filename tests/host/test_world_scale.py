"""The miniature's one dial: on the schedule of scale s it hides what larger latents hide."""

import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_sampling import ModelSamplingDiscrete
from sefi_pack.benchmarks.world.files import MINIATURE, SCALES, own_file, read
from sefi_pack.benchmarks.world.load import load
from sefi_pack.benchmarks.world.model import base_model
from sefi_pack.benchmarks.world.subjects import KINDS, named
from sefi_pack.nodes.host.noise_levels import alike_timestep
from torch.nn.functional import avg_pool2d

SIDE, CHANNELS = 16, 16
EDGES = torch.tensor([999, 800, 600, 400, 200])  # the noisiest timestep, then where stages meet


@pytest.fixture(scope="module")
def first():
    """The first miniature, read and loaded."""
    with torch.inference_mode():
        return read(MINIATURE), *load(MINIATURE)


def log_snr(sampling, picture, k):
    """How visible the means of k x k latents (1, C, h, w) are at each edge: their log SNR (5,)."""
    noise = torch.randn(8, *picture.shape[1:], generator=torch.Generator().manual_seed(0))
    found = []
    for sigma in sampling.sigma(EDGES):
        noised = sampling.noise_scaling(sigma.view(1), noise, picture)
        signal = sampling.noise_scaling(sigma.view(1), torch.zeros_like(noise), picture)
        shown, hidden = (avg_pool2d(x, k).square().mean() for x in (signal, noised - signal))
        found.append((shown / hidden).log())
    return torch.stack(found)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_what_a_stage_shows_of_a_part_of_the_picture_is_what_larger_latents_show(scale, k):
    picture = torch.randn(1, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    large = picture.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    ours = log_snr(base_model(scale).model_sampling, picture, k)
    theirs = log_snr(base_model(1).model_sampling, large, k * scale)
    torch.testing.assert_close(ours, theirs, atol=0.15, rtol=0.0)  # chance; a wrong s has log 4


@pytest.mark.parametrize("scale", SCALES)
def test_the_network_is_asked_at_the_noise_level_that_it_learned(scale):
    model = base_model(scale)
    sigmas, own = model.model_sampling.sigmas, ModelSamplingDiscrete()
    asked = model.diffusion_model.asked
    torch.testing.assert_close(own.sigma(asked), sigmas.clamp(min=own.sigma_min))
    assert asked[0] == 0.0 and (asked.diff() >= 0.0).all()


def test_at_scale_1_the_first_miniature_is_what_it_was(first):
    checkpoint, model, clip, _ = first
    unet, sampling = model.model.diffusion_model, model.model.model_sampling
    x, context = torch.randn(3, CHANNELS, SIDE, SIDE), torch.randn(3, 77, 128)
    timesteps = torch.tensor([0, 321, 999])
    sine, cosine = (f(torch.atan(sampling.sigmas[timesteps])) for f in (torch.sin, torch.cos))
    inner = UNetModel._forward(unet, x, timesteps, context)
    noise = sine.view(-1, 1, 1, 1) * x + cosine.view(-1, 1, 1, 1) * inner
    assert torch.equal(unet(x, timesteps, context), noise)
    for name in ("sigmas", "log_sigmas"):
        assert torch.equal(getattr(sampling, name), getattr(ModelSamplingDiscrete(), name))
    table = clip.cond_stage_model.clip_l.transformer.get_input_embeddings().weight
    rows = checkpoint.tensors["tokens.rows"]
    assert torch.equal(table[checkpoint.tensors["tokens.ids"].long()], rows)


@pytest.mark.parametrize("kind", KINDS)
def test_who_had_a_name_is_who_he_was_and_who_came_later_has_a_row(first, kind):
    checkpoint, _, clip, _ = first
    table = clip.cond_stage_model.clip_l.transformer.get_input_embeddings().weight
    for name, subject in named(kind).items():
        _, (token, *_), *_ = clip.tokenize(name)["l"][0]
        torch.testing.assert_close(
            table[token], checkpoint.subject_row(subject), atol=2e-3, rtol=0.0
        )


@pytest.mark.parametrize("scale", [s for s in SCALES if own_file(s).is_file()])
def test_a_file_says_its_own_schedule(scale):
    model, *_ = load(own_file(scale))
    expected = base_model(scale).model_sampling.sigmas
    assert torch.equal(model.model.model_sampling.sigmas, expected)


@pytest.mark.parametrize(("scale", "timestep"), [(4, 600), (8, 775)])
def test_a_start_is_selected_where_stable_diffusion_would(scale, timestep):
    """At s = 4 its latents are a quarter as wide, and so are its noise levels."""
    assert alike_timestep(base_model(scale).model_sampling, 600, 16) == timestep
