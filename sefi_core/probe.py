"""A fixed probe of how well an identity denoises, and when it has stopped getting better.

The loss of a step says next to nothing: it is noise over timesteps, views and noises. The probe
has the same views, the same noise and the same timesteps at every look, spread evenly over all
stages, so that two looks differ by what was learned between them.
"""

__all__ = [
    "LatentPool",
    "Probe",
    "has_settled",
    "loss_of_pairs",
    "make_probe",
    "make_race_probe",
    "settled",
    "spread_probe",
]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .backbone import Backbone, TextEncoder
from .learner import Learner
from .losses import denoising_loss
from .prediction import predict_pairs
from .recipe import TrainingConfig
from .stages import TIMESTEPS

LEAST_SAMPLES, SAMPLES_PER_STAGE = 10, 2
RACE_SAMPLES = 20


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


def make_probe(pool: LatentPool, config: TrainingConfig) -> Probe | None:
    """Returns the probe of a training: the same for the same settings; None if it never looks."""
    if not config.probe_every:
        return None
    count = max(LEAST_SAMPLES, SAMPLES_PER_STAGE * config.stages)
    return spread_probe(pool, count, 0, config.seed)


def make_race_probe(pool: LatentPool, config: TrainingConfig) -> Probe | None:
    """Returns what ranks the pairs of a race; None if there is none."""
    if config.starts == 1:
        return None
    return spread_probe(pool, RACE_SAMPLES, config.race_from, config.seed)


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


def settled(
    backbone: Backbone, encoder: TextEncoder, learner: Learner, probe: Probe | None
) -> bool:
    """Looks at the probe when it is time to, and returns whether the training may stop."""
    config = learner.config
    if probe is None:
        return False
    if learner.step // config.probe_every > len(learner.probed):
        learner.guard.require_hope(learner.step, config.steps)
        learner.probed.append(
            float(loss_of_pairs(backbone, encoder, learner, learner.learned(), probe))
        )
    return has_settled(learner.probed, config.probe_patience, config.probe_gain)


@torch.no_grad()
def loss_of_pairs(
    backbone: Backbone,
    encoder: TextEncoder,
    learner: Learner,
    pairs: dict[str, Tensor],
    probe: Probe,
) -> Tensor:
    """Returns L_KV, a scalar, of pairs (S, 2, T, E) on the probe, in batches of a step's size; it
    looks where a step's looks.
    """
    config, losses = learner.config, []
    for latents, masks, noise, timesteps in probe.batches(config.batch_size):
        inputs = latents, noise, backbone.nearest(timesteps), torch.zeros(1)
        prediction = predict_pairs(backbone, encoder, pairs, learner.edges, *inputs)
        seen = masks if config.masked_loss else None
        losses.append(denoising_loss(prediction, seen) * len(timesteps))
    return torch.stack(losses).sum() / len(probe.timesteps)


def has_settled(losses: Sequence[float], patience: int, gain: float) -> bool:
    """Returns whether the last `patience` losses of a probe are none lower than the lowest before
    them by more than the share `gain`.
    """
    if len(losses) <= patience:
        return False
    before, after = min(losses[:-patience]), min(losses[-patience:])
    return after > before * (1.0 - gain)
