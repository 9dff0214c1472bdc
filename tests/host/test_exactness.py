"""What is exact with any number of threads, on a text encoder of real width: a batch of another
size is rounded otherwise on many machines, so that only the plain row itself gives the plain
picture.
"""

import functools

import pytest
import seeded
import torch
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.text.encoder import class_tokens
from sefi_pack.nodes.host.text.encoding import encode_staged
from sefi_pack.sefi_core.identity.edit import blend, edit
from sefi_pack.sefi_core.identity.group import combine
from sefi_pack.sefi_core.identity.identity import Identity
from torch.overrides import TorchFunctionMode

import nodes

WIDE = {
    "hidden_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
NEGATIVE = "blurry, low quality"


@pytest.fixture(scope="module")
def model():
    with torch.inference_mode():
        return seeded.tiny_model(context_dim=768)


@pytest.fixture(scope="module")
def clip():
    with torch.inference_mode():
        return seeded.tiny_clip(**WIDE)


class RoundedByBatch(TorchFunctionMode):
    """A matrix product takes another kernel for another batch, as cuBLAS and MKL choose them."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.nn.functional.linear:
            result = result * (1.0 + len(args[0]) * 2.0**-22)
        return result


@pytest.fixture(scope="module", params=[1, 2, 4, "rounded by batch"])
def threads(request):
    """So many threads, or arithmetic whose rounding everywhere shows the size of its batch."""
    encode.cache_clear()
    if request.param == "rounded by batch":
        with RoundedByBatch():
            yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def learned():
    return Identity({"clip_l": torch.randn(5, 2, 1, 768, generator=seed(7)) * 0.3})


def seed(number):
    return torch.Generator().manual_seed(number)


def neutral_of(clip, class_word="person", tokens=1):
    pairs = class_tokens(clip, class_word)["clip_l"].expand(5, 2, tokens, -1)
    return Identity({"clip_l": pairs.clone()}, class_word=class_word)


@functools.cache
def encode(clip, text):
    return nodes.CLIPTextEncode().encode(clip, text)[0]


def sample(model, clip, positive, latent=None, denoise=1.0):
    latent = latent or nodes.EmptyLatentImage().generate(64, 64, 1)[0]
    return nodes.KSampler().sample(
        model, 3, 2, 6.0, "euler", "normal", positive, encode(clip, NEGATIVE), latent, denoise
    )[0]["samples"]


def in_area(conditioning, clip):
    placed = nodes.ConditioningSetArea().append(conditioning, 32, 32, 16, 16, 1.0)[0]
    return nodes.ConditioningCombine().combine(placed, encode(clip, "a wall"))[0]


def in_mask(conditioning, clip):
    mask = torch.zeros(1, 64, 64)
    mask[:, :32] = 1.0
    placed = nodes.ConditioningSetMask().append(conditioning, mask, "mask bounds", 1.0)[0]
    return nodes.ConditioningCombine().combine(placed, encode(clip, "a wall"))[0]


PLACES = {
    "alone": lambda c, clip: c,
    "area": in_area,
    "mask": in_mask,
    "range": lambda c, clip: nodes.ConditioningSetTimestepRange().set_range(c, 0.0, 0.6)[0],
    "concat": lambda c, clip: nodes.ConditioningConcat().concat(c, encode(clip, "a hat"))[0],
    "average": lambda c, clip: nodes.ConditioningAverage().addWeighted(
        c, encode(clip, "a hat"), 0.6
    )[0],
}


@pytest.mark.parametrize("place", PLACES)
def test_a_neutral_identity_samples_the_plain_picture(place, threads, model, clip):
    plain = sample(model, clip, PLACES[place](encode(clip, "a photo of person"), clip))
    applied, conditioning = apply_identity(model, clip, neutral_of(clip), "a photo of V*")
    assert torch.equal(sample(applied, clip, PLACES[place](conditioning, clip)), plain)


def test_img2img(threads, model, clip):
    latent = {"samples": torch.randn(1, 4, 8, 8, generator=seed(5))}
    plain = sample(model, clip, encode(clip, "a photo of person"), latent, 0.5)
    applied, conditioning = apply_identity(model, clip, neutral_of(clip), "a photo of V*")
    assert torch.equal(sample(applied, clip, conditioning, latent, 0.5), plain)


def reversed_range(clip, learned):
    return learned, {"start_percent": 0.9, "end_percent": 0.1}


def strength_zero(clip, learned):
    return learned, {"strength": 0.0}


def keys_by_strength_values_by_pair(clip, learned):
    pairs = neutral_of(clip).pairs["clip_l"]
    pairs[:, 0] = learned.pairs["clip_l"][:, 0]
    return Identity({"clip_l": pairs}), {"key_strength": 0.0}


def of_many_tokens(clip, learned):
    return neutral_of(clip, "golden retriever", tokens=3), {"strength": 1.7}


def blended(clip, learned):
    return blend([neutral_of(clip)] * 3, [0.3, 0.7, 0.1], [1, 3, 7]), {}


def handed_back(clip, learned):
    return edit(learned, "class word", "class word", "all"), {}


SILENT = [
    reversed_range,
    strength_zero,
    keys_by_strength_values_by_pair,
    of_many_tokens,
    blended,
    handed_back,
]


@pytest.mark.parametrize("silent", SILENT)
def test_what_does_not_act_samples_the_plain_picture(silent, threads, model, clip, learned):
    identity, settings = silent(clip, learned)
    plain = sample(model, clip, encode(clip, f"a photo of {identity.class_word}"))
    applied, conditioning = apply_identity(model, clip, identity, "a photo of V*", **settings)
    assert torch.equal(sample(applied, clip, conditioning), plain)


def test_stages_that_do_not_act_are_the_plain_row_and_the_others_theirs(threads, clip, learned):
    """Half of the pairs are the class word's; those that act differ from one-by-one by rounding."""
    pairs = neutral_of(clip).pairs["clip_l"]
    pairs[:2, 0], pairs[4, 1] = learned.pairs["clip_l"][:2, 0], learned.pairs["clip_l"][4, 1]
    plain = encode(clip, "a photo of person")[0][0]
    contexts = staged(clip, Identity({"clip_l": pairs}))
    for number, (key, value) in enumerate(zip(contexts.keys, contexts.values, strict=True)):
        assert torch.equal(key, plain[0]) == (number >= 2)
        assert torch.equal(value, plain[0]) == (number < 4)
    for row, pair in ((contexts.keys[1], pairs[1, 0]), (contexts.values[4], pairs[4, 1])):
        alone = staged(clip, Identity({"clip_l": pair.expand(1, 2, 1, -1)})).keys[0]
        assert not torch.equal(alone, plain[0])
        torch.testing.assert_close(row, alone, rtol=1e-5, atol=1e-5)


def staged(clip, identity, text="a photo of V*"):
    return encode_staged(clip, identity, text, (1.0, 1.0), (0, 1000))[0][1]["sefi"]


def test_a_neutral_identity_beside_one_that_acts(threads, clip, learned):
    group = combine([neutral_of(clip), learned], ["<a>", "<b>"])
    both = staged(clip, group, "<a> and <b>")
    alone = staged(clip, learned.named("<b>"), "person and <b>")
    assert torch.equal(both.keys, alone.keys) and torch.equal(both.values, alone.values)
