"""A fixed probe of how well an identity denoises, and when it has stopped getting better.

The loss of a step says next to nothing: it is noise over timesteps, views and noises. The probe
has the same views, the same noise and the same timesteps at every look, spread evenly over all
stages, so that two looks differ by what was learned between them.
"""

__all__ = ["has_settled", "loss_of_pairs", "make_probe", "make_race_probe", "settled"]

from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses import denoising_loss
from ..predict import predict_pairs
from ..protocols import Backbone, TextEncoder
from ..samples import LatentPool, Probe, spread_probe
from .config import TrainingConfig
from .learner import Learner

LEAST_SAMPLES, SAMPLES_PER_STAGE = 10, 2
RACE_SAMPLES = 20


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
