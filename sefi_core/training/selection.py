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
    backbone: Backbone, pool: LatentPool, config: TrainingConfig, first: int = 0, lines: int = 1
) -> Samples | None:
    """Returns what candidates are compared on; None if there is one alone.

    Arguments:
        first, lines: The model's reference prompts that are the subject's (`spread_samples`).
    """
    if config.candidates == 1:
        return None
    samples = spread_samples(pool, SAMPLES, config.selection_from, config.seed, first, lines)
    rng = torch.Generator().manual_seed(config.seed)
    return some_unseen(samples, backbone.near_the_end(samples.timesteps), config.unseen, rng)


def is_due(learner: Learner) -> bool:
    """Whether it is time to eliminate a candidate."""
    eliminations = learner.step // learner.config.elimination_every
    return len(learner.left) > max(1, learner.config.candidates - eliminations)


def eliminate(
    backbone: Backbone,
    encoder: TextEncoder,
    learner: Learner,
    samples: Samples | None,
    first: int = 0,
) -> None:
    """Eliminates the worst candidates where it is time to.

    Arguments:
        first: The first of the model's reference prompts that are the encoder's.
    """
    while samples is not None and isinstance(learner.phase, Selection) and is_due(learner):
        losses = {
            row: float(loss_of_candidate(backbone, encoder, learner, row, samples, first))
            for row in learner.left
        }
        learner.drop_worst(ranked(losses))


@torch.no_grad()
def loss_of_candidate(
    backbone: Backbone,
    encoder: TextEncoder,
    learner: Learner,
    row: int,
    samples: Samples,
    first: int = 0,
) -> Tensor:
    """Returns the mean of the samples' L_KV, a scalar, with one row of the kept tables. Masked like
    the training loss.
    """
    source, losses = Source(encoder, learner.kept(), first), []
    for part in samples.asked_at_once():
        rows = torch.full((len(part),), row)
        prediction = predict(backbone, [source], part, rows, with_maps=False)
        measured = learner.config.measured(prediction)
        for found, one in zip(measured.split([1] * len(part)), part.split(1), strict=True):
            losses.append(denoising_loss(found, learner.config.counted(one.masks)))
    return torch.stack(losses).mean()


def ranked(losses: Mapping[int, float]) -> list[int]:
    """Returns the rows by their losses, the lowest first and those that are no numbers last."""
    return sorted(losses, key=lambda row: (math.isnan(losses[row]), losses[row]))
