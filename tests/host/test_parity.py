"""Against the plain graph, bit for bit, in every family: every pair the class word's token, and
strength 0.
"""

import itertools

import comfy.patcher_extension
import comfy_extras.nodes_custom_sampler as custom
import pytest
import seeded
import torch
from sefi_pack.nodes.host.apply.sampling import apply_identity

import nodes

LONG = ", ".join(f"word{i} of a long prompt" for i in range(30))
NEGATIVE = "blurry, low quality"


@pytest.fixture(scope="module", params=seeded.FAMILIES)
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


def count_calls(model):
    """Returns a clone of the model and the list of batch sizes it has been called with."""
    calls, clone = [], model.clone()

    def note(executor, x, *args, **kwargs):
        calls.append(len(x))
        return executor(x, *args, **kwargs)

    clone.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, note)
    return clone, calls


def encode(clip, text):
    return nodes.CLIPTextEncode().encode(clip, text)[0]


def empty(batch=1, height=64, width=64):
    return nodes.EmptyLatentImage().generate(width, height, batch)[0]


def ksampler(sampler="euler", scheduler="normal", steps=6, cfg=7.5, denoise=1.0, latent=None):
    def run(model, positive, negative):
        return nodes.KSampler().sample(
            model, 3, steps, cfg, sampler, scheduler, positive, negative, latent or empty(), denoise
        )[0]["samples"]

    return run


def two_halves(model, positive, negative):
    """KSampler Advanced, split in two."""
    args = (3, 8, 7.5, "euler", "karras", positive, negative)
    sample = nodes.KSamplerAdvanced().sample
    half = sample(model, "enable", *args, empty(), 0, 4, "enable")[0]
    return sample(model, "disable", *args, half, 4, 10000, "disable")[0]["samples"]


def custom_advanced(model, positive, negative):
    """SamplerCustomAdvanced with its separate noise, guider, sampler and sigmas."""
    parts = (
        custom.RandomNoise.execute(3)[0],
        custom.CFGGuider.execute(model, positive, negative, 6.0)[0],
        custom.KSamplerSelect.execute("dpmpp_2m")[0],
        custom.BasicScheduler.execute(model, "karras", 6, 1.0)[0],
    )
    return custom.SamplerCustomAdvanced.execute(*parts, empty())[0]["samples"]


def picture_latent():
    return {"samples": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))}


