"""Parts of other recipes, which the pack's learner takes as values: what the tables compare with
and no preset has.
"""
# ruff: noqa: E402 - the pack can be imported after `ensure_pack` only

__all__ = ["PARTS"]

import math

import torch
from torch import Tensor, nn

from .pack import ensure_pack

ensure_pack()
from sefi_pack.sefi_core.training.generator import PairBlock
from sefi_pack.sefi_core.training.learner import Learner


def cosine_lr(step: int, steps: int) -> float:
    """The learning rate falls to 0 along a cosine."""
    return 0.5 + 0.5 * math.cos(math.pi * step / steps)


def stratified_timesteps(learner: Learner) -> Tensor:
    """Samples take the stages in turn; returns timesteps (B,), uniform within each."""
    edges, batch = learner.phase.edges, learner.config.batch_size
    stage = [(learner.step * batch + i) % (len(edges) - 1) for i in range(batch)]
    low = torch.tensor([edges[i + 1] for i in stage])
    high = torch.tensor([edges[i] for i in stage])
    unit = torch.rand(batch, generator=learner.rng, dtype=torch.float64)
    return low + (unit * (high - low)).long()


class ResidualBlock(nn.Module):
    """P + block(P) with a zero output layer, so that training starts at the class word."""

    def __init__(self, token: Tensor, rows: int, tokens: int, rng: torch.Generator) -> None:
        super().__init__()
        self.block = PairBlock(token, rows, tokens, rng)
        nn.init.zeros_(self.block.out.weight)
        nn.init.zeros_(self.block.out.bias)

    def forward(self) -> Tensor:
        return self.block.token + self.block()


PARTS: dict[str, dict[str, object]] = {
    "decay": {"schedule": cosine_lr},
    "stratified": {"timesteps": stratified_timesteps},
    "residual": {"generator": ResidualBlock},
}
