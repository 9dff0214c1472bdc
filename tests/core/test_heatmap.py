"""Sums of attention maps and what is read off them, against slow loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sefi_pack.sefi_core.analysis.heatmap import (
    AttentionRecord,
    contrasted,
    layer_maps,
    overlay,
    placed,
    share_inside,
    thinned,
)
from sefi_pack.sefi_core.stages import even_edges


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_record_is_the_mean_of_what_was_added_stage_by_stage():
    record, stages = AttentionRecord(even_edges(5), 7), [[] for _ in range(5)]
    for i, timestep in enumerate((999, 801, 800, 410, 399, 3)):
        maps = random(2, 7, 32, 32, seed=i)
        record.add(maps, torch.tensor([timestep]))
        stages[(999 - timestep) // 200].append(maps)
    assert record.counts.tolist() == [3, 0, 1, 1, 1] == [len(s) for s in stages]
    for i, found in enumerate(record.stages().unbind(dim=1)):
        expected = torch.stack(stages[i]).mean(0) if stages[i] else torch.zeros(2, 7, 32, 32)
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(record.mean(), torch.stack([m for s in stages for m in s]).mean(0))
    assert record.nbytes == 2 * 5 * 7 * 32 * 32 * 4 + 5 * 4


def test_samplings_of_one_prompt_are_joined_and_unlike_ones_left_out():
    def record(*seeds, tokens=7):
        found = AttentionRecord(even_edges(5), tokens)
        for seed in seeds:
            found.add(random(1, tokens, 32, 32, seed=seed), torch.tensor([500]))
        return found.on_cpu()

    both, nothing = record(0), AttentionRecord(even_edges(5), 7)
    both.join(record(1, 2))
    torch.testing.assert_close(both.stages(), record(0, 1, 2).stages())
    for unlike in (nothing, record(3, tokens=8)):
        both.join(unlike)
        torch.testing.assert_close(both.stages(), record(0, 1, 2).stages())
    assert nothing.on_cpu() is nothing


def test_a_repeated_context_folds_and_appended_tokens_stay_out():
    query, key = random(2, 6 * 4, 16), random(2, 5, 16, seed=1)
    once = layer_maps(query, key, 2, (6, 4), 5, 5)
    torch.testing.assert_close(once.sum(dim=1), torch.ones(2, 32, 32))
    torch.testing.assert_close(layer_maps(query, key.repeat(1, 3, 1), 2, (6, 4), 5, 15), once)
    more = layer_maps(query, torch.cat([key, random(2, 4, 16, seed=2)], 1), 2, (6, 4), 5, 5)
    assert (more.sum(dim=1) < 1.0).all()
    torch.testing.assert_close(more / more.sum(dim=1, keepdim=True), once, rtol=0.1, atol=0.05)


@given(st.integers(1, 90), st.integers(1, 90))
def test_thinned_tokens_are_every_nth_and_few(height, width):
    tokens = torch.arange(height * width).view(1, -1, 1)
    found, side = thinned(tokens, (height, width))
    assert found.shape[1] == side[0] * side[1] <= 1024
    step = next(n for n in range(1, 99) if -(-height // n) * -(-width // n) <= 1024)
    expected = [y * width + x for y in range(0, height, step) for x in range(0, width, step)]
    assert found.flatten().tolist() == expected


def test_a_map_of_a_part_lies_in_that_part():
    maps = torch.ones(2, 3, 32, 32)
    whole = placed(maps, (0.25, 0.5, 0.75, 1.0), 8, 40)
    expected = torch.zeros(8, 40)
    expected[2:6, 20:] = 1.0
    assert torch.equal(whole, expected.expand(2, 3, 8, 40))
    assert torch.equal(placed(maps, (0.0, 0.0, 1.0, 1.0), 8, 40), torch.ones(2, 3, 8, 40))


def test_shares_of_a_mask_and_its_opposite_add_up():
    maps, mask = random(4, 8, 8), (random(8, 8, seed=3) > 0.6).float()
    inside = share_inside(maps, mask)
    for one, share in zip(maps, inside, strict=True):
        by_hand = sum(float(v) for v, m in zip(one.flatten(), mask.flatten(), strict=True) if m)
        assert float(share) == pytest.approx(by_hand / float(one.sum()), rel=1e-5)
    torch.testing.assert_close(inside + share_inside(maps, 1.0 - mask), torch.ones(4))
    assert share_inside(torch.zeros(8, 8), mask) == 0.0


def test_contrast_goes_from_least_to_most_but_flat_maps_stay_dark():
    maps = random(3, 8, 8)
    heat = contrasted(maps)
    assert heat.min() == 0.0 and heat.max() == 1.0
    assert contrasted(1.0 + 0.01 * maps).max() < 0.1
    assert torch.equal(contrasted(torch.zeros(8, 8)), torch.zeros(8, 8))


def test_an_overlay_of_no_opacity_is_the_picture():
    pictures, heat = random(2, 8, 8, 3), random(2, 8, 8, seed=1)
    assert torch.equal(overlay(pictures, heat, 0.0), pictures)
    full = overlay(pictures, heat, 1.0)
    assert torch.equal(full, overlay(1.0 - pictures, heat, 1.0)) and 0 <= full.min() <= full.max()
    brightness = full.sum(dim=-1).flatten()[heat.flatten().argsort()]
    assert (brightness.diff() >= -1e-5).all()  # more is brighter, also without colours
