"""The phases of a training. A phase alone says which timesteps a step draws, which rows of the
tables learn from them, and the scale of the learning rate.
"""

__all__ = ["PerStage", "Phase", "Selection"]

from dataclasses import dataclass

import torch
from torch import Tensor

from ..stages import TIMESTEPS, even_edges, stage_of
from .config import TrainingConfig


@dataclass(frozen=True)
class Selection:
    """Candidates train at t >= selection_from, where layout and identity form.

    Arguments:
        left: Rows of the candidates that are left, the best first.
        edges: Those of the timesteps that are drawn, descending.
    """

    left: tuple[int, ...]
    edges: tuple[int, ...]
    lr_scale: float = 1.0

    @classmethod
    def of(cls, config: TrainingConfig) -> "Selection":
        return cls(tuple(range(config.candidates)), (TIMESTEPS, config.selection_from))

    def rows(self, timesteps: Tensor, rng: torch.Generator) -> Tensor:
        """Returns the rows (B,) that learn from timesteps (B,): any of those left."""
        chosen = torch.randint(0, len(self.left), timesteps.shape, generator=rng)
        return torch.tensor(self.left)[chosen]


@dataclass(frozen=True)
class PerStage:
    """Every stage learns its own pair."""

    edges: tuple[int, ...]
    lr_scale: float

    @classmethod
    def of(cls, config: TrainingConfig) -> "PerStage":
        scale = config.lr_after_selection if config.candidates > 1 else 1.0
        return cls(even_edges(config.stages), scale)

    def rows(self, timesteps: Tensor, rng: torch.Generator) -> Tensor:
        """Returns the rows (B,) that learn from timesteps (B,): their stages."""
        return stage_of(timesteps, self.edges)


Phase = Selection | PerStage
