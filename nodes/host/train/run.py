"""A training under way: steps, previews, checkpoints, and what is left when it is stopped."""

__all__ = ["Run", "learned", "with_gradients"]

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
from .backbone import HostBackbone
from .files import NOTHING_SHOWN, Outcome, RunFiles, Shown
from .loaded import Loaded
from .memory import measured, running_out_told, what_memory_needs
from .pictures import dimmed
from .preparing import subject_masks
from .request import Request
from .selftest import require_gradients

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
    run = Run.prepared(host, encoder, request, config, pictures, files, progress)
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

    @classmethod
    def prepared(
        cls,
        host: Loaded,
        encoder: HostTextEncoder,
        request: Request,
        config: TrainingConfig,
        pictures: tuple[Tensor, Tensor],
        files: RunFiles,
        progress: Progress,
    ) -> "Run":
        """Returns a training whose subject is found and encoded, and whose learner is begun anew,
        or stands where it was stopped.
        """
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
        return cls(host, encoder, learner, pool, files, shown, progress, request.wording, remarks)

    def to_the_end(self, preview_every: int, checkpoint_every: int) -> Outcome:
        """Takes every step, or those until the artist asks to keep what is there; returns the
        outcome.

        Only a whole one is stored as finished. What stops it earlier, that wish too, leaves a
        checkpoint to resume.
        """
        learner = self.learner
        backbone = self.host.backbone(self.encoder, self.pool.latents, self.prompts_at_once)
        for taken in self.tested(backbone):
            self.progress.say(what_memory_needs(taken, learner, self.host.again))
        self.begin()
        try:
            for report in with_gradients(train(backbone, self.encoder, self.pool, learner)):
                self.show(report, preview_every)
                if self.progress.keep_asked and not self.is_whole:
                    return self.keep()
                self.save_if_due(checkpoint_every)
            return self.finish()
        except BaseException:
            self.stop()
            raise

    @property
    def is_whole(self) -> bool:
        """Whether every step has been taken."""
        return self.learner.step == self.learner.config.steps

    @property
    def prompts_at_once(self) -> int:
        """The most prompts that a step encodes."""
        config = self.learner.config
        return min(config.batch_size, config.stages * self.encoder.count)

    def tested(self, backbone: HostBackbone) -> list[int]:
        """Returns the bytes that a step of one sample takes, if its device keeps an account; raises
        TrainingError unless its gradients are right.
        """
        with torch.enable_grad(), measured(self.learner.device) as peak:
            latent = self.pool.latents[:1]
            require_gradients(backbone, self.encoder, latent, self.host.numbers)
        return peak

    def begin(self) -> None:
        """Shows what was learned before, and starts the clock."""
        losses = self.learner.losses[: self.learner.step]
        self.progress.go_on(losses, self.shown.stages, self.shown.samples)
        if self.remarks:
            self.progress.say(" ".join(self.remarks))

    def save_if_due(self, checkpoint_every: int) -> None:
        """Saves a checkpoint if it is time for one."""
        if checkpoint_every and self.learner.step % checkpoint_every == 0 and not self.is_whole:
            self.save_checkpoint()

    def stop(self) -> None:
        """Leaves a checkpoint of a training that something else has ended, and says so."""
        step = self.learner.step
        if step and (so_far := self.save_checkpoint()):
            note = f"{self.how_to_go_on}; the identity so far is in {so_far}."
            notes = [f"Stopped at step {step}. {note}", *self.what_is_alike]
            self.progress.finish("stopped", " ".join(notes))

    def show(self, report: StepReport, preview_every: int) -> None:
        """Notes and shows a step, with a preview when it is time for one."""
        self.note(report)
        self.progress.step(report)
        self.preview_if_due(report, preview_every)

    def note(self, report: StepReport) -> None:
        """Notes what is kept of a step beside its losses."""
        stage = torch.tensor([common_stage(report.stages)], dtype=torch.int8)
        self.shown = replace(self.shown, stages=torch.cat([self.shown.stages, stage]))

    def preview_if_due(self, report: StepReport, preview_every: int) -> None:
        """Samples and shows a preview when it is time for one."""
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
