"""Learning an identity: one loop.

Each step draws latents, noise and a timestep t, lets the generator give the pair of t's stage,
encodes the two prompts as one batch, and lowers L = L_KV + lambda * L_attn (Eq. 6). Only the
generator learns. `train` is an iterator over steps: bars, stop buttons, previews and files belong
to the caller.
"""

__all__ = [
    "LatentPool",
    "StepReport",
    "checked",
    "draw",
    "drawn_tokens",
    "loss_terms",
    "predict_pairs",
    "probe_loss",
    "train",
]

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .backbone import Backbone, Prediction, TextEncoder
from .devices import sent
from .learner import Learner
from .losses import LossTerms, attention_loss, denoising_loss
from .probe import LatentPool, Probe, has_settled, make_probe, make_race_probe
from .race import drawn_rows, is_due, race_edges, ranked
from .recipe import TrainingConfig
from .stages import sample_timesteps, stage_of

HOPE_CHECK_EVERY = 10  # steps; each check waits for the device


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
    probe, race_probe = make_probe(pool, learner.config), make_race_probe(pool, learner.config)
    hold_race(backbone, encoder, learner, race_probe)
    while learner.step < learner.config.steps and not settled(backbone, encoder, learner, probe):
        drawn = learner.rng.get_state()
        try:
            terms, stages = losses_of_step(backbone, encoder, pool, learner, columns)
            learner.update(terms)
        except BaseException:
            learner.rng.set_state(
                drawn
            )  # a step that was cut short is drawn again when the training goes on
            raise
        hold_race(backbone, encoder, learner, race_probe)
        yield checked(learner, stages)


def settled(
    backbone: Backbone, encoder: TextEncoder, learner: Learner, probe: Probe | None
) -> bool:
    """Looks at the probe when it is time to, and returns whether the training may stop."""
    config = learner.config
    if probe is None:
        return False
    if learner.step // config.probe_every > len(learner.probed):
        learner.guard.require_hope(learner.step, config.steps)
        learner.probed.append(float(probe_loss(backbone, encoder, learner, probe)))
    return has_settled(learner.probed, config.probe_patience, config.probe_gain)


@torch.no_grad()
def probe_loss(backbone: Backbone, encoder: TextEncoder, learner: Learner, probe: Probe) -> Tensor:
    """Returns L_KV, a scalar, of the pairs so far on the probe, in batches as large as a step's."""
    pairs = {name: table.to(learner.device) for name, table in learner.pairs().items()}
    return loss_of_pairs(backbone, encoder, learner, pairs, probe)


@torch.no_grad()
def hold_race(
    backbone: Backbone, encoder: TextEncoder, learner: Learner, probe: Probe | None
) -> None:
    """Lets the last of the learner's racers in the probe fall out when it is time to."""
    while probe is not None and is_due(learner):
        losses = {
            row: float(loss_of_pairs(backbone, encoder, learner, learner.learned(row), probe))
            for row in learner.racers
        }
        learner.rank(ranked(losses))


def loss_of_pairs(
    backbone: Backbone,
    encoder: TextEncoder,
    learner: Learner,
    pairs: dict[str, Tensor],
    probe: Probe,
) -> Tensor:
    """Returns L_KV, a scalar, of pairs (S, 2, T, E) on the probe."""
    losses = []
    for latents, noise, timesteps in probe.batches(learner.config.batch_size):
        inputs = latents, noise, backbone.nearest(timesteps), torch.zeros(1)
        prediction = predict_pairs(backbone, encoder, pairs, learner.edges, *inputs)
        losses.append(denoising_loss(prediction) * len(timesteps))
    return torch.stack(losses).sum() / len(probe.timesteps)


def checked(learner: Learner, stages: Tensor) -> StepReport:
    """Reports the step just taken, of samples of `stages` (B,); looks every so often whether there
    is hope.

    Raises:
        TrainingError: Too many steps left the finite numbers.
    """
    if learner.step % HOPE_CHECK_EVERY == 0 or learner.step == learner.config.steps:
        learner.guard.require_hope(learner.step, learner.config.steps)
    return StepReport(learner.step, learner.losses[learner.step - 1], stages)


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
    """Denoises with the pair of each sample's stage; timesteps and columns are on the CPU, noise
    may be.
    """
    rows = stage_of(timesteps, edges)
    return predict_rows(backbone, encoder, pairs, rows, latents, noise, timesteps, columns)


def predict_rows(
    backbone: Backbone,
    encoder: TextEncoder,
    pairs: dict[str, Tensor],
    rows: Tensor,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    columns: Tensor,
) -> Prediction:
    """Denoises each sample with the pair of its row (B,)."""
    device = latents.device
    tokens, place = drawn_tokens(pairs, rows)
    # Eq. 5's two encodings in one batch; the encoder may live on another device.
    keys, values = encoder.encode(tokens).to(device).chunk(2)  # each (n, L, C)
    place = sent(place, device)
    return backbone.predict(
        latents,
        sent(noise, device).to(latents),
        sent(timesteps, device),
        keys.index_select(0, place),
        values.index_select(0, place),
        with_maps=bool(columns.any()),
    )


def drawn_tokens(pairs: dict[str, Tensor], stages: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Returns the tokens (2 n, T, E) to encode, K before V, and each sample's place (B,) among the
    n of K: its own, or, where there are more samples than stages, its stage's.

    Arguments:
        stages: Of the samples, (B,), on the CPU.
    """
    count = len(next(iter(pairs.values())))
    every = len(stages) > count
    drawn, place = (torch.arange(count), stages) if every else (stages, torch.arange(len(stages)))
    tokens = {
        name: table.index_select(0, sent(drawn, table.device)).transpose(0, 1).flatten(0, 1)
        for name, table in pairs.items()
    }
    return tokens, place


def loss_terms(
    prediction: Prediction, config: TrainingConfig, columns: Tensor, masks: Tensor | None
) -> LossTerms:
    """Returns Eq. 6 for one prediction; masks (B, 1, h, w) count if the settings ask for it."""
    denoising = denoising_loss(prediction, masks if config.masked_loss else None)
    attention = (
        attention_loss(prediction, columns) if prediction.maps else torch.zeros_like(denoising)
    )
    return LossTerms(denoising, attention, denoising + config.attention_loss_weight * attention)
