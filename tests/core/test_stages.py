"""Stages by timestep: against the definition, for every timestep there is."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from sefi_pack.sefi_core.stages import (
    TIMESTEPS,
    active_range,
    even_edges,
    sample_timesteps,
    stage_of,
)


def test_five_stages_are_the_papers_for_all_timesteps():
    timesteps = torch.arange(TIMESTEPS)
    assert even_edges(5) == (1000, 800, 600, 400, 200, 0)
    assert stage_of(timesteps, even_edges(5)).tolist() == [(999 - t) // 200 for t in range(1000)]


@given(st.integers(1, 50))
def test_stages_are_even_and_in_denoising_order(stages):
    stage = stage_of(torch.arange(TIMESTEPS), even_edges(stages))
    assert stage[-1] == 0 and stage[0] == stages - 1
    assert stage.diff().le(0).all()
    sizes = stage.bincount(minlength=stages)
    assert sizes.max() - sizes.min() <= 1


@given(st.floats(0, 1), st.floats(0, 1))
def test_percents_are_the_hosts(start, end):
    """The host runs t where percent_to_sigma(end) <= sigma(t) <= percent_to_sigma(start)."""
    low, high = active_range(start, end)
    for t in {0, 1, 500, 998, 999, low, high - 1, low - 1, high}:
        if 0 <= t < TIMESTEPS:
            assert (low <= t < high) == ((1 - end) * 999 <= t <= (1 - start) * 999)


@given(st.integers(1, 8), st.integers(0, 999))
def test_sampled_timesteps_lie_within_their_edges(batch, low):
    edges = (TIMESTEPS, low)
    drawn = [sample_timesteps(torch.Generator().manual_seed(7), batch, edges) for _ in range(2)]
    assert torch.equal(*drawn)
    assert drawn[0].dtype == torch.int64 and drawn[0].min() >= low and drawn[0].max() < TIMESTEPS
