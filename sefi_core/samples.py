"""Encoded views, and fixed samples of them that two looks at a model share."""

__all__ = ["LatentPool", "Probe", "spread_probe"]

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .stages import TIMESTEPS


@dataclass(frozen=True)
class LatentPool:
    """Encoded views: latents (n, c, h, w) as the model takes them, masks (n, 1, h, w) in [0, 1]."""

    latents: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Probe:
    """Latents (n, c, h, w), masks (n, 1, h, w), noise of the latents' shape, and timesteps (n,),
    int64; the latter two are on the CPU.
    """

    latents: Tensor
    masks: Tensor
    noise: Tensor
    timesteps: Tensor

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yields latents, masks, noise and timesteps of up to `size` samples."""
        every = (self.latents, self.masks, self.noise, self.timesteps)
        return zip(*(tensor.split(size) for tensor in every), strict=True)


def spread_probe(pool: LatentPool, count: int, low: int, seed: int) -> Probe:
    """Returns `count` samples, spread evenly over views and over timesteps from `low` on."""
    middles = low + (2 * torch.arange(count) + 1) * (TIMESTEPS - low) // (2 * count)
    views = torch.arange(count) * len(pool.latents) // count
    noise = torch.randn(
        count, *pool.latents.shape[1:], generator=torch.Generator().manual_seed(seed)
    )
    # Views come in the order they were drawn, timesteps in another: no view has the early ones.
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    views = views.to(pool.latents.device)
    return Probe(pool.latents[views], pool.masks[views], noise, middles[order])
