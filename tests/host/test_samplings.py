"""Samplings other than a checkpoint's own: zero terminal SNR, LCM, EDM, Turbo's schedule."""

import comfy.model_sampling
import comfy.patcher_extension
import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_model_advanced as advanced
import pytest
import seeded
import torch
from asking import samples_of
from sefi_pack.benchmarks.world.model import base_model
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.noise_levels import (
    LATEST,
    alike_timestep,
    nearest_timesteps,
    prediction_type,
    sigmas_at,
    timesteps_of,
)
from sefi_pack.nodes.host.train.backbone import HostBackbone
from sefi_pack.sefi_core.stages import even_edges, stage_of

import nodes

discrete = advanced.ModelSamplingDiscrete().patch
continuous = advanced.ModelSamplingContinuousEDM().patch
PATCHES = {
    "eps": lambda model: discrete(model, "eps", False)[0],
    "eps zsnr": lambda model: discrete(model, "eps", True)[0],
    "v": lambda model: discrete(model, "v_prediction", False)[0],
    "v zsnr": lambda model: discrete(model, "v_prediction", True)[0],
    "lcm": lambda model: discrete(model, "lcm", False)[0],
    "x0": lambda model: discrete(model, "x0", False)[0],
    "edm": lambda model: continuous(model, "edm", 80.0, 0.002)[0],
    "flow": lambda model: advanced.ModelSamplingSD3().patch(model, 3.0)[0],
    "v edm": lambda model: continuous(model, "v_prediction", 120.0, 0.002)[0],
}


@pytest.fixture(params=["SD 1.x"], scope="module")
def family(request):
    return seeded.FAMILIES[request.param]


@pytest.fixture(scope="module")
def model(family):
    with torch.inference_mode():
        return family.model()


@pytest.fixture(scope="module")
def clip(family):
    with torch.inference_mode():
        return family.clip()


@pytest.fixture(params=PATCHES)
def patched(request, model):
    return PATCHES[request.param](model)


def sampling_of(model):
    return model.get_model_object("model_sampling")


def encode(clip, text):
    return nodes.CLIPTextEncode().encode(clip, text)[0]


@pytest.mark.parametrize("name", PATCHES)
def test_every_noise_level_has_its_timestep(name, model):
    """There and back; and the host's own number of it, wherever the host counts timesteps."""
    sampling = sampling_of(PATCHES[name](model))
    known = timesteps_of(sampling, sampling.sigmas)
    assert torch.equal(known, torch.arange(1000)[19::20] if name == "lcm" else torch.arange(1000))
    torch.testing.assert_close(sigmas_at(sampling, known), sampling.sigmas)
    assert torch.equal(timesteps_of(sampling, sigmas_at(sampling, known)), known)
    assert torch.equal(nearest_timesteps(sampling, known), known)
    if "edm" not in name and name != "flow":
        assert torch.equal(sampling.timestep(sampling.sigmas), known)
        assert torch.equal(sampling.sigma(known), sigmas_at(sampling, known))
    every = nearest_timesteps(sampling, torch.arange(1000))
    assert (every - torch.arange(1000)).abs().max() < 20 and set(every.tolist()) == set(
        known.tolist()
    )
    word = {"v": "v", "x0": "x0", "edm": "edm", "flow": "flow"}.get(name.split()[0], "epsilon")
    assert prediction_type(sampling) == word


def sigmas_for(model, name, steps):
    """What samplers run through: the usual schedules, and what belongs to LCM and Turbo."""
    if name == "turbo":
        return custom.SDTurboScheduler.execute(model, min(steps, 10), 1.0)[0]
    return comfy.samplers.calculate_sigmas(sampling_of(model), name, steps)


@pytest.mark.parametrize("schedule", ["normal", "karras", "sgm_uniform", "turbo"])
def test_every_step_reads_the_stage_of_its_noise_level(schedule, patched, clip, learned):
    """Contexts that hold their stage's number show which one reached the UNet, and at what sigma;
    the expected stage is counted off the list of noise levels.
    """
    if schedule == "turbo" and not hasattr(sampling_of(patched), "num_timesteps"):
        pytest.skip("the host's Turbo schedule asks for timesteps, which EDM does not count")
    applied, conditioning = apply_identity(patched, clip, learned, "a photo of V*")
    contexts = conditioning[0][1]["sefi"]
    number = torch.arange(5.0).view(5, 1, 1).expand_as(contexts.keys)
    conditioning[0][1]["sefi"] = type(contexts)(number, number, contexts.reference, contexts.edges)
    seen = []

    def note(executor, x, timesteps, context, *args, **kwargs):
        options = kwargs.get("transformer_options") or args[-1]
        seen.append((float(options["sigmas"][0]), int(context[0, 0, 0])))
        return executor(x, timesteps, context, *args, **kwargs)

    applied.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, note)
    guider = custom.BasicGuider.execute(applied, conditioning)[0]
    custom.SamplerCustomAdvanced.execute(
        custom.RandomNoise.execute(3)[0], guider, custom.KSamplerSelect.execute("euler")[0],
        sigmas_for(patched, schedule, 20), nodes.EmptyLatentImage().generate(64, 64, 1)[0],
    )  # fmt: skip
    levels = sampling_of(patched).sigmas.log()
    assert len(seen) >= 4 and len({stage for _, stage in seen}) >= 4
    for sigma, stage in seen:
        place = (torch.tensor(sigma).log() - levels).abs().argmin()
        assert stage == 4 - int(place) * 5 // len(levels)