SETTINGS = {
    "weights": ("a photo of (V*:1.3), (smiling:0.8)", ksampler()),
    "three chunks": (f"V*, {LONG}", ksampler()),
    "placeholder in the last chunk": (f"{LONG}, with V*", ksampler()),
    "glued to punctuation": ("V*'s house, near V*, at night", ksampler()),
    "batch 2": ("a photo of V*", ksampler(latent=empty(2))),
    "odd size": ("a photo of V*", ksampler(latent=empty(1, 72, 104))),
    "cfg 1": ("a photo of V*", ksampler(cfg=1.0)),
    "karras": ("a photo of V*", ksampler(scheduler="karras")),
    "ddim": ("a photo of V*", ksampler("ddim", "ddim_uniform")),
    "dpmpp_2m_sde": ("a photo of V*", ksampler("dpmpp_2m_sde", "karras")),
    "img2img": ("a photo of V*", ksampler(denoise=0.5, latent=picture_latent())),
    "KSampler Advanced in two": ("a photo of V*", two_halves),
    "SamplerCustomAdvanced": ("a photo of V*", custom_advanced),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_neutral_identity_samples_the_plain_picture(setting, model, clip, neutral):
    text, sample = SETTINGS[setting]
    plain_model, plain_calls = count_calls(model)
    plain = sample(plain_model, encode(clip, text.replace("V*", "person")), encode(clip, NEGATIVE))
    applied, conditioning = apply_identity(model, clip, neutral, text)
    applied, applied_calls = count_calls(applied)
    picture = sample(applied, conditioning, encode(clip, NEGATIVE))
    assert torch.equal(picture, plain)
    assert applied_calls == plain_calls


@pytest.mark.parametrize("setting", list(SETTINGS)[:4])
def test_a_pair_a_hair_from_the_class_word_samples_nearly_the_plain_picture(
    setting, model, clip, neutral
):
    """It acts, so its own prompts are encoded, each pair in its slot, stage and part."""
    text, sample = SETTINGS[setting]
    near = type(neutral)({name: pairs * (1.0 + 1e-6) for name, pairs in neutral.pairs.items()})
    plain = sample(model, encode(clip, text.replace("V*", "person")), encode(clip, NEGATIVE))
    applied, conditioning = apply_identity(model, clip, near, text)
    contexts = conditioning[0][1]["sefi"]
    picture = sample(applied, conditioning, encode(clip, NEGATIVE))
    assert not any(torch.equal(row, contexts.reference[0]) for row in contexts.keys)
    for rows in (contexts.keys, contexts.values):
        torch.testing.assert_close(rows, contexts.reference.expand_as(rows), rtol=1e-4, atol=1e-4)
    # The small model is loud: a few steps enlarge the rounding of the text batch a thousandfold.
    torch.testing.assert_close(picture, plain, rtol=1e-2, atol=1e-2)


def test_clip_skip(model, clip, neutral):
    skipped = nodes.CLIPSetLastLayer().set_last_layer(clip, -3)[0]
    plain = ksampler()(model, encode(skipped, "a photo of person"), encode(skipped, NEGATIVE))
    applied, conditioning = apply_identity(model, skipped, neutral, "a photo of V*")
    assert torch.equal(ksampler()(applied, conditioning, encode(skipped, NEGATIVE)), plain)
    assert not torch.equal(
        plain, ksampler()(model, encode(clip, "a photo of person"), encode(clip, NEGATIVE))
    )


@pytest.mark.parametrize("class_word", ["person", "golden retriever"])
def test_strength_zero_samples_the_plain_picture(class_word, model, clip, learned):
    learned = type(learned)(learned.pairs, class_word=class_word)
    plain = ksampler()(model, encode(clip, f"a photo of {class_word}"), encode(clip, NEGATIVE))
    applied, conditioning = apply_identity(model, clip, learned, "a photo of V*", strength=0.0)
    assert torch.equal(ksampler()(applied, conditioning, encode(clip, NEGATIVE)), plain)


def test_a_learned_identity_changes_the_picture_through_keys_and_through_values(
    model, clip, learned
):
    plain = ksampler()(model, encode(clip, "a photo of person"), encode(clip, NEGATIVE))
    pictures = [plain]
    for strengths in ({}, {"key_strength": 0.0}, {"value_strength": 0.0}):
        applied, conditioning = apply_identity(model, clip, learned, "a photo of V*", **strengths)
        pictures.append(ksampler()(applied, conditioning, encode(clip, NEGATIVE)))
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(pictures, 2))


def test_a_forgotten_model_link_gives_the_plain_class(model, clip, learned):
    plain = ksampler()(model, encode(clip, "a photo of person"), encode(clip, NEGATIVE))
    _, conditioning = apply_identity(model, clip, learned, "a photo of V*")
    assert torch.equal(ksampler()(model, conditioning, encode(clip, NEGATIVE)), plain)


def test_with_without_with_in_one_session(model, clip, learned):
    def without():
        return ksampler()(model, encode(clip, "a photo of person"), encode(clip, NEGATIVE))

    def with_identity():
        applied, conditioning = apply_identity(model, clip, learned, "a photo of V*")
        return ksampler()(applied, conditioning, encode(clip, NEGATIVE))

    first, plain, second, again = with_identity(), without(), with_identity(), without()
    assert torch.equal(first, second) and torch.equal(plain, again)
    assert not torch.equal(first, plain)


def test_applying_twice_is_as_good_as_once(model, clip, learned):
    once, conditioning = apply_identity(model, clip, learned, "a photo of V*")
    twice, _ = apply_identity(once, clip, learned, "a photo of V*")
    pictures = [ksampler()(m, conditioning, encode(clip, NEGATIVE)) for m in (once, twice)]
    assert torch.equal(*pictures)


