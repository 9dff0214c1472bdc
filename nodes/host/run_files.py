"""What a training keeps on disk: its checkpoint and the identity so far while it runs, its outcome
for ever.
"""

__all__ = ["NO_SAMPLES", "Outcome", "RunFiles", "identity_of"]

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...sefi_core.container import load_tensors, save_tensors
from ...sefi_core.errors import IdentityFileError, SettingsError, one_line
from ...sefi_core.file_format import save_identity
from ...sefi_core.identity import Identity
from ...sefi_core.learner import Learner
from . import folders
from .fingerprint import hash_of_settings

MAX_BYTES = 8 << 30
CHECKPOINT, FINISHED = "sefi-checkpoint", "sefi-training"
SAMPLES = "samples"
NO_SAMPLES = torch.zeros(0, 1, 1, 3, dtype=torch.uint8)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a finished training gives: pairs by encoder, losses (steps, 2), 8-bit previews (n, H, W,
    3).
    """

    pairs: dict[str, Tensor]
    losses: Tensor
    samples: Tensor


@dataclass(frozen=True)
class RunFiles:
    """The files of one training.

    Attributes:
        name: The artist's name for it.
        shaped_by: All that shapes each step; two runs with equal ones differ in their length alone.
        length: What else the outcome depends on.
    """

    name: str
    shaped_by: dict
    length: dict

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

    def save_checkpoint(self, learner: Learner, samples: Tensor) -> Path:
        """Saves the learner with the previews so far and, beside it, the identity so far; returns
        the latter's path.
        """
        identity = self.identity_so_far(learner)
        metadata = {"format": CHECKPOINT, "sefi.shaped_by": json.dumps(self.shaped_by)}
        save_tensors(learner.state() | {SAMPLES: samples}, self.checkpoint, metadata)
        so_far = folders.partial_path(self.checkpoint)
        save_identity(identity, so_far)
        return so_far

    def restore(self, learner: Learner, name: str) -> Tensor:
        """Puts a checkpoint into the learner and returns its previews.

        Raises:
            SettingsError: More than its length tells the checkpoint apart from this run.
        """
        path = folders.checkpoint_path(name)
        try:
            state, metadata = load_tensors(path, MAX_BYTES)
            before, now = dict(json.loads(metadata["sefi.shaped_by"])), self.shaped_by
        except (IdentityFileError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise no_checkpoint(path) from error
        names = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
        changed = sorted(set(map(shown, names)))
        if changed:
            raise SettingsError(
                f"resume: {path.name} was made with another {one_line(', '.join(changed))}; set "
                "these back to go on, or choose [none] to start anew."
            )
        try:
            learner.restore(state)
            samples = state[SAMPLES]
        except SettingsError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise no_checkpoint(path) from error
        if samples.ndim != 4 or samples.shape[-1] != 3 or samples.dtype != torch.uint8:
            raise no_checkpoint(path)
        return samples

    def save_finished(self, outcome: Outcome) -> None:
        """Keeps the outcome, and drops what only a running training needs."""
        tensors = {f"pairs.{name}": value for name, value in outcome.pairs.items()}
        tensors |= {"losses": outcome.losses, SAMPLES: outcome.samples}
        save_tensors(tensors, self.finished, {"format": FINISHED})
        for leftover in (self.checkpoint, folders.partial_path(self.checkpoint)):
            leftover.unlink(missing_ok=True)

    def load_finished(self) -> Outcome | None:
        """Returns the outcome of this very training from earlier; None if there is none that can be
        read.
        """
        if not self.finished.exists():
            return None
        try:
            tensors, _ = load_tensors(self.finished, MAX_BYTES)
            losses, samples = tensors.pop("losses"), tensors.pop(SAMPLES)
        except (IdentityFileError, KeyError):
            return None  # it is trained again and written anew
        return Outcome(
            {name.removeprefix("pairs."): pairs for name, pairs in tensors.items()}, losses, samples
        )


def no_checkpoint(path: Path) -> IdentityFileError:
    return IdentityFileError(
        f"resume: {path.name} is no whole training checkpoint; choose [none] or another."
    )


def shown(name: str) -> str:
    """Returns what an artist calls a part of `shaped_by`."""
    names = {"seed": "train_seed", "masked_loss": "mask", "generator": "preset"}
    names |= {"min_scale": "preset", "arithmetic": "version of this pack"}
    return names.get(name, name)


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
    training = {
        name: value for name, value in shaped_by.items() if name not in {*hashes.values(), "vae"}
    }
    training |= {
        "steps": len(losses),
        "denoising": round(last[0], 6),
        "attention": round(last[1], 4),
    }
    return {
        "sefi.training": json.dumps(training, sort_keys=True),
        **{f"sefi.{name}": shaped_by[part] for name, part in hashes.items()},
    }
