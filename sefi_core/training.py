"""Learning an identity: one loop.

Each step draws latents, noise and a timestep t, lets the generator give the pair of t's stage,
encodes the two prompts as one batch, and lowers L = L_KV + lambda * L_attn (Eq. 6). Only the
generator learns. `train` is an iterator over steps: bars, stop buttons, previews and files belong
to the caller.
"""

__all__ = ["LatentPool", "StepReport", "loss_terms", "predict_pairs", "train"]

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .backbone import Backbone, Prediction, TextEncoder
from .learner import Learner
from .losses import LossTerms, attention_loss, denoising_loss
from .recipe import TrainingConfig
from .stages import sample_timesteps, stage_of

HOPE_CHECK_EVERY = 10  # steps; each check waits for the device


@dataclass(frozen=True)
class LatentPool:
    """Encoded views: latents (n, c, h, w) as the model takes them, masks (n, 1, h, w) in [0, 1]."""

    latents: Tensor
    masks: Tensor


@dataclass(frozen=True)
class StepReport:
    """After a step: `step` are done; losses (2,), L_KV and L_attn, are still on their device; the
    stages (B,) of its samples are on the CPU.
    """

    step: int
    losses: Tensor
    stages: Tensor


def train(
    backbone: Backbone, encoder: TextEncoder, pool: LatentPool, learner: Learner
) -> Iterator[StepReport]:
    """Takes the steps that the learner's settings still ask for, one at each `next`.

    Raises:
        TrainingError: The last steps all left the finite numbers; the learner is as it was before.
    """
    # They stay on the CPU, where whether there is any is known without waiting for the device.
    columns = encoder.columns(learner.config.attention_loss)
    while learner.step < learner.config.steps:
        drawn = learner.rng.get_state()
        try:
            terms, stages = losses_of_step(backbone, encoder, pool, learner, columns)
            learner.update(terms)
        except BaseException:
            learner.rng.set_state(
                drawn
            )  # a step that was cut short is drawn again when the training goes on
            raise
        if learner.step % HOPE_CHECK_EVERY == 0 or learner.step == learner.config.steps:
            learner.guard.require_hope(learner.step, learner.config.steps)
        yield StepReport(learner.step, learner.losses[learner.step - 1], stages)


def losses_of_step(
    backbone: Backbone, encoder: TextEncoder, pool: LatentPool, learner: Learner, columns: Tensor
) -> tuple[LossTerms, Tensor]:
    """Draws one batch; returns its losses, differentiable in the learner's generators, and its
    stages (B,) on the CPU.
    """
    config, rng = learner.config, learner.rng
    view = torch.randint(0, len(pool.latents), (config.batch_size,), generator=rng)
    timesteps = backbone.nearest(
        sample_timesteps(rng, config.batch_size, learner.edges, learner.step, config.stratified)
    )
    noise = torch.randn(config.batch_size, *pool.latents.shape[1:], generator=rng)
    latents, masks = (x[view.to(x.device)] for x in (pool.latents, pool.masks))
    prediction = predict_pairs(
        backbone, encoder, learner(), learner.edges, latents, noise, timesteps, columns
    )
    return loss_terms(prediction, config, columns, masks), stage_of(timesteps, learner.edges)


def predict_pairs(
    backbone: Backbone,
    encoder: TextEncoder,
    pairs: dict[str, Tensor],
    edges: tuple[int, ...],
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    columns: Tensor,
) -> Prediction:
    """Denoises with the pair of each sample's stage; noise and timesteps may come from the CPU."""
    device = latents.device
    stages = stage_of(timesteps, edges).to(device)
    tokens = {
        name: table[stages].transpose(0, 1).flatten(0, 1) for name, table in pairs.items()
    }  # (2 B, T, E)
    # Eq. 5's two encodings in one batch; the encoder may live on another device.
    keys, values = encoder.encode(tokens).to(device).chunk(2)  # each (B, L, C)
    return backbone.predict(
        latents,
        noise.to(latents),
        timesteps.to(device),
        keys,
        values,
        with_maps=bool(columns.any()),
    )


def loss_terms(
    prediction: Prediction, config: TrainingConfig, columns: Tensor, masks: Tensor | None
) -> LossTerms:
    """Returns Eq. 6 for one prediction; masks (B, 1, h, w) count if the settings ask for it."""
    denoising = denoising_loss(prediction, masks if config.masked_loss else None)
    attention = (
        attention_loss(prediction, columns) if prediction.maps else torch.zeros_like(denoising)
    )
    return LossTerms(denoising, attention, denoising + config.attention_loss_weight * attention)
