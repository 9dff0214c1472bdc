"""A token in its slot of a prompt, and a prompt's contexts stage by stage.

Cross-attention takes K from the text encoder's output for the prompt with P_i^K in the
placeholder's slot, and V from the one with P_i^V. Where the identity does not act (outside its
timesteps, at strength 0) the context of the reference prompt, with the class word in the slot,
stands in.
"""

__all__ = ["StagedContext", "put_tokens", "stage_contexts"]

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .stages import TIMESTEPS, stage_of


@dataclass(frozen=True, eq=False)
class StagedContext:
    """Key and value contexts of one prompt.

    Attributes:
        keys, values: Shape (S, L, C).
        reference: The reference prompt's context, (1, L, C).
        edges: The S + 1 descending timesteps that bound the stages.
    """

    keys: Tensor
    values: Tensor
    reference: Tensor
    edges: tuple[int, ...]

    def at(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the key and value context, each (1, L, C), of a timestep (1,); no device is
        synchronised.
        """
        stage = stage_of(timestep, self.edges)
        return self.keys.index_select(0, stage), self.values.index_select(0, stage)

    def map(self, change: Callable[[Tensor], Tensor]) -> "StagedContext":
        """Returns it with `change` applied to every tensor."""
        return StagedContext(
            change(self.keys), change(self.values), change(self.reference), self.edges
        )


def put_tokens(embeds: Tensor, tokens: Tensor, slots: list[int]) -> Tensor:
    """Returns prompt embeddings (L, E) with tokens (B, T, E) in each slot, shape (B, L, E);
    differentiable.
    """
    filled = embeds.expand(len(tokens), -1, -1)  # (B, L, E)
    for slot in reversed(slots):
        filled = torch.cat([filled[:, :slot], tokens, filled[:, slot + 1 :]], dim=1)
    return filled[:, : embeds.shape[0]]  # several tokens push padding out at the end


def stage_contexts(
    encoded: Tensor,
    reference: Tensor,
    edges: tuple[int, ...],
    active: tuple[int, int] = (0, TIMESTEPS),
    acting: tuple[bool, bool] = (True, True),
) -> StagedContext:
    """Builds the staged contexts of one prompt.

    Arguments:
        encoded: The prompt with every token in its slot, (S, 2, L, C).
        reference: The reference prompt, (1, L', C).
        edges: The S + 1 stage edges.
        active: (low, high): the identity acts for low <= t < high.
        acting: Whether it acts through K and through V.
    """
    encoded, reference = same_length(encoded, reference)
    low, high = active
    cuts = sorted({*edges, *(t for t in active if 0 < t < TIMESTEPS)}, reverse=True)
    starts = torch.tensor(cuts[1:])  # the lowest timestep of each new stage
    stages = stage_of(starts, edges)
    parts = []
    for axis in range(2):
        rows = encoded[stages, axis]  # (S', L, C)
        acts = (starts >= low) & (starts < high) & acting[axis]
        parts.append(torch.where(acts.to(rows.device).view(-1, 1, 1), rows, reference))
    keys, values = parts
    return StagedContext(keys, values, reference, tuple(cuts))


def same_length(encoded: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Repeats whole contexts (axis -2) to one length: a class word of several tokens may need a
    chunk more.

    Repetition of the whole leaves softmax attention as it was.
    """
    length = math.lcm(encoded.shape[-2], reference.shape[-2])
    repeat = [1] * (encoded.ndim - 2) + [length // encoded.shape[-2], 1]
    return encoded.repeat(repeat), reference.repeat(1, length // reference.shape[-2], 1)
