"""The fixed probe: even over timesteps and views, and a stop that looks at nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sefi_pack.sefi_core.samples import LatentPool
from sefi_pack.sefi_core.stages import even_edges, stage_of
from sefi_pack.sefi_core.training.config import TrainingConfig
from sefi_pack.sefi_core.training.probe import has_settled, make_probe


@given(st.lists(st.floats(0.01, 10.0), max_size=12), st.integers(1, 5), st.floats(0.0, 0.5))
def test_settled_means_that_no_late_look_beats_all_early_ones(losses, patience, gain):
    early, late = losses[:-patience], losses[-patience:]
    expected = bool(early) and all(
        any(loss > other * (1.0 - gain) for other in early) for loss in late
    )
    assert has_settled(losses, patience, gain) == expected


def test_a_falling_loss_goes_on_and_a_flat_one_stops():
    assert not has_settled([1.0, 0.9, 0.8, 0.7], 2, 0.01)
    assert has_settled([1.0, 0.9, 0.9, 0.895], 2, 0.01)
    assert not has_settled([], 1, 0.01)


@pytest.mark.parametrize("stages", [1, 5, 7, 50])
def test_every_stage_and_view_is_probed_alike(stages):
    pool = LatentPool(torch.arange(64.0).view(64, 1, 1, 1), torch.ones(64, 1, 1, 1))
    config = TrainingConfig(stages=stages, probe_every=10, seed=3)
    probe = make_probe(pool, config)
    counts = stage_of(probe.timesteps, even_edges(stages)).bincount(minlength=stages)
    assert counts.min() >= counts.max() - 1 and counts.min() >= 2
    views = probe.latents.flatten()
    assert views.unique().numel() == min(64, len(views)) and views.diff().max() <= 7
    again = make_probe(pool, config)
    assert torch.equal(probe.noise, again.noise)
    assert torch.equal(probe.timesteps, again.timesteps)


def test_without_looks_there_is_no_probe_and_no_trace_of_it():
    pool = LatentPool(torch.zeros(4, 1, 1, 1), torch.ones(4, 1, 1, 1))
    assert make_probe(pool, TrainingConfig()) is None
    assert not any(name.startswith("probe") for name in TrainingConfig().fingerprint())
    assert "probe_every" in TrainingConfig(probe_every=5).fingerprint()
