"""A training under way: steps, previews, checkpoints, and what is left when it is stopped."""

__all__ = ["Run", "learned"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ....sefi_core.errors import IdentityFileError
from ....sefi_core.picture.differing import differing
from ....sefi_core.samples import LatentPool
from ....sefi_core.training.config import TrainingConfig
from ....sefi_core.training.learner import Learner
from ....sefi_core.training.loop import StepReport, train
from ....sefi_core.training.wording import Wording
from ..page.progress import Progress, common_stage
from ..text.encoder import HostTextEncoder
from .files import NOTHING_SHOWN, Outcome, RunFiles, Shown
from .memory import measured, running_out_told, what_memory_needs
from .pictures import dimmed
from .preparing import subject_masks
from .request import Request
from .selftest import require_gradients
from .session import Loaded

ALL_ALIKE = "A start was still being chosen: all stages of this identity are alike."


def learned(
    host: Loaded,
    request: Request,
    config: TrainingConfig,
    pictures: tuple[Tensor, Tensor],
    files: RunFiles,
    progress: Progress,
) -> Outcome:
    """Trains with the borrowed models, to the end or until the artist stops it.

    Arguments:
        pictures: Crops (B, 3, R, R) and masks (B, 1, R, R).
    """
    encoder = host.encoder(request.class_word, request.wording, config.tokens)
    if host.is_several_tokens(request.class_word):
        progress.say(
            f'class_word: "{request.class_word}" is several tokens for this text encoder; '
            "the identity starts at their mean."
        )
    if not files.known:
        files = replace(files, behaviour=host.behaviour(encoder))
    tokens = {name: token.to(host.device) for name, token in encoder.class_tokens.items()}
    learner = Learner(tokens, config, scaled=host.numbers == torch.float16)
    shown = NOTHING_SHOWN if request.fresh else files.restore(learner, request.resume)
    if config.find_subject:
        progress.say("asking the model where it sees the subject")
        # By the class word's own prompt, whose end sums up nothing else.
        plain = host.encoder(request.class_word)
        pictures = pictures[0], subject_masks(host, plain, *pictures, config)
        progress.reference(dimmed(*pictures))
    progress.say(f"encoding {config.views} views of the picture")
    pool = host.views(*pictures, request.captions, config, learner.device)
    progress.choose_from(config.candidates, len(learner.left))
    remarks = odd_ones(*pictures)
    run = Run(host, encoder, learner, pool, files, shown, progress, request.wording, remarks)
    with running_out_told(host.again):
        return run.to_the_end(request.preview_every, request.checkpoint_every)


def odd_ones(pictures: Tensor, masks: Tensor) -> list[str]:
    """Returns what to say of pictures (B, 3, R, R) of which some differ from all the others."""
    found = [str(i + 1) for i in differing(pictures, masks)]
    if not found:
        return []
    which = f"picture {found[0]} has" if len(found) == 1 else f"pictures {', '.join(found)} have"
    return [f"image: {which} other colours than all the rest; is it the same subject?"]


def with_gradients(steps: Iterator[StepReport]) -> Iterator[StepReport]:
    """Takes steps with gradients, which nothing between two of them gets."""
    while True:
        with torch.enable_grad():
            report = next(steps, None)
        if report is None:
            return
        yield report


@dataclass
class Run:
    """A training under way; `shown` is what it has shown so far, at first from before it was
    stopped; `remarks` are for its end.
    """

    host: Loaded
    encoder: HostTextEncoder
    learner: Learner
    pool: LatentPool
    files: RunFiles
    shown: Shown
    progress: Progress
    wording: Wording
    remarks: Sequence[str] = ()

    def to_the_end(self, preview_every: int, checkpoint_every: int) -> Outcome:
        """Takes every step, or those until the artist asks to keep what is there; returns the
        outcome.

        Only a whole one is stored as finished. What stops it earlier, that wish too, leaves a
        checkpoint to resume.
        """
        learner, latents = self.learner, self.pool.latents
        config = learner.config
        together = min(config.batch_size, config.stages * self.encoder.count)
        backbone = self.host.backbone(self.encoder, latents, together)
        with torch.enable_grad(), measured(learner.device) as peak:
            require_gradients(backbone, self.encoder, latents[:1], self.host.numbers)
        for taken in peak:
            self.progress.say(what_memory_needs(taken, learner, self.host.again))
        self.progress.go_on(learner.losses[: learner.step], self.shown.stages, self.shown.samples)
        if self.remarks:
            self.progress.say(" ".join(self.remarks))
        try:
            for report in with_gradients(train(backbone, self.encoder, self.pool, learner)):
                self.show(report, preview_every)
                whole = report.step == learner.config.steps
                if self.progress.keep_asked and not whole:
                    return self.keep()
                if checkpoint_every and report.step % checkpoint_every == 0 and not whole:
                    self.save_checkpoint()
            return self.finish()
        except BaseException:
            if learner.step and (so_far := self.save_checkpoint()):
                note = f"{self.how_to_go_on}; the identity so far is in {so_far}."
                notes = [f"Stopped at step {learner.step}. {note}", *self.what_is_alike]
                self.progress.finish("stopped", " ".join(notes))
            raise

    def show(self, report: StepReport, preview_every: int) -> None:
        """Notes and shows a step, with a preview when it is time for one."""
        stage = torch.tensor([common_stage(report.stages)], dtype=torch.int8)
        self.shown = replace(self.shown, stages=torch.cat([self.shown.stages, stage]))
        self.progress.step(report)
        if preview_every and report.step % preview_every == 0:
            picture = self.preview()
            before = self.shown.samples.reshape(-1, *picture.shape[1:])
            self.shown = replace(self.shown, samples=torch.cat([before, picture]))
            self.progress.picture(report.step, picture)

    def keep(self) -> Outcome:
        """Ends the training early with an ordinary outcome."""
        kept = self.save_checkpoint()
        notes = [f"{self.how_to_go_on}."] if kept else []
        self.progress.finish("kept", " ".join([*notes, *self.what_is_alike, *self.remarks]))
        return self.outcome()

    def finish(self) -> Outcome:
        """Keeps the outcome to be reused, where the folder takes it, and returns it."""
        outcome, notes = self.outcome(), [*self.what_is_alike, *self.remarks]
        if halvings := self.learner.guard.halvings():
            notes.append(
                f"{halvings} of {self.learner.step} steps gave numbers that are not "
                "finite: they were skipped and the learning rate halved each time."
            )
        try:
            self.files.save_finished(outcome)
        except IdentityFileError as error:
            notes.append(f"Finished, but not kept to be reused: {error}")
        self.progress.finish("finished", "\n".join(notes))
        return outcome

    def save_checkpoint(self) -> Path | None:
        """Saves the checkpoint and the identity so far, and returns the latter's path; a folder
        that takes no file is said, and costs nothing else.
        """
        try:
            return self.files.save_checkpoint(self.learner, self.shown)
        except IdentityFileError as error:
            step = self.learner.step
            self.progress.say(f"The checkpoint of step {step} is not kept: {error}")
            return None

    @property
    def how_to_go_on(self) -> str:
        return f"To go on, press R and choose {self.files.checkpoint.name} in resume"

    @property
    def what_is_alike(self) -> list[str]:
        return [ALL_ALIKE] if len(self.learner.left) > 1 else []

    def outcome(self) -> Outcome:
        learner = self.learner
        return Outcome(learner.pairs(), learner.losses[: learner.step].cpu(), self.shown)

    def preview(self) -> Tensor:
        """Samples a picture with the identity so far; returns it in 8 bits, (1, H, W, 3)."""
        identity = self.files.identity_so_far(self.learner)
        text, seed = self.wording.lines[0], self.learner.config.seed
        return self.host.preview(identity, text, self.pool.latents, seed)