def test_training_at_a_noise_level_is_inference_at_it(patched):
    """A UNet that were perfect would denoise to the picture; it is asked at the stage's own level;
    and what the UNet is given is what the host's sampling gives it there.
    """
    latents, noise = torch.randn(2, 5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    reference = torch.randn(1, 77, 64, generator=torch.Generator().manual_seed(1))
    backbone = HostBackbone(patched, reference, latents[:1], torch.float32)
    sampling = sampling_of(patched)
    timesteps = backbone.nearest(torch.tensor([999, 700, 500, 300, 120]))
    assert torch.equal(stage_of(timesteps, even_edges(5)), torch.arange(5))
    calls = []
    hook = patched.model.diffusion_model.register_forward_pre_hook(
        lambda module, args: calls.append(args)
    )
    context = reference.expand(5, -1, -1)
    samples = samples_of(latents, noise, timesteps)
    prediction = backbone.predict(samples, context, context, with_maps=False)
    sigmas = sigmas_at(sampling, timesteps)
    noised = sampling.noise_scaling(sigmas, noise, latents)
    restored = sampling.calculate_denoised(sigmas, prediction.target, noised)
    torch.testing.assert_close(restored, latents, rtol=1e-3, atol=5e-3)
    patched.model.model_sampling, own = sampling, patched.model.model_sampling
    try:
        patched.model._apply_model(noised, sigmas, c_crossattn=context)
    finally:
        patched.model.model_sampling = own
        hook.remove()
    (ours, *_, our_time), (hosts, *_, hosts_time) = (call[:2] for call in calls)
    assert torch.equal(ours, hosts) and torch.equal(our_time, hosts_time)


@pytest.mark.parametrize("name", PATCHES)
def test_a_patched_model_trains_and_is_another_training(name, model, clip, ask):
    """The patch is in the training and in what tells finished trainings apart, and ends there."""
    latent = nodes.EmptyLatentImage().generate(64, 64, 1)[0]
    sampler = "lcm" if name == "lcm" else "euler"
    person, nothing = encode(clip, "a photo of person"), encode(clip, "")

    def sample(model, positive):
        return nodes.KSampler().sample(
            model, 1, 4, 2.0, sampler, "sgm_uniform", positive, nothing, latent, 1.0
        )[0]["samples"]

    before, own = sample(model, person), ask(steps=12)[0]
    patched = PATCHES[name](model)
    identity, losses, *_ = ask(steps=12, model=patched)
    assert torch.tensor(losses["loss"]).isfinite().all()
    same = torch.equal(identity.pairs["clip_l"], own.pairs["clip_l"])
    assert same == (name == "eps")
    with_identity = sample(*apply_identity(patched, clip, identity, "a photo of V*"))
    assert with_identity.isfinite().all()
    assert not torch.equal(with_identity, sample(patched, person))
    assert torch.equal(sample(model, person), before)


@pytest.mark.parametrize("family", seeded.FAMILIES, indirect=True)
@pytest.mark.parametrize("name", ["v zsnr", "lcm"])
def test_neutral_is_plain_under_a_patch_in_every_family(name, model, clip, neutral):
    patched = PATCHES[name](model)
    latent = nodes.EmptyLatentImage().generate(64, 64, 1)[0]
    applied, plain = (
        nodes.KSampler().sample(
            m, 1, 3, 2.0, "euler", "sgm_uniform", c, encode(clip, ""), latent, 1.0
        )[0]["samples"]
        for m, c in (
            apply_identity(patched, clip, neutral, "a photo of V*"),
            (patched, encode(clip, "a photo of person")),
        )
    )
    assert torch.equal(applied, plain)


def noise_of_parts(sampling, timestep, side):
    """How large the noise is beside an eighth of a picture's side, in latents (side, side)."""
    noise = torch.randn(64, 4, side, side, generator=torch.Generator().manual_seed(0))
    latent = torch.ones_like(noise)
    sigma = sigmas_at(sampling, torch.tensor([timestep])).expand(len(noise))
    part = side // 8
    means = torch.nn.functional.avg_pool2d(
        sampling.noise_scaling(sigma, noise, latent), part, stride=part
    )
    return means.std() / means.mean()


@pytest.mark.parametrize("timestep", [400, 600])
def test_a_larger_picture_is_hidden_as_much_at_a_later_timestep(timestep):
    """The same content is learned from and looked at, however large the training's pictures are."""
    sampling = base_model(1).model_sampling
    assert alike_timestep(sampling, timestep, 64) == timestep
    hidden = noise_of_parts(sampling, timestep, 64)
    found = {side: alike_timestep(sampling, timestep, side) for side in (32, 64, 128)}
    assert found[32] < timestep - 100 and found[128] > timestep + 100
    for side, later in found.items():
        torch.testing.assert_close(
            noise_of_parts(sampling, later, side), hidden, rtol=0.02, atol=0.0
        )


def test_whatever_the_sampling_there_are_timesteps_left_to_learn_from(patched):
    sampling = patched.get_model_object("model_sampling")
    found = [alike_timestep(sampling, 600, side) for side in (8, 64, 128, 512)]
    assert found == sorted(found) and 0 <= found[0] < found[1] and found[-1] <= LATEST
