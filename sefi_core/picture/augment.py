"""Views of one subject's pictures: colour jitter, flip, random scale (Sec. IV-A).

A scale below 1 puts the whole picture, smaller, on a black canvas; one above 1 shows a part of it.
A mask follows the pixels: it covers the picture's rectangle, within the subject's own mask where
there is one.
"""

__all__ = ["augmented_views"]

import torch
from torch import Tensor
from torch.nn import functional as F

JITTER = 0.2  # brightness, contrast and saturation by 0.8 .. 1.2
HUE_TURN = 0.01  # of a full turn, either way
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def augmented_views(
    pictures: Tensor,
    masks: Tensor,
    count: int,
    scales: tuple[float, float],
    generator: torch.Generator,
    first: int = 0,
) -> tuple[Tensor, Tensor]:
    """Draws `count` views, the pictures in turn.

    Arguments:
        pictures: Square pictures in [0, 1], (B, 3, R, R), float32.
        masks: What is the subject, in [0, 1], (B, 1, R, R).
        scales: The smallest and the largest side of the picture, as a share of the canvas.
        first: How many views were drawn before: they may be drawn in parts.

    Returns:
        Views (count, 3, R, R) in [0, 1] and their masks (count, 1, R, R).
    """
    views = [
        one_view(pictures[i % len(pictures)], masks[i % len(masks)], scales, generator)
        for i in range(first, first + count)
    ]
    return torch.stack([view for view, _ in views]), torch.stack([mask for _, mask in views])


def one_view(
    picture: Tensor, mask: Tensor, scales: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    unit = torch.rand(8, generator=generator, dtype=torch.float64).tolist()
    brightness, contrast, saturation = (1.0 + JITTER * (2.0 * u - 1.0) for u in unit[:3])
    picture = jitter_colour(
        picture, brightness, contrast, saturation, HUE_TURN * (2.0 * unit[3] - 1.0)
    )
    if unit[4] < 0.5:
        picture, mask = picture.flip(-1), mask.flip(-1)
    side = picture.shape[-1]
    smallest, largest = scales
    size = max(1, round(side * (smallest + (largest - smallest) * unit[5])))
    left, top = (int(u * (abs(side - size) + 1)) for u in unit[6:])
    return place(picture, size, left, top), place(mask, size, left, top)


def place(picture: Tensor, size: int, left: int, top: int) -> Tensor:
    """Returns `picture` (c, R, R), resized to `size`, in its former size: at (left, top) of a black
    canvas, or, of a larger one, the part from (left, top) on.
    """
    side = picture.shape[-1]
    resized = F.interpolate(picture[None], size=(size, size), mode="bilinear", antialias=True)[0]
    if size > side:
        return resized[:, top : top + side, left : left + side]
    return F.pad(resized, (left, side - size - left, top, side - size - top))


def jitter_colour(
    picture: Tensor, brightness: float, contrast: float, saturation: float, turn: float
) -> Tensor:
    """Returns the picture (3, R, R) in [0, 1] with its colours changed; 1, 1, 1, 0 leaves them."""
    to_yiq = torch.tensor(RGB_TO_YIQ, dtype=torch.float64)
    angle = torch.tensor(2.0 * torch.pi * turn, dtype=torch.float64)
    cos, sin = saturation * angle.cos(), saturation * angle.sin()
    rotate = torch.eye(3, dtype=torch.float64)
    rotate[1:, 1:] = torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])])
    change = (to_yiq.inverse() @ rotate @ to_yiq).to(picture)  # hue and saturation, (3, 3)
    picture = (picture * brightness).clamp(0.0, 1.0)
    grey = (to_yiq[0].to(picture) @ picture.flatten(1)).mean()
    picture = torch.lerp(grey, picture, contrast)
    return torch.einsum("ij,jyx->iyx", change, picture).clamp(0.0, 1.0)
