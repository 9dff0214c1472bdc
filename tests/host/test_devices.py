"""Samplings whose calls are spread over two cards, as MultiGPU CFG Split does it: a thread each, on
models of their own, while the run itself is on the CPU.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
import seeded
import torch
from marked_devices import FIRST, SECOND, Marked, marked
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.maps.attention import watch_attention
from sefi_pack.nodes.host.train.backbone import plain_attention
from sefi_pack.sefi_core.analysis.heatmap import AttentionRecord
from torch.utils._pytree import tree_map_only

import nodes

TEXT = "a photo of V* with a red hat"


def encode(clip, text):
    return nodes.CLIPTextEncode().encode(clip, text)[0]


@pytest.fixture(scope="module")
def cards():
    """A model on each card, alike, and where it is."""
    with torch.inference_mode():
        return [(marked(seeded.tiny_model().model, card), card) for card in (FIRST, SECOND)]


def spread(model, places):
    """Returns a clone whose every model call is split into its prompts, one to a place in turn, in
    threads.
    """

    def part(number, rows, options, count):
        base, device = places[number % len(places)]
        with torch.inference_mode(), Marked():
            x, t, context = (tensor.chunk(count)[number].to(device) for tensor in rows)
            mine = tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), dict(options))
            for name in ("uuids", "cond_or_uncond"):
                mine[name] = options[name][number : number + 1]
            out = base.apply_model(x, t, c_crossattn=context, transformer_options=mine)
            assert out.device == device
            return out.to("cpu")

    def split(apply_model, call):
        options = call["c"]["transformer_options"]
        rows = (call["input"], call["timestep"], call["c"]["c_crossattn"])
        count = len(options["uuids"])
        with ThreadPoolExecutor(len(places)) as pool:
            parts = pool.map(lambda number: part(number, rows, options, count), range(count))
            return torch.cat(list(parts))

    patched = model.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = plain_attention
    patched.set_model_unet_function_wrapper(split)
    return patched


def sample(model, positive, negative, batch=1):
    latent = nodes.EmptyLatentImage().generate(64, 64, batch)[0]
    return nodes.KSampler().sample(
        model, 3, 3, 5.0, "euler", "normal", positive, negative, latent, 1.0
    )[0]["samples"]


def several(conditioning, clip):
    """Two prompts with areas of their own and one with neither, so that each card has several."""
    placed = nodes.ConditioningSetArea().append(conditioning, 32, 32, 16, 16, 1.0)[0]
    both = nodes.ConditioningCombine().combine(placed, conditioning)[0]
    return nodes.ConditioningCombine().combine(both, encode(clip, "a wall"))[0]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("prompts", [lambda c, clip: c, several], ids=["one", "several"])
def test_a_sampling_on_two_cards_is_the_one_on_the_cpu(prompts, batch, cards, model, clip, learned):
    applied, conditioning = apply_identity(model, clip, learned, TEXT)
    pictures, maps = [], []
    for places in ([(model.model, torch.device("cpu"))], cards):
        watched, recording = watch_attention(spread(applied, places))
        positive = prompts(conditioning, clip)
        pictures.append(sample(watched, positive, encode(clip, "bad"), batch))
        maps.append(recording.prompt(pictures[-1], 1))
    assert torch.equal(*pictures)
    assert torch.equal(maps[0].counts, maps[1].counts) and maps[0].counts.sum() > 0
    torch.testing.assert_close(maps[1].mean(), maps[0].mean(), rtol=1e-5, atol=1e-7)


def test_no_map_of_a_prompt_on_both_cards_is_lost():
    """Its calls come from many threads, on two devices."""
    record = AttentionRecord((1000, 500, 0), 3)

    def add(number):
        with torch.inference_mode(), Marked():
            card = (FIRST, SECOND)[number % 2]
            maps = torch.ones(1, 3, 32, 32).to(card)
            record.add(maps, torch.tensor([900 if number % 4 < 2 else 100]).to(card))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(200)))
    assert record.counts.tolist() == [100.0, 100.0]
    assert (record.sums == 100.0).all()


def test_the_mode_refuses_what_cards_refuse():
    with Marked():
        one, other = torch.ones(2).to(FIRST), torch.ones(2, device=SECOND)
        assert (one + 1).device == FIRST and torch.zeros_like(other).device == SECOND
        with pytest.raises(RuntimeError, match="different devices"):
            one + other
        with pytest.raises(RuntimeError, match="different devices"):
            torch.arange(6.0).view(3, 2).index_select(0, torch.tensor([1]).to(FIRST))
        assert torch.equal(one, other.to(one))
