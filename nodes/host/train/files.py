"""What a training keeps on disk: its checkpoint and the identity so far while it runs, its outcome
for ever.
"""

__all__ = [
    "NOTHING_SHOWN",
    "Outcome",
    "RunFiles",
    "Shown",
    "begun_with",
    "identity_of",
]

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ....sefi_core.errors import IdentityFileError, SettingsError, one_line
from ....sefi_core.identity.container import load_tensors, save_tensors
from ....sefi_core.identity.file_format import save_identity
from ....sefi_core.identity.identity import Identity
from ....sefi_core.training.learner import Learner
from .. import folders
from ..fingerprint import hash_of_settings
from .comparing import BEHAVIOUR, changes
from .resuming import (
    ITS_CHECKPOINT,
    SHAPED_BY,
    begun_with,
    no_checkpoint,
    read,
    settings_in,
    trained_to_its_end,
)

MAX_BYTES = 8 << 30
CHECKPOINT, FINISHED = "sefi-checkpoint", "sefi-training"
SAMPLES, STAGES = "samples", "stages"


@dataclass(frozen=True, eq=False)
class Shown:
    """What a training has to show besides its losses: the stage of every step taken (n,), int8, and
    8-bit previews (k, H, W, 3).
    """

    stages: Tensor
    samples: Tensor

    def whole(self, steps: int) -> bool:
        """Returns whether this can be what a training of as many steps has shown."""
        pictures = self.samples.ndim == 4 and self.samples.shape[-1] == 3
        dtypes = (self.stages.dtype, self.samples.dtype)
        return pictures and self.stages.shape == (steps,) and dtypes == (torch.int8, torch.uint8)


NOTHING_SHOWN = Shown(torch.zeros(0, dtype=torch.int8), torch.zeros(0, 1, 1, 3, dtype=torch.uint8))


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a training gives: pairs by encoder, losses (steps, 2), and what it has shown."""

    pairs: dict[str, Tensor]
    losses: Tensor
    shown: Shown


@dataclass(frozen=True)
class RunFiles:
    """The files of one training.

    Attributes:
        name: The artist's name for it.
        shaped_by: All that shapes each step; two runs with equal ones differ in their length alone.
        length: What else the outcome depends on.
        behaviour: What the models make of fixed inputs, where not all of them could be read.
    """

    name: str
    shaped_by: dict
    length: dict
    behaviour: tuple[float, ...] = ()

    @property
    def known(self) -> bool:
        """Whether all that shapes the steps could be read: equal hashes then mean equal steps."""
        return "unread" not in self.shaped_by

    @property
    def checkpoint(self) -> Path:
        return folders.running_path(self.name, hash_of_settings(self.shaped_by))

    @property
    def finished(self) -> Path:
        return folders.finished_path(hash_of_settings({**self.shaped_by, **self.length}))

    def identity_so_far(self, learner: Learner) -> Identity:
        """Returns what the learner has learned, with where it comes from."""
        losses = learner.losses[: learner.step].cpu()
        return identity_of(self.shaped_by, learner.pairs(), losses)

    def save_checkpoint(self, learner: Learner, shown: Shown) -> Path:
        """Saves the learner with what it has shown and, beside it, the identity so far; returns the
        latter's path.
        """
        identity = self.identity_so_far(learner)
        shaped_by = {**self.shaped_by, BEHAVIOUR: self.behaviour}
        metadata = {"format": CHECKPOINT, SHAPED_BY: json.dumps(shaped_by)}
        kept = {SAMPLES: shown.samples, STAGES: shown.stages}
        save_tensors(learner.state() | kept, self.checkpoint, metadata)
        so_far = folders.partial_path(self.checkpoint)
        save_identity(identity, so_far)
        return so_far

    def restore(self, learner: Learner, name: str) -> Shown:
        """Puts a checkpoint into the learner and returns what it had shown.

        Raises:
            SettingsError: More than its length tells the checkpoint apart from this run.
        """
        if trained_to_its_end(name):
            raise SettingsError(
                f"resume: {one_line(name)} was trained to its end, but with other inputs than "
                "these; choose [none] to start anew, or set them back."
            )
        path = folders.checkpoint_path(name)
        state, metadata = read(load_tensors, path, MAX_BYTES)
        before = settings_in(path, metadata)
        changed = changes(before, {**self.shaped_by, BEHAVIOUR: self.behaviour})
        if changed:
            raise SettingsError(
                f"resume: {path.name} was made with another {one_line(', '.join(changed))}; set "
                "these back to go on, or choose [none] to start anew."
            )
        try:
            learner.restore(state)
            shown = Shown(state[STAGES], state[SAMPLES])
        except SettingsError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise no_checkpoint(path) from error
        if not shown.whole(learner.step):
            raise no_checkpoint(path)
        return shown

    def save_finished(self, outcome: Outcome) -> None:
        """Keeps the outcome, and drops what only a running training needs."""
        tensors = {f"pairs.{name}": value for name, value in outcome.pairs.items()}
        tensors["losses"] = outcome.losses
        tensors |= {SAMPLES: outcome.shown.samples, STAGES: outcome.shown.stages}
        if self.known:
            about = {SHAPED_BY: json.dumps(self.shaped_by), ITS_CHECKPOINT: self.checkpoint.name}
            save_tensors(tensors, self.finished, {"format": FINISHED, **about})
        for leftover in (self.checkpoint, folders.partial_path(self.checkpoint)):
            leftover.unlink(missing_ok=True)

    def load_finished(self) -> Outcome | None:
        """Returns the outcome of this very training from earlier; None if there is none that can be
        read, or if it may be another's.
        """
        if not self.known or not self.finished.exists():
            return None
        try:
            tensors, _ = load_tensors(self.finished, MAX_BYTES)
            losses = tensors.pop("losses")
            shown = Shown(tensors.pop(STAGES), tensors.pop(SAMPLES))
        except (IdentityFileError, KeyError):
            return None  # it is trained again and written anew
        return Outcome(
            {name.removeprefix("pairs."): pairs for name, pairs in tensors.items()}, losses, shown
        )


def identity_of(shaped_by: dict, pairs: dict[str, Tensor], losses: Tensor) -> Identity:
    """Returns pairs as an identity that tells where it comes from, given its losses (steps, 2)."""
    return Identity(
        pairs, class_word=shaped_by["class_word"], metadata=provenance(shaped_by, losses)
    )


def provenance(shaped_by: dict, losses: Tensor) -> dict[str, str]:
    """Returns the metadata that tells where an identity comes from, given its losses (steps, 2) so
    far.
    """
    last = losses[-max(1, len(losses) // 10) :].mean(dim=0).tolist()
    hashes = {"checkpoint_hash": "model", "encoder_hash": "clip", "source_hash": "image"}
    left_out = {*hashes.values(), "vae", "noise_levels", "unread"}
    training = {name: value for name, value in shaped_by.items() if name not in left_out}
    training |= {
        "steps": len(losses),
        "denoising": round(last[0], 6),
        "attention": round(last[1], 4),
    }
    return {
        "sefi.training": json.dumps(training, sort_keys=True),
        "modelspec.prediction_type": shaped_by["prediction"],
        "modelspec.resolution": f"{shaped_by['resolution']}x{shaped_by['resolution']}",
        **{f"sefi.{name}": shaped_by[part] for name, part in hashes.items()},
    }
