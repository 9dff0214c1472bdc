"""The miniature's files: one `.safetensors` a world, fp16, at most 12 MB.

`miniature.safetensors` learned on Stable Diffusion's own schedule, `miniature-s4.safetensors` and
`miniature-s8.safetensors` went on from it on theirs (`model.py` says what the scale s is).

    unet.*, text.*      weights of the host's classes; `text` without its token table
    tokens.ids          CLIP ids of the rows that occur, (n,) int32
    tokens.rows         their rows, (n, E); the rows of the listed names are among them
    names.<kind>        basis of a kind's names, (T, E)
    patches.*           the patch transform, fp32
    metadata["card"]    JSON: data, scale, steps, losses, seeds

A row that is not in the file is read as a filler word, which means nothing to the miniature;
names given after the file was written have theirs all the same (`load.py`).
"""

__all__ = ["MINIATURE", "SCALES", "Checkpoint", "miniature", "own_file", "read", "write"]

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from .subjects import Subject, code

MINIATURE = Path(__file__).with_name("miniature.safetensors")
SCALES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Checkpoint:
    """A read file: its tensors in fp32 by name, and its card."""

    tensors: dict[str, Tensor]
    card: dict[str, object]

    @property
    def scale(self) -> int:
        """The scale of the schedule it learned on."""
        return self.card.get("scale", 1)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Returns the tensors under a prefix, without it."""
        start = f"{prefix}."
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}

    def row(self, word: str) -> Tensor:
        """Returns the token row (E,) of one of the vocabulary's words or listed names."""
        return self.tensors["tokens.rows"][self.card["words"].index(word)]

    def subject_row(self, subject: Subject) -> Tensor:
        """Returns the row (E,) that would be any subject's name, listed or not."""
        return named_row(self.row(subject.kind), self.tensors[f"names.{subject.kind}"], subject)


def own_file(scale: int) -> Path:
    """Returns where the miniature that learned on the schedule of a scale is, or is to be."""
    return MINIATURE if scale == 1 else MINIATURE.with_name(f"miniature-s{scale}.safetensors")


def miniature(scale: int) -> Path:
    """Returns the file of a world: the one that learned on its schedule, or else the first."""
    own = own_file(scale)
    return own if own.is_file() else MINIATURE


def named_row(class_row: Tensor, basis: Tensor, subject: Subject) -> Tensor:
    """Returns a name's row (E,): the class word's row moved by the subject's code."""
    return class_row + torch.from_numpy(code(subject)) @ basis


def read(path: Path = MINIATURE) -> Checkpoint:
    """Reads a miniature."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no miniature here; `python -m benchmarks.world.export`.")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        card = json.loads(file.metadata()["card"])
    floats = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    return Checkpoint(floats, card)


def write(tensors: dict[str, Tensor], card: dict[str, object], path: Path) -> None:
    """Writes a miniature whole or not at all; all but the patch transform goes to fp16."""
    small = {
        k: v.half() if v.is_floating_point() and not k.startswith("patches.") else v
        for k, v in tensors.items()
    }
    data = save(
        {k: v.contiguous() for k, v in sorted(small.items())},
        metadata={"card": json.dumps(card, sort_keys=True)},
    )
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)
