"""Fixed samples: even over timesteps and views, the same for the same seed; parts and their sum."""

from dataclasses import replace

import pytest
import torch
from sefi_pack.sefi_core.samples import LatentPool, joined, some_unseen, spread_samples
from sefi_pack.sefi_core.stages import even_edges, stage_of


@pytest.mark.parametrize(("count", "stages"), [(10, 1), (10, 5), (14, 7), (100, 50)])
def test_every_stage_and_view_is_looked_at_alike(count, stages):
    pool = LatentPool(torch.arange(64.0).view(64, 1, 1, 1), torch.ones(64, 1, 1, 1))
    samples = spread_samples(pool, count, 0, seed=3)
    counts = stage_of(samples.timesteps, even_edges(stages)).bincount(minlength=stages)
    assert counts.min() >= counts.max() - 1 and counts.min() >= 2
    views = samples.latents.flatten()
    assert views.unique().numel() == min(64, len(views)) and views.diff().max() <= 7
    again = spread_samples(pool, count, 0, seed=3)
    assert torch.equal(samples.noise, again.noise)
    assert torch.equal(samples.timesteps, again.timesteps)


@pytest.mark.parametrize("low", [0, 400, 999])
def test_timesteps_begin_where_they_are_to(low):
    pool = LatentPool(torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2))
    timesteps = spread_samples(pool, 20, low, seed=0).timesteps.sort().values
    assert timesteps.min() >= low and timesteps.max() < 1000
    assert timesteps.diff().unique().numel() <= 2


@pytest.mark.parametrize("sizes", [3, [1, 4, 2]])
def test_parts_put_together_are_the_whole(sizes):
    pool = LatentPool(torch.rand(4, 1, 2, 2), torch.rand(4, 1, 2, 2))
    whole = replace(spread_samples(pool, 7, 0, seed=0), prompts=torch.full((7,), 2))
    again = joined(list(whole.split(sizes)))
    assert len(again) == 7 and (again.prompts == 2).all()
    for one, other in zip(again.tensors, whole.tensors, strict=True):
        assert one.equal(other)


@pytest.mark.parametrize("lines", [1, 3])
def test_fixed_samples_stand_in_every_line_with_their_view_s_caption(lines):
    captions = torch.arange(64) % 4
    latents = captions.float().view(64, 1, 1, 1)
    samples = spread_samples(LatentPool(latents, latents, captions), 20, 0, 0, first=7, lines=lines)
    own = samples.prompts - 7
    assert (own // lines).equal(samples.latents.flatten().long())
    assert (own % lines).bincount(minlength=lines).min() >= 20 // lines
    plain = spread_samples(LatentPool(latents, latents), 20, 0, 0, first=7, lines=lines)
    assert (plain.prompts - 7).lt(lines).all() and plain.noise.equal(samples.noise)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_noisiest_samples_is_noise_alone(share):
    pool = LatentPool(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    samples = spread_samples(pool, 1000, 0, seed=0)
    noisiest = samples.timesteps >= 500
    found = some_unseen(samples, noisiest, share, torch.Generator().manual_seed(0))
    assert found.seen[~noisiest].all() and set(found.seen.tolist()) <= {0.0, 1.0}
    assert abs((found.seen[noisiest] == 0).float().mean() - share) < 0.06
