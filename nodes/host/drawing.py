"""Words on pictures and pictures in tables, as IMAGEs."""

__all__ = ["grid", "labelled", "table"]

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from .images import as_pil, stored_samples

PAPER, INK, FAINT = (250, 250, 248), (28, 28, 30), (225, 225, 221)
TEXT, HEAD = 18, 26  # pixels
GAP = 10  # pixels


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
    side, pad = 3 * TEXT, TEXT // 2
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))

    def wide(cell: str | Tensor) -> int:
        return (
            side if isinstance(cell, Tensor) else round(measure.textlength(cell, font=font(TEXT)))
        )

    def tall(row: Sequence[str | Tensor]) -> int:
        return (side if any(isinstance(cell, Tensor) for cell in row) else TEXT) + 2 * pad

    widths = [[max(map(wide, column)) + 2 * pad for column in zip(*b, strict=True)] for b in blocks]
    width = max(*(sum(w) for w in widths), 36 * TEXT)
    heading = wrapped(title, width, measure, HEAD)
    lines = [line for note in notes for line in wrapped(note, width, measure, TEXT)]
    height = len(heading) * (HEAD + pad) + 3 * GAP
    height += sum(sum(map(tall, b)) + 2 * GAP for b in blocks)
    sheet = Image.new("RGB", (width + 2 * GAP, height + len(lines) * (TEXT + pad) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    y = GAP
    for line in heading:
        draw.text((GAP, y), line, font=font(HEAD), fill=INK)
        y += HEAD + pad
    y += GAP
    for block, columns in zip(blocks, widths, strict=True):
        for number, row in enumerate(block):
            if number == 0:
                draw.rectangle((GAP, y, GAP + sum(columns), y + tall(row)), fill=FAINT)
            x = GAP
            for cell, column in zip(row, columns, strict=True):
                if isinstance(cell, Tensor):
                    sheet.paste(as_picture(squared(cell, side)), (x + pad, y + pad))
                else:
                    middle = y + (tall(row) - TEXT) // 2 - 2
                    draw.text((x + pad, middle), cell, font=font(TEXT), fill=INK)
                x += column
            y += tall(row)
            draw.line((GAP, y, GAP + sum(columns), y), fill=FAINT)
        y += 2 * GAP
    for line in lines:
        draw.text((GAP, y), line, font=font(TEXT), fill=INK)
        y += TEXT + pad
    return as_tensor(sheet)


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
