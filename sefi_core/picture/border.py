"""Where a picture is within a border of one colour: the bars of a screenshot, the frame of a scan.

A border is learned as a part of the subject, also where the loss looks at the subject alone,
because what a model makes of the subject depends on all that it sees (docs/quality.md).
"""

__all__ = ["within_border"]

import torch
from torch import Tensor

ALIKE = 12 / 255  # how far a border's pixels are from its colour, in each channel
STRAIGHT = 0.75  # of the first line inside, what is of another colour: a backdrop has no such edge
BLOCK = 8  # pixels of JPEG's, which an edge may go through; not more than 1/32 of a small side,
BLURRED = 1 / 64  # and this of a large one, which another size may have blurred
LEAST = 0.5  # of each side, what is left


def within_border(picture: Tensor) -> tuple[slice, slice]:
    """Returns the rows and columns of a picture (3, H, W) in [0, 1] that are within its border; all
    of them where it has none.

    A border is of whole lines of one colour, has straight edges and leaves at least LEAST of each
    side, so that a subject before a plain backdrop, a sky or white paper stay as they are.
    """
    sides = [(lines, last) for lines in (picture, picture.mT) for last in (False, True)]
    plain = [plain_lines(*side) for side in sides]
    borders = plain
    for _ in sides:  # a side that is no border is inside for the other three
        ends = [borders[2:], borders[2:], borders[:2], borders[:2]]
        borders = [
            edge(*side, count if border else 0, across)
            for side, count, border, across in zip(sides, plain, borders, ends, strict=True)
        ]
    sizes = picture.shape[1:]
    kept = [slice(a, n - b) for a, b, n in zip(borders[::2], borders[1::2], sizes, strict=True)]
    if any(k.stop - k.start < LEAST * n for k, n in zip(kept, sizes, strict=True)):
        kept = [slice(0, n) for n in sizes]
    return kept[0], kept[1]


def plain_lines(picture: Tensor, last: bool) -> int:
    """Returns how many of the first rows of a picture (3, n, m), or of its last, are of one
    colour.
    """
    outermost = picture[:, -1:] if last else picture[:, :1]
    if unlike(outermost, outermost).any():  # as in nearly every photo
        return 0
    other = unlike(picture, outermost).any(dim=-1)
    return int((~(other.flip(0) if last else other)).cumprod(0).sum())


def edge(picture: Tensor, last: bool, plain: int, ends: list[int]) -> int:
    """Returns how many of the first rows of a picture (3, n, m), or of its last, are a border; 0 if
    it has no straight edge.

    Arguments:
        plain: How many are of one colour.
        ends: How many columns on the left and on the right are borders too.
    """
    rows, columns = picture.shape[1:]
    unclear = max(1, min(BLOCK, rows // 32), int(BLURRED * rows))
    order = range(rows)[::-1] if last else range(rows)
    inside = list(order[plain : plain + unclear + 1])
    if not plain or not inside:
        return 0
    # The colour near the edge: a backdrop or a sky may change little by little.
    colour = picture[:, [order[max(0, plain - 1 - unclear)]]]
    other = unlike(picture[:, inside, ends[0] : columns - ends[1]], colour)
    straight = (other.float().mean(dim=-1) >= STRAIGHT).nonzero()
    return plain + int(straight[0]) if len(straight) else 0


def unlike(picture: Tensor, line: Tensor) -> Tensor:
    """Returns which pixels (n, m) of a picture (3, n, m) are not of the colour of a line (3, 1,
    k).
    """
    other = torch.zeros(picture.shape[1:], dtype=torch.bool, device=picture.device)
    for plane, colour in zip(picture, line.flatten(1).median(dim=-1).values, strict=True):
        other |= (plane - colour).abs() > ALIKE  # by channel: a picture may be large
    return other
