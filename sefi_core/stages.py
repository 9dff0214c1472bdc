"""Which stage a timestep belongs to. Nothing else knows the number of timesteps.

Timesteps 999 .. 0 are cut by descending edges (1000, 800, 600, 400, 200, 0): stage i holds t in
[edges[i + 1], edges[i]), so stage 0 is the noisiest, the first one sampling meets. The stage
depends on t alone, never on the sampler or its number of steps.
"""

__all__ = ["TIMESTEPS", "active_range", "even_edges", "sample_timesteps", "stage_of"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TIMESTEPS = 1000


def even_edges(stages: int) -> tuple[int, ...]:
    """Returns the `stages` + 1 edges, descending from 1000 to 0, of equal stages (Sec. III-C)."""
    return tuple(TIMESTEPS - i * TIMESTEPS // stages for i in range(stages + 1))


def stage_of(timesteps: Tensor, edges: Sequence[int]) -> Tensor:
    """Returns the stages, int64 in [0, S - 1], of integer timesteps of any shape; stays on their
    device.
    """
    stage = torch.zeros_like(timesteps, dtype=torch.long)
    for edge in edges[1:-1]:
        stage += timesteps < edge
    return stage


def active_range(start_percent: float, end_percent: float) -> tuple[int, int]:
    """Returns (low, high): the host runs percents start..end of sampling for low <= t < high.

    The host maps a percent p to t = (1 - p) * 999 and keeps both ends.
    """
    last = TIMESTEPS - 1
    low = math.ceil((1.0 - end_percent) * last)
    high = math.floor((1.0 - start_percent) * last) + 1
    return low, high


def sample_timesteps(
    generator: torch.Generator, batch: int, edges: Sequence[int], step: int, stratified: bool
) -> Tensor:
    """Draws `batch` timesteps, int64, uniform over all of them; stratified, over each sample's
    stage in turn.
    """
    if not stratified:
        return torch.randint(0, TIMESTEPS, (batch,), generator=generator)
    stages = len(edges) - 1
    stage = [(step * batch + i) % stages for i in range(batch)]
    low = torch.tensor([edges[i + 1] for i in stage])
    high = torch.tensor([edges[i] for i in stage])
    unit = torch.rand(batch, generator=generator, dtype=torch.float64)
    return low + (unit * (high - low)).long()
