"""A fixed probe of how well an identity denoises, and when it has stopped getting better.

The loss of a step says next to nothing: it is noise over timesteps, views and noises. The probe
has the same views, the same noise and the same timesteps at every look, spread evenly over all
stages, so that two looks differ by what was learned between them.
"""

__all__ = ["LatentPool", "Probe", "has_settled", "make_probe"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .recipe import TrainingConfig
from .stages import TIMESTEPS

LEAST_SAMPLES, SAMPLES_PER_STAGE = 10, 2


@dataclass(frozen=True)
class LatentPool:
    """Encoded views: latents (n, c, h, w) as the model takes them, masks (n, 1, h, w) in [0, 1]."""

    latents: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Probe:
    """Latents (n, c, h, w), noise of that shape, and timesteps (n,), int64; the latter two are on
    the CPU.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields latents, noise and timesteps of up to `size` samples."""
        parts = (tensor.split(size) for tensor in (self.latents, self.noise, self.timesteps))
        return zip(*parts, strict=True)


def make_probe(pool: LatentPool, config: TrainingConfig) -> Probe | None:
    """Returns the probe of a training: the same for the same settings; None if it never looks."""
    if not config.probe_every:
        return None
    count = max(LEAST_SAMPLES, SAMPLES_PER_STAGE * config.stages)
    middles = (2 * torch.arange(count) + 1) * TIMESTEPS // (2 * count)
    views = torch.arange(count) * len(pool.latents) // count
    noise = torch.randn(
        count, *pool.latents.shape[1:], generator=torch.Generator().manual_seed(config.seed)
    )
    # Views come in the order they were drawn, timesteps in another: no view has the early ones.
    order = torch.randperm(count, generator=torch.Generator().manual_seed(config.seed))
    return Probe(pool.latents[views.to(pool.latents.device)], noise, middles[order])


def has_settled(losses: Sequence[float], patience: int, gain: float) -> bool:
    """Returns whether the last `patience` losses of a probe are none lower than the lowest before
    them by more than the share `gain`.
    """
    if len(losses) <= patience:
        return False
    before, after = min(losses[:-patience]), min(losses[-patience:])
    return after > before * (1.0 - gain)
