"""Where the words of a prompt act in a picture: cross-attention maps summed over a whole sampling
(Fig. 1).

Every map is the mean over heads, resized bilinearly to 32 x 32, so it sums to 1 over the prompt's
tokens wherever the prompt acts. Means are taken over layers and model calls alike. What is held
does not grow with the steps: 4 KiB for each picture, stage and token.
"""

__all__ = [
    "AttentionRecord",
    "Box",
    "contrasted",
    "layer_maps",
    "overlay",
    "placed",
    "share_inside",
    "thinned",
]

import math
from dataclasses import dataclass, field, replace
from threading import Lock

import torch
from torch import Tensor
from torch.nn import functional as F

from ..maps import MAP_SIDE, prompt_maps, resize_maps
from ..stages import stage_of

# Dark blue, violet, red, orange, pale yellow: darker is less, also on a screen without colour.
HEAT = ((0.05, 0.03, 0.28), (0.45, 0.06, 0.49), (0.82, 0.25, 0.31), (0.98, 0.57, 0.14), (1, 1, 0.7))

FLAT = 0.25

Box = tuple[float, float, float, float]
"""Top, left, bottom and right of a part of the picture, each a share of its side."""


@dataclass(eq=False)
class AttentionRecord:
    """The maps of one prompt, summed stage by stage; several threads may add.

    Attributes:
        edges: The S + 1 descending timesteps that bound the stages.
        tokens: How many tokens L the prompt has.
        box: The part of the picture that the prompt acts in.
        sums: (B, S, L, 32, 32), float32; None before the first map.
        counts: (S,), how many maps each stage has summed.
    """

    edges: tuple[int, ...]
    tokens: int
    box: Box = (0.0, 0.0, 1.0, 1.0)
    sums: Tensor | None = None
    counts: Tensor = field(default_factory=lambda: torch.zeros(0))
    lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def add(self, maps: Tensor, timestep: Tensor) -> None:
        """Adds a layer's maps (B, L, 32, 32) of a model call at a timestep (1,), which may be on
        another device each time; nothing waits.
        """
        with self.lock:
            if self.sums is None:
                stages = len(self.edges) - 1
                self.sums = maps.new_zeros(len(maps), stages, *maps.shape[1:])
                self.counts = maps.new_zeros(stages)
            stage = stage_of(timestep, self.edges).to(self.sums.device)
            self.sums.index_add_(1, stage, maps[:, None].to(self.sums.device))
            self.counts.index_add_(0, stage, torch.ones_like(stage, dtype=self.counts.dtype))

    def on_cpu(self) -> "AttentionRecord":
        """Returns it with its sums in main memory."""
        if self.sums is None:
            return self
        return replace(self, sums=self.sums.cpu(), counts=self.counts.cpu())

    def join(self, earlier: "AttentionRecord") -> None:
        """Adds another sampling's maps of the same prompt; those of an unlike one are left out."""
        mine, theirs = self.sums, earlier.sums
        if mine is not None and theirs is not None and mine.shape == theirs.shape:
            self.sums, self.counts = mine + theirs, self.counts + earlier.counts

    @property
    def nbytes(self) -> int:
        """The bytes it holds."""
        return 0 if self.sums is None else self.sums.nbytes + self.counts.nbytes

    def stages(self) -> Tensor:
        """Returns each stage's mean maps (B, S, L, 32, 32); zeros where nothing was sampled."""
        return self.summed() / self.counts.clamp(min=1.0).view(-1, 1, 1, 1)

    def mean(self) -> Tensor:
        """Returns the mean maps over all stages, (B, L, 32, 32)."""
        return self.summed().sum(dim=1) / self.counts.sum().clamp(min=1.0)

    def summed(self) -> Tensor:
        """Returns the sums; there must have been a map."""
        assert self.sums is not None
        return self.sums


def layer_maps(
    query: Tensor, key: Tensor, heads: int, side: tuple[int, int], tokens: int, length: int
) -> Tensor:
    """Returns one layer's maps (B, L, 32, 32), float32, one picture at a time to keep memory low.

    Arguments:
        query: Projected picture tokens, (B, height * width, H*d).
        key: Projected prompt tokens, (B, length or more, H*d): the prompt of L tokens, repeated
            whole where the host needed a common length, then whatever was appended to it.
        side: (height, width) of the picture tokens.
        tokens: L.
    """
    maps = []
    for one_query, one_key in zip(query[:, None], key[:, None], strict=True):
        probabilities = prompt_maps(one_query, one_key, heads).mean(dim=1, keepdim=True)
        folded = probabilities[..., :length].unflatten(-1, (-1, tokens)).sum(dim=-2)
        maps.append(resize_maps(folded, *side)[:, 0])
    return torch.cat(maps)


def thinned(x: Tensor, side: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """Returns every n-th of picture tokens (B, height * width, c) in each direction, and their new
    sides; n is the least that leaves 32 * 32 or fewer.
    """
    step = 1
    while math.prod(-(-length // step) for length in side) > MAP_SIDE**2:
        step += 1
    grid = x.unflatten(1, side)[:, ::step, ::step]
    return grid.flatten(1, 2), (grid.shape[1], grid.shape[2])


def placed(maps: Tensor, box: Box, height: int, width: int) -> Tensor:
    """Returns maps (..., 32, 32) of a part of the picture on the whole of it, (..., height, width),
    zero outside.
    """
    ends = (height, width, height, width)
    top, left, bottom, right = (round(part * end) for part, end in zip(box, ends, strict=True))
    size = (max(1, bottom - top), max(1, right - left))
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    inside = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    whole = F.pad(inside, (left, width - left - size[1], top, height - top - size[0]))
    return whole.reshape(*maps.shape[:-2], height, width)


def share_inside(maps: Tensor, mask: Tensor) -> Tensor:
    """Returns which share of each map (..., h, w) lies inside a mask (h, w) in [0, 1]: the pointing
    game, in parts of 1. An empty map has none.
    """
    total = maps.sum(dim=(-2, -1))
    return (maps * mask).sum(dim=(-2, -1)) / total.clamp(min=torch.finfo(maps.dtype).tiny)


def contrasted(maps: Tensor) -> Tensor:
    """Returns maps, all together, as heat in [0, 1] from their least to their most.

    Maps that hardly vary stay dark: less than a quarter of the most is no place of its own.
    """
    low, high = maps.min(), maps.max()
    return (maps - low) / torch.maximum(high - low, FLAT * high).clamp(min=1e-12)


def heat_colours(heat: Tensor) -> Tensor:
    """Returns the colours (..., 3) of heat in [0, 1]."""
    table = torch.tensor(HEAT, dtype=heat.dtype)
    place = heat.clamp(0.0, 1.0) * (len(HEAT) - 1)
    low = place.long().clamp(max=len(HEAT) - 2)
    return torch.lerp(table[low], table[low + 1], (place - low).unsqueeze(-1))


def overlay(pictures: Tensor, heat: Tensor, opacity: float) -> Tensor:
    """Returns pictures (B, h, w, 3) in [0, 1] under the colours of heat (B, h, w) in [0, 1]; the
    more of these, the greyer the picture, lest its own colours be taken for heat.
    """
    grey = pictures.mean(dim=-1, keepdim=True).expand_as(pictures)
    return torch.lerp(torch.lerp(pictures, grey, opacity), heat_colours(heat), opacity)
