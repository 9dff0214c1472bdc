"""Where a picture is within a border of one colour: the bars of a screenshot, the frame of a scan.

A border is learned as a part of the subject, also where the loss looks at the subject alone,
because what a model makes of the subject depends on all that it sees (docs/quality.md).
"""

__all__ = ["within_border"]

from torch import Tensor

ALIKE = 12 / 255  # how far a border's pixels are from its colour, in each channel
STRAIGHT = 0.75  # of the first line inside, what is of another colour: a backdrop has no such edge
BLURRED = 1 / 64  # of the side, what an edge may take that JPEG or another size has made unclear
LEAST = 0.25  # of each side, what is left


def within_border(picture: Tensor) -> tuple[slice, slice]:
    """Returns the rows and columns of a picture (3, H, W) in [0, 1] that are within its border; all
    of them where it has none.

    A border has straight edges and leaves at least LEAST of each side, so that a subject before a
    plain backdrop, a black sky or white paper stay as they are.
    """
    upright = picture.mT
    # Each side as rows from the outside in: above, below, left, right.
    others = [of_another_colour(x) for x in (picture, picture.flip(1), upright, upright.flip(1))]
    borders = [int((~other.any(dim=-1)).cumprod(0).sum()) for other in others]
    for _ in borders:  # a side that is no border is inside for the other three
        ends = [borders[2:], borders[2:], borders[:2], borders[:2]]
        borders = [edge(*side) for side in zip(others, borders, ends, strict=True)]
    kept = [
        slice(first, length - last)
        for first, last, length in zip(borders[::2], borders[1::2], picture.shape[1:], strict=True)
    ]
    if all(k.stop - k.start >= LEAST * n for k, n in zip(kept, picture.shape[1:], strict=True)):
        return kept[0], kept[1]
    return slice(0, picture.shape[1]), slice(0, picture.shape[2])


def of_another_colour(picture: Tensor) -> Tensor:
    """Returns which pixels (n, m) of a picture (3, n, m) are not of its first row's colour."""
    colour = picture[:, 0].median(dim=-1).values
    return (picture - colour[:, None, None]).abs().amax(dim=0) > ALIKE


def edge(other: Tensor, border: int, ends: list[int]) -> int:
    """Returns where a border of some of the first rows of `other` (n, m) ends; 0 if the edge is not
    straight.

    Arguments:
        ends: How many columns on the left and on the right are borders too.
    """
    left, right = ends
    unclear = max(1, int(BLURRED * len(other)))
    lines = other[border : border + unclear + 1, left : other.shape[1] - right].float().mean(dim=-1)
    inside = (lines >= STRAIGHT).nonzero()
    return border + int(inside[0]) if border and len(inside) else 0
