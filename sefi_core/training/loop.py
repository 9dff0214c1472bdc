"""Learning an identity: one loop.

Each step draws latents, noise and a timestep t, lets the generator give the pair of t's stage,
encodes the two prompts as one batch, and lowers L = L_KV + lambda * L_attn (Eq. 6). Only the
generator learns. `train` is an iterator over steps: bars, stop buttons, previews and files belong
to the caller.
"""

__all__ = ["LatentPool", "StepReport", "checked", "draw", "loss_terms", "train"]

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..devices import sent
from ..losses import LossTerms, attention_loss, denoising_loss
from ..predict import predict_rows
from ..protocols import Backbone, Prediction, TextEncoder
from ..samples import LatentPool
from ..stages import sample_timesteps, stage_of
from .config import TrainingConfig
from .learner import Learner
from .probe import make_probe, make_race_probe, settled
from .selection import drawn_rows, hold_race, race_edges

HOPE_CHECK_EVERY = 10  # steps; each check waits for the device


@dataclass(frozen=True)
class StepReport:
    """After a step: `step` are done; losses (2,), L_KV and L_attn, are still on their device; the
    stages (B,) of its samples are on the CPU; `candidates` are left to begin the stages from.
    """

    step: int
    losses: Tensor
    stages: Tensor
    candidates: int


def train(
    backbone: Backbone, encoder: TextEncoder, pool: LatentPool, learner: Learner
) -> Iterator[StepReport]:
    """Takes the steps that the learner's settings still ask for, one at each `next`.

    Raises:
        TrainingError: The last steps all left the finite numbers; the learner is as it was before.
    """
    # They stay on the CPU, where whether there is any is known without waiting for the device.
    columns = encoder.columns(learner.config.attention_loss)
    probe, race_probe = make_probe(pool, learner.config), make_race_probe(pool, learner.config)
    while learner.step < learner.config.steps and not settled(backbone, encoder, learner, probe):
        # Between two steps: who stops it there has been told of every step that was taken.
        hold_race(backbone, encoder, learner, race_probe)
        drawn = learner.rng.get_state()
        try:
            terms, stages = losses_of_step(backbone, encoder, pool, learner, columns)
            learner.update(terms)
        except BaseException:
            # A step that was cut short is drawn again when the training goes on.
            learner.rng.set_state(drawn)
            raise
        yield checked(learner, stages)
    hold_race(backbone, encoder, learner, race_probe)


def checked(learner: Learner, stages: Tensor) -> StepReport:
    """Reports the step just taken, of samples of `stages` (B,); looks every so often whether there
    is hope.

    Raises:
        TrainingError: Too many steps left the finite numbers.
    """
    if learner.step % HOPE_CHECK_EVERY == 0 or learner.step == learner.config.steps:
        learner.guard.require_hope(learner.step, learner.config.steps)
    losses = learner.losses[learner.step - 1]
    return StepReport(learner.step, losses, stages, len(learner.racers))


def losses_of_step(
    backbone: Backbone, encoder: TextEncoder, pool: LatentPool, learner: Learner, columns: Tensor
) -> tuple[LossTerms, Tensor]:
    """Draws one batch; returns its losses, differentiable in the learner's generators, and its
    stages (B,) on the CPU.
    """
    config = learner.config
    latents, masks, noise, timesteps, rows = draw(backbone, pool, learner)
    prediction = predict_rows(
        backbone, encoder, learner(), rows, latents, noise, timesteps, columns
    )
    return loss_terms(prediction, config, columns, masks), stage_of(timesteps, learner.edges)


def draw(
    backbone: Backbone, pool: LatentPool, learner: Learner
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Draws a step's latents (B, c, h, w) and masks (B, 1, h, w), and on the CPU its noise,
    timesteps (B,) and the rows (B,) of the pairs that learn.
    """
    config, rng = learner.config, learner.rng
    view = torch.randint(0, len(pool.latents), (config.batch_size,), generator=rng)
    timesteps = backbone.nearest(
        sample_timesteps(
            rng, config.batch_size, race_edges(learner), learner.step, config.stratified
        )
    )
    noise = torch.randn(config.batch_size, *pool.latents.shape[1:], generator=rng)
    rows = drawn_rows(learner, timesteps)
    view = sent(view, pool.latents.device)
    latents, masks = (x.index_select(0, view) for x in (pool.latents, pool.masks))
    return latents, masks, noise, timesteps, rows


def loss_terms(
    prediction: Prediction, config: TrainingConfig, columns: Tensor, masks: Tensor | None
) -> LossTerms:
    """Returns Eq. 6 for one prediction; masks (B, 1, h, w) count if the settings ask for it."""
    denoising = denoising_loss(prediction, masks if config.masked_loss else None)
    attention = (
        attention_loss(prediction, columns) if prediction.maps else torch.zeros_like(denoising)
    )
    return LossTerms(denoising, attention, denoising + config.attention_loss_weight * attention)
