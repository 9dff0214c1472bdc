"""Many identities in one batch: they share the frozen model's passes and nothing else.

Each keeps its own generators, optimiser, random numbers, views and prompt, so that it learns what
it would learn alone, up to rounding.
"""

__all__ = ["Subject", "train_together"]

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..devices import sent
from ..errors import SettingsError
from ..losses import LossTerms
from ..predict import drawn_tokens
from ..protocols import Backbone, Prediction, TextEncoder
from ..stages import stage_of
from .learner import Learner
from .loop import LatentPool, StepReport, checked, draw, loss_terms


@dataclass(frozen=True, eq=False)
class Subject:
    """What one identity is learned from and by."""

    encoder: TextEncoder
    pool: LatentPool
    learner: Learner


def train_together(backbone: Backbone, subjects: list[Subject]) -> Iterator[list[StepReport]]:
    """Takes the steps that the learners still ask for, one of each at each `next`.

    Arguments:
        backbone: Its reference keys must be those of each sample's own subject: as many rows as
            all batches together have, in the order of the subjects, or one if they share it.

    Raises:
        SettingsError: The learners are not at the same step of the same number, or pairs race in
            one.
        TrainingError: Too many steps of one left the finite numbers.
    """
    learners = [subject.learner for subject in subjects]
    if len({(one.step, one.config.steps) for one in learners}) != 1:
        raise SettingsError(
            "steps: identities that are trained together need the same number of steps, and as "
            "many behind them; train these one by one."
        )
    if any(learner.config.starts > 1 for learner in learners):
        raise SettingsError(
            "starts: a race needs the model to itself; set starts to 1 for identities that are "
            "trained together, or train these one by one."
        )
    columns = [s.encoder.columns(s.learner.config.attention_loss) for s in subjects]
    while learners[0].step < learners[0].config.steps:
        drawn = [learner.rng.get_state() for learner in learners]
        try:
            terms, stages = losses_together(backbone, subjects, columns)
            step_together(learners, terms)
        except BaseException:
            for learner, state in zip(learners, drawn, strict=True):
                learner.rng.set_state(state)
            raise
        yield [checked(one, drawn_now) for one, drawn_now in zip(learners, stages, strict=True)]


def step_together(learners: list[Learner], terms: list[LossTerms]) -> None:
    """Takes a step of every learner; no loss depends on another's generators, so one backward pass
    of their sum serves all.
    """
    for learner in learners:
        learner.optimizer.zero_grad(set_to_none=True)
    pairs = list(zip(learners, terms, strict=True))
    torch.stack([learner.scaler.scale(term.total) for learner, term in pairs]).sum().backward()
    for learner, term in pairs:
        learner.step_down(term)


def losses_together(
    backbone: Backbone, subjects: list[Subject], columns: list[Tensor]
) -> tuple[list[LossTerms], list[Tensor]]:
    """Draws a batch of every subject; returns their losses, and their stages (B,) on the CPU."""
    draws = [draw(backbone, subject.pool, subject.learner) for subject in subjects]
    latents = torch.cat([one[0] for one in draws])
    noise, timesteps = (torch.cat([one[i] for one in draws]) for i in (2, 3))
    keys, values = contexts_together(subjects, [one[4] for one in draws], latents.device)
    configs = [subject.learner.config for subject in subjects]
    prediction = backbone.predict(
        latents,
        sent(noise, latents.device),
        sent(timesteps, latents.device),
        keys,
        values,
        with_maps=any(bool(one.any()) for one in columns),
    )
    parts = prediction.split([config.batch_size for config in configs])
    terms = [
        loss_terms(part if c.any() else without_maps(part), config, c, d[1])
        for part, config, c, d in zip(parts, configs, columns, draws, strict=True)
    ]
    return terms, [stage_of(d[3], s.learner.edges) for d, s in zip(draws, subjects, strict=True)]


def contexts_together(
    subjects: list[Subject], rows: list[Tensor], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns keys and values of all samples; subjects with one encoder go through it as one
    batch.
    """
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for encoder in {id(subject.encoder): subject.encoder for subject in subjects}.values():
        mine = [i for i, subject in enumerate(subjects) if subject.encoder is encoder]
        learners = [subjects[i].learner for i in mine]
        drawn = [
            drawn_tokens(learner(), rows[i]) for i, learner in zip(mine, learners, strict=True)
        ]
        names = list(drawn[0][0])
        encoded = encoder.encode(
            {name: torch.cat([tokens[name] for tokens, _ in drawn]) for name in names}
        ).to(device)
        parts = encoded.split([len(tokens[names[0]]) for tokens, _ in drawn])
        for i, part, (_, place) in zip(mine, parts, drawn, strict=True):
            place = sent(place, device)
            found[i] = tuple(half.index_select(0, place) for half in part.chunk(2))
    ordered = [found[i] for i in range(len(subjects))]
    return torch.cat([keys for keys, _ in ordered]), torch.cat([values for _, values in ordered])


def without_maps(prediction: Prediction) -> Prediction:
    return Prediction(prediction.output, prediction.target, [], [])
