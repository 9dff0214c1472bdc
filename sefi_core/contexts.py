"""A token in its slot of a prompt, and a prompt's contexts stage by stage.

Cross-attention takes K from the text encoder's output for the prompt with P_i^K in the
placeholder's slot, and V from the one with P_i^V. Where the identity does not act (outside its
timesteps, at strength 0) the context of the reference prompt, with the class word in the slot,
stands in.
"""

__all__ = ["StagedContext", "concatenated", "put_tokens", "stage_contexts"]

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .stages import stage_of, union_edges


@dataclass(frozen=True, eq=False)
class StagedContext:
    """Key and value contexts of one prompt.

    Attributes:
        keys, values: Shape (S, L, C); L is L' or a multiple of it, whole contexts repeated.
        reference: The reference prompt's context, (1, L', C).
        edges: The S + 1 descending timesteps that bound the stages.
        elsewhere: What `on` has made for other devices.
    """

    keys: Tensor
    values: Tensor
    reference: Tensor
    edges: tuple[int, ...]
    elsewhere: dict[torch.device, "StagedContext"] = field(
        default_factory=dict, init=False, repr=False
    )

    def at(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the key and value context, each (1, L, C), of a timestep (1,); no device is
        synchronised.
        """
        stage = stage_of(timestep, self.edges)
        return self.keys.index_select(0, stage), self.values.index_select(0, stage)

    def on(self, device: torch.device) -> "StagedContext":
        """Returns it on a device; a copy is kept, as calls come from there again."""
        if self.keys.device == self.reference.device == device:
            return self
        if device not in self.elsewhere:
            moved = self.map(lambda x: x.to(device))
            self.elsewhere[device] = replace(moved, reference=self.reference.to(device))
        return self.elsewhere[device]

    def map(self, change: Callable[[Tensor], Tensor]) -> "StagedContext":
        """Returns it with `change` applied to keys and values."""
        return replace(self, keys=change(self.keys), values=change(self.values))

    def refined(self, edges: tuple[int, ...]) -> "StagedContext":
        """Returns it with the stages that `edges`, a superset of its own, bound."""
        stage = stage_of(torch.tensor([edge - 1 for edge in edges[:-1]]), self.edges)
        return replace(self.map(lambda x: x[stage.to(x.device)]), edges=edges)

    def repetitions(self, times: int) -> tuple[Tensor, Tensor]:
        """Returns keys and values as `times` repetitions, (S, times, L', C)."""
        length = self.reference.shape[1]
        own = self.keys.shape[1] // length
        keys, values = (
            x.unflatten(1, (own, length)).repeat(1, times // own, 1, 1)
            for x in (self.keys, self.values)
        )
        return keys, values


def concatenated(parts: Sequence[StagedContext]) -> StagedContext:
    """Returns the contexts of prompts that stand one after the other, each with its own stages."""
    edges = union_edges(*(part.edges for part in parts))
    times = math.lcm(*(part.keys.shape[1] // part.reference.shape[1] for part in parts))
    each = [part.refined(edges).repetitions(times) for part in parts]
    keys, values = (torch.cat(x, dim=2).flatten(1, 2) for x in zip(*each, strict=True))
    return StagedContext(keys, values, torch.cat([p.reference for p in parts], dim=1), edges)


def put_tokens(embeds: Tensor, tokens: Tensor, slots: list[int]) -> Tensor:
    """Returns prompt embeddings (L, E) with tokens (B, T, E) in each slot, shape (B, L, E);
    differentiable.
    """
    filled = embeds.expand(len(tokens), -1, -1)  # (B, L, E)
    for slot in reversed(slots):
        filled = torch.cat([filled[:, :slot], tokens, filled[:, slot + 1 :]], dim=1)
    return filled[:, : embeds.shape[0]]  # several tokens push padding out at the end


def stage_contexts(
    encoded: Tensor, reference: Tensor, edges: tuple[int, ...], acting: Tensor
) -> StagedContext:
    """Builds the staged contexts of one prompt.

    Arguments:
        encoded: The prompt with every acting token in its slot, (n, L, C), in the order in which
            `acting` counts them.
        reference: The reference prompt, (1, L', C); it stands in everywhere else.
        edges: The S + 1 stage edges.
        acting: (S, 2), bool: the n stages that act through K and through V.
    """
    encoded, stand_in = same_length(encoded, reference)
    contexts = stand_in.expand(*acting.shape, -1, -1).clone()  # (S, 2, L, C)
    contexts[acting.to(contexts.device)] = encoded
    keys, values = contexts.unbind(dim=1)
    return StagedContext(keys.contiguous(), values.contiguous(), reference, edges)


def same_length(encoded: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Repeats whole contexts (axis 1) to one length: a class word of several tokens may need a
    chunk more.

    Repetition of the whole leaves softmax attention as it was.
    """
    length = math.lcm(encoded.shape[1], reference.shape[1])
    encoded, reference = (
        contexts.repeat(1, length // contexts.shape[1], 1) for contexts in (encoded, reference)
    )
    return encoded, reference
