"""Learning identities: one loop.

Each step draws latents, noise and a timestep t, lets the generator give the pair of t's stage,
encodes the two prompts as one batch, and lowers L = L_KV + lambda * L_attn (Eq. 6). Only the
generators learn. Many people share the frozen model's passes and nothing else: each keeps its own
generators, optimiser, random numbers, views and prompt, and learns what it would learn alone, up to
rounding. The loop is an iterator over steps: bars, stop buttons, previews and files belong to the
caller.
"""

__all__ = ["StepReport", "Subject", "train", "train_together"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..devices import sent
from ..errors import TrainingError
from ..losses import LossTerms, loss_terms
from ..predict import Source, predict
from ..protocols import Backbone, Prediction, TextEncoder
from ..samples import LatentPool, Samples, joined, some_unseen
from ..stages import even_edges, stage_of
from .learner import Learner
from .selection import eliminate, selection_samples

DIVERGENCE_CHECK_EVERY = 10  # steps; each check waits for the device


@dataclass(frozen=True)
class StepReport:
    """After a step: `step` are done; losses (2,), L_KV and L_attn, are still on their device; the
    stages (B,) of its samples are on the CPU; `candidates` are left to begin the stages from.
    """

    step: int
    losses: Tensor
    stages: Tensor
    candidates: int


@dataclass(frozen=True, eq=False)
class Subject:
    """What one identity is learned from and by; `prompt` is the first of the model's reference
    prompts that are its encoder's.
    """

    encoder: TextEncoder
    pool: LatentPool
    learner: Learner
    prompt: int = 0

    def compared(self, backbone: Backbone) -> Samples | None:
        """Returns what its candidates are compared on."""
        config, lines = self.learner.config, self.encoder.lines
        return selection_samples(backbone, self.pool, config, self.prompt, lines)

    def token_masks(self) -> Tensor:
        """Returns which tokens of each of its prompts L_attn compares, (n, L), on the CPU."""
        encoder, scope = self.encoder, self.learner.config.attention_loss
        return torch.stack([encoder.token_mask(scope, i) for i in range(encoder.count)])

    def masks_of(self, samples: Samples, masks: Tensor) -> Tensor:
        """Returns those of `token_masks` that are its samples', (B, L), or (1, L) for all."""
        return masks if self.encoder.count == 1 else masks[samples.prompts - self.prompt]

    def eliminate(self, backbone: Backbone, samples: Samples | None) -> None:
        """Eliminates its worst candidates where it is time to."""
        eliminate(backbone, self.encoder, self.learner, samples, self.prompt)

    def source(self) -> Source:
        """Returns its pairs, differentiable, in its prompts."""
        return Source(self.encoder, self.learner(), self.prompt)


def train(
    backbone: Backbone, encoder: TextEncoder, pool: LatentPool, learner: Learner
) -> Iterator[StepReport]:
    """Takes the steps that the learner's settings still ask for, one at each `next`.

    Raises:
        TrainingError: The last steps all left the finite numbers; the learner is as it was before.
    """
    for reports in train_together(backbone, [Subject(encoder, pool, learner)]):
        for report in reports.values():
            if isinstance(report, TrainingError):
                raise report
            yield report


def train_together(
    backbone: Backbone, subjects: Sequence[Subject]
) -> Iterator[dict[int, StepReport | TrainingError]]:
    """Takes the steps that the learners still ask for, one of each at each `next`, each in its own
    phase; yields the reports by the subject's index.

    A subject whose last steps all left the finite numbers is reported by its error, as it was
    before them, and takes no more; the others go on.
    """
    compared = [one.compared(backbone) for one in subjects]
    token_masks = [one.token_masks() for one in subjects]
    diverged: set[int] = set()
    while going := [
        i for i, one in enumerate(subjects) if not is_done(one.learner) and i not in diverged
    ]:
        for i in going:
            # Between two steps: who stops it there has been told of every step that was taken.
            subjects[i].eliminate(backbone, compared[i])
        batch, masks = [subjects[i] for i in going], [token_masks[i] for i in going]
        with drawn_again_if_cut(batch):
            samples, rows = draw(backbone, batch)
            sources = [one.source() for one in batch]
            with_maps = any(bool(mask.any()) for mask in masks)
            prediction = predict(backbone, sources, samples, rows, with_maps)
            terms = losses_of(batch, prediction, samples, masks)
            update([one.learner for one in batch], terms)
        stages = samples.timesteps.split([one.learner.config.batch_size for one in batch])
        reports = {i: reported(subjects[i].learner, t) for i, t in zip(going, stages, strict=True)}
        diverged |= {i for i, report in reports.items() if isinstance(report, TrainingError)}
        yield reports
    for i, one in enumerate(subjects):
        if i not in diverged:
            one.eliminate(backbone, compared[i])


def is_done(learner: Learner) -> bool:
    return learner.step >= learner.config.steps


@contextmanager
def drawn_again_if_cut(batch: Sequence[Subject]) -> Iterator[None]:
    """A step that is cut short is drawn again when the training goes on."""
    states = [one.learner.rng.get_state() for one in batch]
    try:
        yield
    except BaseException:
        for one, state in zip(batch, states, strict=True):
            one.learner.rng.set_state(state)
        raise


def draw(backbone: Backbone, batch: Sequence[Subject]) -> tuple[Samples, Tensor]:
    """Draws a step's samples of every subject and the rows (B,) of their tables that learn."""
    drawn = [draw_one(backbone, subject, i) for i, subject in enumerate(batch)]
    samples, rows = zip(*drawn, strict=True)
    return joined(samples), torch.cat(rows)


def draw_one(backbone: Backbone, subject: Subject, index: int) -> tuple[Samples, Tensor]:
    """Draws a step's samples of one subject, the `index`th of its batch, and their rows (B,)."""
    learner, pool = subject.learner, subject.pool
    size, rng = learner.config.batch_size, learner.rng
    view = torch.randint(0, len(pool.latents), (size,), generator=rng)
    timesteps = backbone.nearest(learner.timesteps(learner))
    noise = torch.randn(size, *pool.latents.shape[1:], generator=rng)
    rows = learner.phase.rows(timesteps, rng)
    count = subject.encoder.lines
    # A single line is not drawn: the numbers that follow are then those of a training without any.
    line = torch.randint(0, count, (size,), generator=rng) if count > 1 else 0
    prompts = subject.prompt + pool.prompts(view, line, count)
    view = sent(view, pool.latents.device)
    latents, masks = (x.index_select(0, view) for x in (pool.latents, pool.masks))
    samples = Samples(latents, masks, noise, timesteps, prompts, torch.ones(size), (index,) * size)
    if unseen := learner.config.unseen:
        samples = some_unseen(samples, backbone.near_the_end(timesteps), unseen, rng)
    return samples, rows


def losses_of(
    batch: Sequence[Subject], prediction: Prediction, samples: Samples, token_masks: list[Tensor]
) -> list[LossTerms]:
    """Returns Eq. 6 of every subject, differentiable in its own generators alone."""
    configs = [one.learner.config for one in batch]
    sizes = [config.batch_size for config in configs]
    parts = zip(prediction.split(sizes), samples.split(sizes), strict=True)
    return [
        loss_terms(
            config.measured(part),
            one.masks_of(own, mask),
            config.attention_loss_weight,
            config.counted(own.masks),
        )
        for (part, own), mask, one, config in zip(parts, token_masks, batch, configs, strict=True)
    ]


def update(learners: Sequence[Learner], terms: Sequence[LossTerms]) -> None:
    """Takes a step of every learner. No loss depends on another's generators, so one backward pass
    of their sum serves all.
    """
    for learner in learners:
        learner.optimizer.zero_grad(set_to_none=True)
    pairs = list(zip(learners, terms, strict=True))
    torch.stack([learner.scaler.scale(term.total) for learner, term in pairs]).sum().backward()
    for learner, term in pairs:
        learner.take_step(term)


def reported(learner: Learner, timesteps: Tensor) -> StepReport | TrainingError:
    """Reports the step just taken, of samples at timesteps (B,), or that too many steps left the
    finite numbers.
    """
    if learner.step % DIVERGENCE_CHECK_EVERY == 0 or is_done(learner):
        try:
            learner.guard.raise_if_diverged(learner.step, learner.config.steps)
        except TrainingError as error:
            return error
    stages = stage_of(timesteps, even_edges(learner.config.stages))
    losses = learner.losses[learner.step - 1]
    return StepReport(learner.step, losses, stages, len(learner.left))
