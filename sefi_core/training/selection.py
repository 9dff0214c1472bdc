"""Several pairs race at first, and one of them is kept for every stage.

What the loss has the pairs learn has several minima, and which one a pair falls into is decided by
the noise of its first steps: the eyes of one colour, the background in the person's place. A deeper
one is as a rule the truer one (docs/quality.md), and a fixed probe tells which it is. So the first
rows of the generators, later the pairs of the first stages, learn side by side, each step one of
them; the last in the probe falls out every so often, until one is left. They learn noisy timesteps
alone, where the picture has yet to become somebody.
"""

__all__ = ["drawn_rows", "hold_race", "is_due", "race_edges", "ranked"]

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..protocols import Backbone, TextEncoder
from ..samples import Probe
from ..stages import TIMESTEPS, stage_of
from .learner import Learner
from .probe import loss_of_pairs


def race_edges(learner: Learner) -> tuple[int, ...]:
    """Returns the edges of the timesteps that the next step draws from."""
    return (TIMESTEPS, learner.config.race_from) if learner.racing else learner.edges


def drawn_rows(learner: Learner, timesteps: Tensor) -> Tensor:
    """Returns the rows (B,) of the pairs for timesteps (B,): those of their stages, while some race
    any of theirs.
    """
    if not learner.racing:
        return stage_of(timesteps, learner.edges)
    chosen = torch.randint(0, len(learner.racers), timesteps.shape, generator=learner.rng)
    return torch.tensor(learner.racers)[chosen]


def is_due(learner: Learner) -> bool:
    """Whether it is time for one of the racers to fall out."""
    fallen = learner.step // learner.config.race_every
    return len(learner.racers) > max(1, learner.starts - fallen)


def hold_race(
    backbone: Backbone, encoder: TextEncoder, learner: Learner, probe: Probe | None
) -> None:
    """Lets the last of the learner's racers in the probe fall out when it is time to."""
    while probe is not None and is_due(learner):
        losses = {
            row: float(loss_of_pairs(backbone, encoder, learner, learner.learned(row), probe))
            for row in learner.racers
        }
        learner.rank(ranked(losses))


def ranked(losses: Mapping[int, float]) -> list[int]:
    """Returns the rows by their losses in the probe, the lowest first and those that are no numbers
    last.
    """
    return sorted(losses, key=lambda row: (math.isnan(losses[row]), losses[row]))
