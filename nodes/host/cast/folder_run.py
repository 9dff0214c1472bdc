"""A cast without a page: a folder's people onto a shelf, here or by others, and its report."""

__all__ = ["FolderRun", "Shelf", "everybody", "learn_here"]

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE

from ....sefi_core.errors import SefiError, SettingsError
from ..page.cast_progress import CastProgress
from ..train.request import DEFAULT
from ..train.session import Session
from .caster import DEFAULTS
from .learning import Learned, Learning
from .people import Person, people_in
from .report import rows_of, write_report
from .shelf import Shelf, key_of, packed

# What the node always has, with its own defaults.
NODE = {
    "class_word": "person",
    "preset": "default",
    "train_seed": 0,
    **{n: getattr(DEFAULT, n) for n in ("steps", "learning_rate", "attention_loss_weight")},
}
PASSING = {"preview_every", "checkpoint_every", "gradient_checkpointing"}  # shape no identity
Models = tuple[ModelPatcher, CLIP, VAE]
Done = Callable[[str, bytes, str], None]
"""Is given a person's name, and the whole identity file or the sentence why there is none."""


def everybody(folder: Path) -> tuple[list[Person], list[str]]:
    """Returns the people of a folder, which is this process's input/ from now on, and the names of
    files that are nobody's.
    """
    folder_paths.set_input_directory(str(folder))
    return people_in(folder, folder)


def learn_here(
    models: Models, people: Sequence[Person], keys: dict, settings: dict, at_once: int, done: Done
) -> None:
    """Learns people with models of this process, as a node would.

    Arguments:
        keys: What is to be told in each one's file that it was made from.
    """

    def pack(learned: Learned) -> None:
        data = packed(learned, keys[learned.name]) if learned.identity is not None else b""
        done(learned.name, data, learned.fault)

    with torch.inference_mode():
        session = Session(*models, settings["dtype"], settings["gradient_checkpointing"])
        names = [person.name for person in people]
        with CastProgress(names, settings["steps"], settings["stages"], None) as progress:
            Learning(session, people, settings, at_once, progress, pack).of_all()


class FolderRun:
    """A folder of people, the shelf that it fills, and what is left to do.

    Arguments:
        shelf: Kept for this run alone.
        changed: Settings of a training that differ from the node's, by name, as text.
        checkpoint: Its hash.

    Raises:
        SettingsError: A setting is unknown or of another kind, or there is nobody.
    """

    def __init__(
        self, folder: Path, shelf: Shelf, changed: dict[str, str], checkpoint: str
    ) -> None:
        self.folder, self.shelf = folder, shelf
        self.settings = with_changed(NODE | DEFAULTS, changed)
        shaping = {n: value for n, value in self.settings.items() if n not in PASSING}
        self.people, self.left_out = everybody(folder)
        self.faults = {person.name: person.fault for person in self.people if person.fault}
        self.keys = {
            person.name: key_of(person, shaping, checkpoint)
            for person in self.people
            if not person.fault
        }
        self.before = {name for name, key in self.keys.items() if self.shelf.holds(name, key)}
        self.started = time.monotonic()

    @property
    def waiting(self) -> list[Person]:
        """Who is neither on the shelf nor told to be impossible."""
        over = self.before | self.faults.keys()
        return [person for person in self.people if person.name not in over]

    def done(self, name: str, data: bytes, fault: str) -> None:
        """Takes what became of a person."""
        try:
            if data:
                self.shelf.put(name, data)
        except SefiError as error:
            fault = str(error)
        if fault:
            self.faults[name] = fault

    def report(self) -> tuple[str, bool]:
        """Writes the report; returns what it says in a line, and whether everybody is there."""
        rows = rows_of(self.people, self.shelf, self.before, self.faults, self.keys)
        states = [row.state for row in rows]
        kinds = ("trained", "was there", "failed", "not begun")
        counts = ", ".join(f"{states.count(kind)} {kind}" for kind in kinds if kind in states)
        summary = f"{counts}; {time.monotonic() - self.started:.0f} s."
        write_report(rows, self.people, self.shelf, summary)
        return summary, not {"failed", "not begun"} & set(states)


def with_changed(settings: dict, changed: dict[str, str]) -> dict:
    """Returns settings with those that are given as text, in their own kinds.

    Raises:
        SettingsError: One is unknown, or of another kind.
    """
    made = dict(settings)
    for name, text in changed.items():
        if name not in made:
            raise SettingsError(
                f'--set: there is no setting "{name}"; take one of {", ".join(sorted(made))}.'
            )
        kind = type(made[name])
        try:
            made[name] = text.lower() in ("1", "true", "yes", "on") if kind is bool else kind(text)
        except ValueError as error:
            raise SettingsError(
                f'--set: {name} is "{text}", which is no {kind.__name__}; write one.'
            ) from error
    return made
