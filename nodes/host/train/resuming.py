"""Which training a checkpoint is of, and whether it can be gone on with."""

__all__ = [
    "ITS_CHECKPOINT",
    "SHAPED_BY",
    "begun_with",
    "in_words",
    "no_checkpoint",
    "read",
    "require_resumable",
    "settings_in",
    "trained_to_its_end",
]

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ....sefi_core.errors import IdentityFileError, SettingsError
from ....sefi_core.identity.container import load_header
from ....sefi_core.training.config import TrainingConfig
from .. import folders

SHAPED_BY, ITS_CHECKPOINT = "sefi.shaped_by", "sefi.checkpoint"
Read = TypeVar("Read")


def read(reader: Callable[..., Read], path: Path, *limits: int) -> Read:
    """Returns what a reader of the container finds in a checkpoint."""
    try:
        return reader(path, *limits)
    except IdentityFileError as error:
        raise no_checkpoint(path) from error


def settings_in(path: Path, metadata: dict[str, str]) -> dict:
    """Returns what shaped the training of a checkpoint."""
    try:
        return dict(json.loads(metadata[SHAPED_BY]))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise no_checkpoint(path) from error


def begun_with(config: TrainingConfig, name: str) -> TrainingConfig:
    """Returns the settings with the race that the training of a checkpoint was begun with: asked
    for more steps, it goes on with the length it had.
    """
    path = trained_to_its_end(name) or folders.checkpoint_path(name)
    before = settings_in(path, read(load_header, path)[1])
    try:
        return replace(config, race_every=int(before.get("race_every", config.race_every)))
    except (SettingsError, TypeError, ValueError) as error:
        raise no_checkpoint(path) from error


def trained_to_its_end(name: str) -> Path | None:
    """Returns the finished training that has used a checkpoint up, so that the workflow that
    resumed it can be run again; None if the checkpoint is there, or no training tells of it.
    """
    if (folders.output_folder() / Path(name).name).is_file():
        return None
    for path in folders.finished_paths():
        try:
            if load_header(path)[1].get(ITS_CHECKPOINT) == name:
                return path
        except IdentityFileError:
            continue
    return None


def require_resumable(name: str) -> None:
    """Raises SettingsError unless `resume` names a checkpoint that is there or was used up."""
    if name != folders.NO_CHECKPOINT and trained_to_its_end(name) is None:
        folders.checkpoint_path(name)


def no_checkpoint(path: Path) -> IdentityFileError:
    return IdentityFileError(
        f"resume: {path.name} is no whole training checkpoint; choose [none] or another."
    )


def in_words(name: str) -> str:
    """Returns what an artist calls a part of `shaped_by`."""
    names = {"seed": "train_seed", "masked_loss": "mask", "find_subject": "mask"}
    names |= dict.fromkeys(("generator", "framing", "starts", "race_from", "settle"), "preset")
    names |= {"race_every": "steps"}  # a short training's race is shorter
    names |= {"min_scale": "preset", "arithmetic": "version of this pack"}
    names |= {"clip_skip": "clip", "prediction": "model", "noise_levels": "model"}
    return names.get(name, name)
