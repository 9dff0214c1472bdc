"""A training under way: steps, previews, checkpoints, and what is left when it is stopped."""

__all__ = ["Loaded", "Run"]

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ...sefi_core.errors import IdentityFileError
from ...sefi_core.learner import Learner
from ...sefi_core.training import LatentPool, train
from .backbone import HostBackbone
from .pictures import as_pil, sample_preview
from .progress import Progress, say
from .run_files import Outcome, RunFiles
from .selftest import require_gradients
from .text import HostTextEncoder


@dataclass(frozen=True)
class Loaded:
    """The host's models while a training borrows them; `load` puts them back in place after a
    preview.
    """

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    numbers: torch.dtype
    load: Callable[[], None]


@dataclass(frozen=True)
class Run:
    """A training under way; `samples` are the previews (n, H, W, 3) from before it was stopped."""

    host: Loaded
    encoder: HostTextEncoder
    learner: Learner
    pool: LatentPool
    files: RunFiles
    samples: Tensor
    node_id: str | None

    def to_the_end(self, preview_every: int, checkpoint_every: int) -> Outcome:
        """Takes every step and keeps the outcome; what stops it first leaves a checkpoint to
        resume.
        """
        self.host.load()
        learner, samples = self.learner, self.samples
        steps = learner.config.steps
        with torch.no_grad():
            reference = self.encoder.reference(learner.config.batch_size).to(learner.device)
        backbone = HostBackbone(
            self.host.model, reference, self.pool.latents[:1], self.host.numbers
        )
        require_gradients(backbone, self.encoder, self.pool.latents[:1], self.host.numbers)
        progress = Progress(steps, learner.step, self.node_id)
        try:
            for report in train(backbone, self.encoder, self.pool, learner):
                progress.step(report)
                if preview_every and report.step % preview_every == 0:
                    picture = self.preview()
                    samples = torch.cat([samples.reshape(-1, *picture.shape[1:]), picture])
                    progress.picture(report.step, as_pil(picture))
                if checkpoint_every and report.step % checkpoint_every == 0 and report.step < steps:
                    self.keep(samples)
            return self.finish(samples)
        except BaseException:
            if learner.step and (so_far := self.keep(samples)):
                say(
                    f"Stopped at step {learner.step}. To go on, press R and choose "
                    f"{self.files.checkpoint.name} in resume; the identity so far is in {so_far}.",
                    self.node_id,
                )
            raise

    def finish(self, samples: Tensor) -> Outcome:
        """Keeps the outcome to be reused, where the folder takes it, and returns it."""
        learner = self.learner
        if halvings := learner.guard.halvings():
            say(
                f"{halvings} of {learner.config.steps} steps gave numbers that are not finite: "
                "they were skipped and the learning rate halved each time.",
                self.node_id,
            )
        outcome = Outcome(learner.pairs(), learner.losses.cpu(), samples)
        try:
            self.files.save_finished(outcome)
        except IdentityFileError as error:
            say(f"Finished, but not kept to be reused: {error}", self.node_id)
        return outcome

    def keep(self, samples: Tensor) -> Path | None:
        """Saves the checkpoint and the identity so far, and returns the latter's path; a folder
        that takes no file is said, and costs nothing else.
        """
        try:
            return self.files.save_checkpoint(self.learner, samples)
        except IdentityFileError as error:
            say(f"The checkpoint of step {self.learner.step} is not kept: {error}", self.node_id)
            return None

    def preview(self) -> Tensor:
        """Samples a picture with the identity so far; returns it in 8 bits, (1, H, W, 3)."""
        host, seed = self.host, self.learner.config.seed
        try:
            return sample_preview(
                host.model,
                host.clip,
                host.vae,
                self.files.identity_so_far(self.learner),
                self.pool.latents[:1],
                seed,
            )
        finally:
            host.load()
