"""Words on pictures and pictures in tables, as IMAGEs."""

__all__ = ["grid", "labelled", "table"]

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from .images import as_pil, stored_samples

PAPER, INK, FAINT = (250, 250, 248), (28, 28, 30), (225, 225, 221)
TEXT, HEAD = 18, 26  # pixels
GAP, PAD = 10, TEXT // 2  # pixels
CELL = 3 * TEXT  # pixels a side of a picture in a table


def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def as_picture(image: Tensor) -> Image.Image:
    """Returns a picture (h, w, 3) in [0, 1]."""
    return as_pil(stored_samples(image[None]))


def as_tensor(picture: Image.Image) -> Tensor:
    """Returns an IMAGE (1, h, w, 3)."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).float()[None] / 255.0


def fitted(image: Tensor, width: int, height: int) -> Tensor:
    """Returns a picture (h, w, 3) that fills width x height."""
    planes = image[None].movedim(-1, 1)
    resized = F.interpolate(planes, size=(height, width), mode="bilinear", antialias=True)
    return resized.movedim(1, -1)[0].clamp(0.0, 1.0)


def squared(image: Tensor, side: int) -> Tensor:
    """Returns the middle square of a picture (h, w, 3), of a side in pixels."""
    height, width = image.shape[:2]
    size = min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return fitted(image[top : top + size, left : left + size], side, side)


def labelled(image: Tensor, text: str) -> Tensor:
    """Returns a picture (h, w, 3) with a text in its upper left corner."""
    picture = as_picture(image)
    size = max(10, min(picture.width, picture.height) // 20)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = draw.textbbox((size // 2, size // 2), text, font=font(size))
    edge = size // 3
    draw.rectangle((left - edge, top - edge, right + edge, bottom + edge), fill=INK)
    draw.text((size // 2, size // 2), text, font=font(size), fill=PAPER)
    return as_tensor(picture)[0]


def grid(rows: Sequence[tuple[str, Sequence[Tensor]]], heads: Sequence[str], cell: int) -> Tensor:
    """Returns an IMAGE (1, h, w, 3): rows of pictures, each row under its name, each column under
    its head.

    Arguments:
        cell: Width of a picture in pixels; heights follow.
    """
    height, width = rows[0][1][0].shape[:2]
    tall = max(1, round(cell * height / width))
    step, top = tall + TEXT + 2 * GAP, HEAD + 2 * GAP
    sheet = Image.new("RGB", (GAP + len(heads) * (cell + GAP), top + len(rows) * step), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, head in enumerate(heads):
        draw.text((GAP + i * (cell + GAP), GAP), head, font=font(TEXT), fill=INK)
    for j, (name, pictures) in enumerate(rows):
        draw.text((GAP, top + j * step), name, font=font(TEXT), fill=INK)
        for i, picture in enumerate(pictures):
            place = (GAP + i * (cell + GAP), top + j * step + TEXT + GAP)
            sheet.paste(as_picture(fitted(picture, cell, tall)), place)
    return as_tensor(sheet)


def table(
    title: str, blocks: Sequence[Sequence[Sequence[str | Tensor]]], notes: Sequence[str]
) -> Tensor:
    """Returns an IMAGE (1, h, w, 3): tables below each other, each a list of rows whose first is
    its head, with texts or small pictures (h, w, 3) in the cells; then notes.
    """
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))

    def wide(cell: str | Tensor) -> int:
        if isinstance(cell, Tensor):
            return CELL
        return round(measure.textlength(cell, font=font(TEXT)))

    widths = [[max(map(wide, column)) + 2 * PAD for column in zip(*b, strict=True)] for b in blocks]
    width = max(*(sum(w) for w in widths), 36 * TEXT)
    heading = wrapped(title, width, measure, HEAD)
    lines = [line for note in notes for line in wrapped(note, width, measure, TEXT)]
    height = len(heading) * (HEAD + PAD) + 3 * GAP
    height += sum(sum(map(tall, b)) + 2 * GAP for b in blocks)
    sheet = Image.new("RGB", (width + 2 * GAP, height + len(lines) * (TEXT + PAD) + GAP), PAPER)
    y = draw_lines(sheet, heading, GAP, HEAD) + GAP
    for block, columns in zip(blocks, widths, strict=True):
        for number, row in enumerate(block):
            y = draw_row(sheet, row, columns, y, is_head=number == 0)
        y += 2 * GAP
    draw_lines(sheet, lines, y, TEXT)
    return as_tensor(sheet)


def tall(row: Sequence[str | Tensor]) -> int:
    """Returns the height of a row in pixels."""
    return (CELL if any(isinstance(cell, Tensor) for cell in row) else TEXT) + 2 * PAD


def draw_lines(sheet: Image.Image, lines: Iterable[str], y: int, size: int) -> int:
    """Draws lines below each other from y on; returns where the next one goes."""
    draw = ImageDraw.Draw(sheet)
    for line in lines:
        draw.text((GAP, y), line, font=font(size), fill=INK)
        y += size + PAD
    return y


def draw_row(
    sheet: Image.Image, row: Sequence[str | Tensor], columns: list[int], y: int, is_head: bool
) -> int:
    """Draws a row of columns so wide at y; returns where the next one goes."""
    draw, x, below = ImageDraw.Draw(sheet), GAP, y + tall(row)
    if is_head:
        draw.rectangle((GAP, y, GAP + sum(columns), below), fill=FAINT)
    for cell, column in zip(row, columns, strict=True):
        if isinstance(cell, Tensor):
            sheet.paste(as_picture(squared(cell, CELL)), (x + PAD, y + PAD))
        else:
            middle = y + (tall(row) - TEXT) // 2 - 2
            draw.text((x + PAD, middle), cell, font=font(TEXT), fill=INK)
        x += column
    draw.line((GAP, below, GAP + sum(columns), below), fill=FAINT)
    return below


def wrapped(text: str, width: int, measure: ImageDraw.ImageDraw, size: int) -> list[str]:
    """Returns a text in lines at most `width` pixels wide."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and measure.textlength(longer, font=font(size)) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
