"""Which stage a timestep belongs to. Nothing else knows the number of timesteps.

Timesteps 999 .. 0 are cut by descending edges (1000, 800, 600, 400, 200, 0): stage i holds t in
[edges[i + 1], edges[i]), so stage 0 is the noisiest, the first one sampling meets. The stage
depends on t alone, never on the sampler or its number of steps.
"""

__all__ = [
    "TIMESTEPS",
    "active_range",
    "chosen_stages",
    "even_edges",
    "sample_timesteps",
    "stage_of",
    "union_edges",
]

import math
import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .errors import SettingsError

TIMESTEPS = 1000


def even_edges(stages: int) -> tuple[int, ...]:
    """Returns the `stages` + 1 edges, descending from 1000 to 0, of equal stages (Sec. III-C)."""
    return tuple(TIMESTEPS - i * TIMESTEPS // stages for i in range(stages + 1))


def union_edges(*edges: Iterable[int]) -> tuple[int, ...]:
    """Returns all edges there are, descending: stages as fine as every one of them asks for."""
    return tuple(sorted(set().union(*edges), reverse=True))


def chosen_stages(text: str, stages: int) -> list[bool]:
    """Returns for each of S stages whether `text` names it, counted from 1: "all", "1", "1-2, 5".

    Raises:
        SettingsError: It names none, or one that there is not.
    """
    if text.strip().lower() == "all":
        return [True] * stages
    chosen: set[int] = set()
    for part in text.split(","):
        ends = re.fullmatch(r"\s*([0-9]{1,4})\s*(?:-\s*([0-9]{1,4})\s*)?", part)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, 0)
        if not 1 <= first <= last <= stages:
            raise SettingsError(
                f'stages: "{text[:60]}" does not name stages of this identity, which are 1 to '
                f"{stages}; write for example 1, or 1-{stages}, or all."
            )
        chosen.update(range(first, last + 1))
    return [stage in chosen for stage in range(1, stages + 1)]


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


def sample_timesteps(rng: torch.Generator, batch: int, edges: Sequence[int]) -> Tensor:
    """Draws `batch` timesteps, int64, uniform over those within `edges`."""
    return torch.randint(edges[-1], edges[0], (batch,), generator=rng)
