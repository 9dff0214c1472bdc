"""A contact sheet: everybody of a cast who has an identity, with their name."""

__all__ = ["contact_sheet"]

import math
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..drawing import labelled, squared
from ..page.board import Member

CELL, WIDEST = 256, 4096  # pixels
DONE = ("finished", "kept")


def contact_sheet(people: Sequence[Member]) -> Tensor:
    """Returns an IMAGE (1, H, W, 3) of each person's last preview, or of what was learned from
    where there is none, in the order of the people.
    """
    shown = [one for one in people if one.state in DONE]
    columns = max(1, math.ceil(math.sqrt(len(shown))))
    side = min(CELL, WIDEST // columns)
    rows = max(1, math.ceil(len(shown) / columns))
    sheet = torch.zeros(1, rows * side, columns * side, 3)
    for i, one in enumerate(shown):
        top, left = i // columns * side, i % columns * side
        sheet[0, top : top + side, left : left + side] = cell(one, side)
    return sheet


def cell(member: Member, side: int) -> Tensor:
    """Returns a person's picture with their name, (side, side, 3)."""
    with Image.open(BytesIO(member.preview or member.reference)) as picture:
        pixels = np.array(picture.convert("RGB")).astype(np.float32) / 255.0
    return labelled(squared(torch.from_numpy(pixels), side), member.name)
