"""Maps, losses, contexts, generator and views against definitions written out as loops."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sefi_pack.sefi_core.contexts import put_tokens, stage_contexts
from sefi_pack.sefi_core.identity.identity import Identity
from sefi_pack.sefi_core.losses import (
    REFERENCE_COUNT,
    LossTerms,
    attention_loss,
    denoising_loss,
)
from sefi_pack.sefi_core.maps import attend, prompt_maps, resize_maps
from sefi_pack.sefi_core.picture.augment import augmented_views, jitter_colour
from sefi_pack.sefi_core.protocols import Prediction
from sefi_pack.sefi_core.training.config import TrainingConfig
from sefi_pack.sefi_core.training.generator import KINDS, make_generator
from sefi_pack.sefi_core.training.learner import Learner
from sefi_pack.sefi_core.training.loop import update


def seeded(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def bilinear(picture, size):
    """Half-pixel bilinear resize of nested lists, as a loop."""
    height, width = len(picture), len(picture[0])

    def at(y, x):
        return picture[min(max(y, 0), height - 1)][min(max(x, 0), width - 1)]

    out = []
    for i in range(size):
        y = max((i + 0.5) * height / size - 0.5, 0.0)
        row = []
        for j in range(size):
            x = max((j + 0.5) * width / size - 0.5, 0.0)
            top, left = int(y), int(x)
            dy, dx = y - top, x - left
            row.append(
                (1 - dy) * ((1 - dx) * at(top, left) + dx * at(top, left + 1))
                + dy * ((1 - dx) * at(top + 1, left) + dx * at(top + 1, left + 1))
            )
        out.append(row)
    return out


def test_maps_and_attention_match_loops():
    heads, width = 2, 3
    query, key, value = (
        seeded(1, n, heads * width, seed=n, dtype=torch.float64) for n in (4, 5, 5)
    )
    value = seeded(1, 5, heads * width, seed=9, dtype=torch.float64)
    maps = prompt_maps(query, key, heads)
    out = attend(maps, value)
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        for n in range(4):
            scores = [
                sum(query[0, n, part] * key[0, token, part]) / math.sqrt(width)
                for token in range(5)
            ]
            total = sum(math.exp(s) for s in scores)
            for token in range(5):
                assert maps[0, h, n, token] == pytest.approx(math.exp(scores[token]) / total)
            mixed = sum(maps[0, h, n, token] * value[0, token, part] for token in range(5))
            torch.testing.assert_close(out[0, n, part], mixed)


@pytest.mark.parametrize(("height", "width"), [(2, 3), (8, 8), (32, 32), (5, 7)])
def test_resizing_matches_a_loop_and_keeps_the_sum_over_tokens(height, width):
    maps = seeded(1, 2, height * width, 4, dtype=torch.float64).softmax(dim=-1)
    resized = resize_maps(maps, height, width)
    assert resized.shape == (1, 2, 4, 32, 32)
    torch.testing.assert_close(resized.sum(dim=2), torch.ones(1, 2, 32, 32, dtype=torch.float64))
    picture = maps[0, 1, :, 3].reshape(height, width).tolist()
    expected = torch.tensor(bilinear(picture, 32), dtype=torch.float64)
    torch.testing.assert_close(resized[0, 1, 3], expected)


def prediction_of(layers, batch=1, tokens=77):
    """A prediction with maps of the given (heads, height, width)."""
    maps = [
        tuple(
            seeded(batch, heads, h * w, tokens, seed=10 * i + side, dtype=torch.float64).softmax(-1)
            for side in range(2)
        )
        for i, (heads, h, w) in enumerate(layers)
    ]
    picture = torch.zeros(batch, 4, 8, 8, dtype=torch.float64)
    return Prediction(picture, picture, maps, [(h, w) for _, h, w in layers], torch.ones(batch))


def test_the_attention_loss_is_the_papers_sum_of_squares():
    """Algorithm 1 as written: Re2 of each side is the mean of resized layers, then a sum of
    squares.
    """
    prediction = prediction_of([(8, 4, 4), (8, 8, 8), (8, 2, 2)])
    reference, target = (
        sum(
            resize_maps(maps[side], *sides)
            for maps, sides in zip(prediction.maps, prediction.sides, strict=True)
        )
        / 3
        for side in range(2)
    )
    assert reference.shape == (1, 8, 77, 32, 32)
    expected = (reference - target).square().sum()
    torch.testing.assert_close(attention_loss(prediction, torch.ones(77)), expected)
    assert REFERENCE_COUNT == 630_784


def test_columns_choose_the_papers_options():
    prediction = prediction_of([(8, 4, 4)])
    whole = attention_loss(prediction, torch.ones(77))
    parts = []
    for chosen in (range(0, 7), range(7, 8), range(8, 77)):
        columns = torch.zeros(77)
        columns[list(chosen)] = 1.0
        parts.append(attention_loss(prediction, columns))
    torch.testing.assert_close(sum(parts), whole)
    assert attention_loss(prediction, torch.zeros(77)) == 0


def test_layers_with_unlike_heads_are_compared_one_by_one():
    layers = [(4, 4, 4), (8, 4, 4)]
    each = [attention_loss(prediction_of([layers[0]]), torch.ones(77))]
    both = prediction_of(layers)
    alone = replace(both, maps=both.maps[1:], sides=both.sides[1:])
    each.append(attention_loss(alone, torch.ones(77)))
    torch.testing.assert_close(attention_loss(both, torch.ones(77)), sum(each) / 2)


def test_the_denoising_loss_and_its_mask():
    output, target = seeded(2, 4, 8, 8), seeded(2, 4, 8, 8, seed=1)
    prediction = Prediction(output, target, [], [], torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(denoising_loss(prediction), (output - target).pow(2).mean())
    first, second = (output - target).pow(2).mean(dim=(1, 2, 3))
    torch.testing.assert_close(denoising_loss(prediction.as_velocity()), (first + 9 * second) / 2)
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :4] = 1.0
    inside = (output - target)[:, :, :4].pow(2).mean()
    torch.testing.assert_close(denoising_loss(prediction, mask), inside)


@given(st.integers(1, 3), st.lists(st.integers(1, 9), min_size=1, max_size=2, unique=True))
def test_tokens_are_put_where_the_slots_are(tokens, slots):
    embeds = torch.arange(20.0).view(20, 1).expand(20, 3)
    new = torch.full((2, tokens, 3), 100.0)
    put = put_tokens(embeds, new, sorted(slots))
    expected = []
    for i in range(20):
        expected += [100.0] * tokens if i in slots else [float(i)]
    assert put.shape == (2, 20, 3) and put[1, :, 0].tolist() == expected[:20]


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(0, 1000), st.integers(0, 1000), st.booleans(), st.booleans())
def test_staged_contexts_hold_the_right_row_at_every_timestep(stages, low, high, by_key, by_value):
    number = torch.arange(float(stages)).view(stages, 1, 1, 1)
    identity = Identity({"clip_l": torch.stack([number + 1, number + 101], dim=1)[..., 0]})
    identity = identity.within(low, high)
    acting = identity.acting((float(by_key), float(by_value)), {"clip_l": torch.zeros(1, 1)})
    rows = identity.pairs["clip_l"][acting].expand(-1, 4, 3)
    contexts = stage_contexts(rows, torch.zeros(1, 4, 3), identity.edges, acting)
    for t in range(0, 1000, 37):
        key, value = (c[0, 0, 0].item() for c in contexts.at(torch.tensor([t])))
        stage = sum(t < 1000 - i * 1000 // stages for i in range(1, stages))
        acts = low <= t < high
        assert key == (stage + 1 if acts and by_key else 0)
        assert value == (stage + 101 if acts and by_value else 0)


def test_contexts_of_unlike_length_are_repeated_whole():
    acting = torch.ones(1, 2, dtype=torch.bool)
    contexts = stage_contexts(seeded(2, 154, 8), seeded(1, 231, 8), (1000, 0), acting)
    assert contexts.keys.shape == contexts.values.shape == (1, 462, 8)
    assert torch.equal(contexts.keys[:, :154], contexts.keys[:, 154:308])
    assert torch.equal(contexts.reference, seeded(1, 231, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_generators_are_reproducible_and_leave_the_global_rng(kind):
    token = seeded(768) * 0.015
    before = torch.get_rng_state()
    pairs = [
        make_generator(kind)(token, 5, 1, torch.Generator().manual_seed(3))() for _ in range(2)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*pairs) and pairs[0].shape == (5, 2, 1, 768)
    starts_at_token = torch.equal(pairs[0], token.expand(5, 2, 1, 768))
    assert starts_at_token == (kind != "literal")


def test_the_literal_block_is_the_papers_size_and_its_attention_cannot_choose():
    block = make_generator("literal")(seeded(768) * 0.015, 5, 1, torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in block.parameters()) == 31_477_248
    block().square().sum().backward()
    for attention in (block.attention1, block.attention2):
        assert not attention.to_q.weight.grad.any() and not attention.to_k.weight.grad.any()
        assert attention.to_v.weight.grad.any()
    norms = block().norm(dim=-1)
    assert 2.5 < norms.min() and norms.max() < 4.0  # eight times a natural token's


def test_strengths_lead_from_the_class_word_to_the_learned_token():
    identity = Identity({"clip_l": seeded(5, 2, 1, 16)})
    token = {"clip_l": seeded(16, seed=5)}
    learned = identity.variants(token, (1.0, 1.0))["clip_l"]
    none = identity.variants(token, (0.0, 0.0))["clip_l"]
    half = identity.variants(token, (0.5, 0.0))["clip_l"]
    assert torch.equal(learned, identity.pairs["clip_l"])
    assert torch.equal(none, token["clip_l"].expand(5, 2, 1, 16))
    middle = (identity.pairs["clip_l"][:, 0] + token["clip_l"]) / 2
    torch.testing.assert_close(half[:, 0], middle)
    assert torch.equal(half[:, 1], none[:, 1])


def test_a_pair_acts_unless_it_is_the_class_word_in_every_encoder():
    words = {"clip_l": seeded(1, 8), "clip_g": seeded(1, 12, seed=1)}
    pairs = {name: word.expand(4, 2, 1, -1).clone() for name, word in words.items()}
    pairs["clip_l"][1, 0, 0, 3] += 1e-6
    pairs["clip_g"][2, 1, 0, 5] += 1e-6
    pairs["clip_l"][3] = seeded(2, 1, 8, seed=2)
    identity = Identity(pairs)
    found = identity.acting((1.0, 1.0), words).tolist()
    assert found == [[False, False], [True, False], [False, True], [True, True]]
    assert not identity.acting((0.0, 0.0), words).any()
    assert not Identity({n: p[:1] for n, p in pairs.items()}).acting((-0.7, 2.3), words).any()


def test_a_class_word_of_several_tokens_is_their_mean_or_themselves():
    words = {"clip_l": seeded(3, 8)}
    mean = words["clip_l"].mean(dim=0)
    pairs = torch.stack([mean.expand(3, 8), words["clip_l"], seeded(3, 8, seed=1)])
    identity = Identity({"clip_l": pairs[:, None].expand(3, 2, 3, 8)})
    assert identity.acting((1.0, 1.0), words)[:, 0].tolist() == [False, False, True]
    assert identity.acting((0.5, 0.5), words)[:, 0].tolist() == [False, True, True]
    assert not Identity({"clip_l": mean.expand(3, 2, 1, 8)}).acting((1.0, 1.0), words).any()


def test_views_and_their_masks_are_pasted_alike():
    picture = torch.ones(1, 3, 64, 64)
    generator = torch.Generator().manual_seed(0)
    views, masks = augmented_views(picture, torch.ones(1, 1, 64, 64), 12, (0.3, 1.0), generator)
    for view, mask in zip(views, masks, strict=True):
        assert torch.equal((view > 0).any(dim=0), mask[0] > 0.5)
        share = mask.mean().sqrt()
        assert 0.29 < share <= 1.0
    assert masks.mean(dim=(1, 2, 3)).unique().numel() > 8


def test_views_above_full_size_show_a_part_and_no_border():
    ramp = torch.linspace(0.0, 1.0, 64)
    masks = torch.stack(
        [ramp.expand(64, 64), ramp[:, None].expand(64, 64)]
    )  # where a view comes from
    generator = torch.Generator().manual_seed(0)
    for mask in masks:
        _, seen = augmented_views(
            torch.ones(1, 3, 64, 64), mask[None, None], 12, (2.0, 2.0), generator
        )
        spans = seen.amax(dim=(1, 2, 3)) - seen.amin(dim=(1, 2, 3))
        torch.testing.assert_close(spans, torch.full((12,), 0.5), atol=0.02, rtol=0)
        assert seen.amin(dim=(1, 2, 3)).unique().numel() > 8
    views, whole = augmented_views(
        torch.ones(1, 3, 64, 64), torch.ones(1, 1, 64, 64), 12, (1.0, 2.0), generator
    )
    assert whole.min() == 1.0
    assert views.min() > 0.5


def test_views_may_be_drawn_in_parts():
    pictures, masks = torch.rand(3, 3, 32, 32), torch.rand(3, 1, 32, 32)
    one, other = (torch.Generator().manual_seed(0) for _ in range(2))
    whole = augmented_views(pictures, masks, 7, (0.5, 2.0), one)
    parts = [augmented_views(pictures, masks, n, (0.5, 2.0), other, i) for i, n in ((0, 2), (2, 5))]
    for all_views, some in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(all_views, torch.cat(some))


def test_a_mask_flips_with_its_picture():
    picture = torch.zeros(1, 3, 64, 64)
    picture[..., :32] = 1.0
    generator = torch.Generator().manual_seed(0)
    views, masks = augmented_views(picture, picture[:, :1].clone(), 16, (1.0, 1.0), generator)
    for view, mask in zip(views, masks, strict=True):
        assert (view.mean(dim=0)[mask[0] > 0.5] > 0.5).all()
        assert (view.mean(dim=0)[mask[0] < 0.5] < 0.5).all()
    assert {bool(mask[0, 0, 0] > 0.5) for mask in masks} == {True, False}


def test_colour_jitter_at_rest_changes_nothing_and_grey_stays_grey():
    picture = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        jitter_colour(picture, 1.0, 1.0, 1.0, 0.0), picture, atol=1e-5, rtol=0
    )
    grey = picture[:1].expand(3, -1, -1)
    turned = jitter_colour(grey, 1.0, 1.0, 1.2, 0.01)
    torch.testing.assert_close(turned, grey, atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_does_not_go_on_learning(kind):
    learner = Learner({"clip_l": seeded(16)}, TrainingConfig(steps=2, generator=kind))
    snapshot = learner.pairs()["clip_l"]
    before = snapshot.clone()
    loss = learner()["clip_l"].square().sum()
    update([learner], [LossTerms(loss, loss, loss)])
    assert torch.equal(snapshot, before)
    assert not torch.equal(learner.pairs()["clip_l"], before)
