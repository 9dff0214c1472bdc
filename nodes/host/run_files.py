"""What a training keeps on disk: its checkpoint and the identity so far while it runs, its outcome
for ever.
"""

__all__ = ["Outcome", "RunFiles", "provenance"]

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...sefi_core.container import load_tensors, save_tensors
from ...sefi_core.errors import IdentityFileError, SettingsError
from ...sefi_core.file_format import save_identity
from ...sefi_core.identity import Identity
from ...sefi_core.learner import Learner
from . import folders
from .fingerprint import hash_of_settings

MAX_BYTES = 8 << 30
CHECKPOINT, FINISHED = "sefi-checkpoint", "sefi-training"


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

    def save_checkpoint(self, learner: Learner, identity: Identity) -> Path:
        """Saves the learner and, beside it, the identity so far; returns the latter's path."""
        learner.require_finite(0)
        metadata = {"format": CHECKPOINT, "sefi.shaped_by": json.dumps(self.shaped_by)}
        save_tensors(learner.state(), self.checkpoint, metadata)
        so_far = folders.partial_path(self.checkpoint)
        save_identity(identity, so_far)
        return so_far

    def restore(self, learner: Learner, name: str) -> None:
        """Puts a checkpoint into the learner; refuses one that more than its length tells apart
        from this run.
        """
        path = folders.checkpoint_path(name)
        try:
            state, metadata = load_tensors(path, MAX_BYTES)
            before, now = json.loads(metadata["sefi.shaped_by"]), self.shaped_by
        except (IdentityFileError, KeyError, ValueError) as error:
            raise IdentityFileError(
                f"resume: {path.name} is no whole training checkpoint; choose [none] or another."
            ) from error
        changed = sorted(
            name for name in before.keys() | now.keys() if before.get(name) != now.get(name)
        )
        if changed:
            raise SettingsError(
                f"resume: {path.name} was made with another {', '.join(map(shown, changed))}; set "
                "what it was made with to go on with it, or choose [none] to start anew."
            )
        learner.restore(state)

    def save_finished(self, outcome: Outcome) -> None:
        """Keeps the outcome, and drops what only a running training needs."""
        tensors = {f"pairs.{name}": value for name, value in outcome.pairs.items()}
        tensors |= {"losses": outcome.losses, "samples": outcome.samples}
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
            losses, samples = tensors.pop("losses"), tensors.pop("samples")
        except (IdentityFileError, KeyError):
            return None  # it is trained again and written anew
        return Outcome(
            {name.removeprefix("pairs."): pairs for name, pairs in tensors.items()}, losses, samples
        )


def shown(name: str) -> str:
    """Returns what an artist calls a part of `shaped_by`."""
    return {"seed": "train_seed", "masked_loss": "mask", "generator": "preset"}.get(name, name)


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