@pytest.mark.parametrize("percents", [(0.3005, 0.3005), (0.9, 0.1)])
def test_outside_its_percents_the_class_word_stands_in(percents, model, clip, learned):
    plain = ksampler()(model, encode(clip, "a photo of person"), encode(clip, NEGATIVE))
    start, end = percents
    applied, conditioning = apply_identity(
        model, clip, learned, "a photo of V*", start_percent=start, end_percent=end
    )
    outside = ksampler()(applied, conditioning, encode(clip, NEGATIVE))
    assert torch.equal(outside, plain)


@pytest.mark.parametrize("prompt_of_area", ["area", "mask"])
def test_an_area_prompt_leaves_the_negative_plain(prompt_of_area, model, clip, learned, neutral):
    """The host copies an area's entry, uuid and all, into the negative list."""

    def placed(conditioning):
        if prompt_of_area == "area":
            return nodes.ConditioningSetArea().append(conditioning, 32, 32, 16, 16, 1.0)[0]
        mask = torch.zeros(1, 64, 64)
        mask[:, :32] = 1.0
        return nodes.ConditioningSetMask().append(conditioning, mask, "mask bounds", 1.0)[0]

    def sample(applied, conditioning):
        background = encode(clip, "a wall")
        positive = nodes.ConditioningCombine().combine(placed(conditioning), background)[0]
        return ksampler()(applied, positive, encode(clip, NEGATIVE))

    plain = sample(model, encode(clip, "a photo of person"))
    assert torch.equal(sample(*apply_identity(model, clip, neutral, "a photo of V*")), plain)
    assert not torch.equal(sample(*apply_identity(model, clip, learned, "a photo of V*")), plain)


def test_what_other_nodes_do_to_the_plain_tensor_is_honoured(model, clip, neutral, learned):
    other = encode(clip, "a red hat")
    changes = {
        "concat": lambda c: nodes.ConditioningConcat().concat(c, other)[0],
        "average": lambda c: nodes.ConditioningAverage().addWeighted(c, other, 0.6)[0],
        "zero out": lambda c: nodes.ConditioningZeroOut().zero_out(c)[0],
        "timestep range": lambda c: nodes.ConditioningSetTimestepRange().set_range(c, 0.0, 0.6)[0],
    }
    negative = encode(clip, NEGATIVE)
    for name, change in changes.items():
        plain = ksampler()(model, change(encode(clip, "a photo of person")), negative)
        applied, conditioning = apply_identity(model, clip, neutral, "a photo of V*")
        same = ksampler()(applied, change(conditioning), negative)
        assert torch.equal(same, plain), name
        applied, conditioning = apply_identity(model, clip, learned, "a photo of V*")
        acted = ksampler()(applied, change(conditioning), negative)
        assert torch.equal(acted, plain) == (name == "zero out"), name


SCHEDULES = [
    ("euler", "normal"),
    ("ddim", "ddim_uniform"),
    ("dpmpp_2m", "karras"),
    ("heun", "sgm_uniform"),
]


@pytest.mark.parametrize(("sampler", "scheduler"), SCHEDULES)
def test_every_step_of_a_real_schedule_reads_its_own_stage(
    sampler, scheduler, model, clip, learned
):
    """Contexts that hold their stage's number show which one reached the UNet, and when."""
    applied, conditioning = apply_identity(model, clip, learned, "a photo of V*")
    contexts = conditioning[0][1]["sefi"]
    number = torch.arange(5.0).view(5, 1, 1).expand_as(contexts.keys)
    conditioning[0][1]["sefi"] = type(contexts)(number, number, contexts.reference, contexts.edges)
    seen = []

    def note(executor, x, timesteps, context, *args, **kwargs):
        seen.append((int(timesteps[0]), int(context[0, 0, 0])))
        return executor(x, timesteps, context, *args, **kwargs)

    applied.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, note)
    ksampler(sampler, scheduler, steps=20, cfg=1.0)(applied, conditioning, encode(clip, ""))
    assert {stage for _, stage in seen} == {0, 1, 2, 3, 4}
    assert all(stage == (999 - timestep) // 200 for timestep, stage in seen)
