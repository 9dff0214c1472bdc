"""The selection of a start, by successive elimination.

What the loss has a pair learn has several minima, and which one it falls into is decided by the
noise of its first steps: the eyes of one colour, the background in the person's place. A deeper one
is as a rule the truer one (docs/quality.md), and fixed samples tell which it is. So several
candidates learn side by side, each step one of them; the worst is eliminated every so often, until
one is left, which every stage goes on from.
"""

__all__ = ["eliminate", "is_due", "loss_of_candidate", "ranked", "selection_samples"]

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..losses import denoising_loss
from ..predict import Source, predict
from ..protocols import Backbone, TextEncoder
from ..samples import LatentPool, Samples, some_unseen, spread_samples
from .config import TrainingConfig
from .learner import Learner
from .phases import Selection

SAMPLES = 20


def selection_samples(
    backbone: Backbone, pool: LatentPool, config: TrainingConfig
) -> Samples | None:
    """Returns what candidates are compared on; None if there is one alone."""
    if config.candidates == 1:
        return None
    samples = spread_samples(pool, SAMPLES, config.selection_from, config.seed)
    rng = torch.Generator().manual_seed(config.seed)
    return some_unseen(samples, backbone.near_the_end(samples.timesteps), config.unseen, rng)


def is_due(learner: Learner) -> bool:
    """Whether it is time to eliminate a candidate."""
    eliminations = learner.step // learner.config.elimination_every
    return len(learner.left) > max(1, learner.config.candidates - eliminations)


def eliminate(
    backbone: Backbone, encoder: TextEncoder, learner: Learner, samples: Samples | None
) -> None:
    """Eliminates the worst candidates where it is time to."""
    while samples is not None and isinstance(learner.phase, Selection) and is_due(learner):
        losses = {
            row: float(loss_of_candidate(backbone, encoder, learner, row, samples))
            for row in learner.left
        }
        learner.drop_worst(ranked(losses))


@torch.no_grad()
def loss_of_candidate(
    backbone: Backbone, encoder: TextEncoder, learner: Learner, row: int, samples: Samples
) -> Tensor:
    """Returns L_KV, a scalar, of one row of the kept tables, in batches of a step's size. Masked
    like the training loss.
    """
    config, losses = learner.config, []
    source = Source(encoder, learner.kept())
    for part in samples.split(config.batch_size):
        rows = torch.full((len(part),), row)
        prediction = predict(backbone, [source], part, rows, with_maps=False)
        loss = denoising_loss(config.measured(prediction), config.counted(part.masks))
        losses.append(loss * len(part))
    return torch.stack(losses).sum() / len(samples)


def ranked(losses: Mapping[int, float]) -> list[int]:
    """Returns the rows by their losses, the lowest first and those that are no numbers last."""
    return sorted(losses, key=lambda row: (math.isnan(losses[row]), losses[row]))
