"""IMAGE and MASK of the host -> square pictures and masks of sefi_core.

Host: IMAGE (B, H, W, 3 or 4) in [0, 1], MASK (B, H, W) in [0, 1]. Core: (B, 3, R, R) and (B, 1, R,
R).
"""

__all__ = ["require_side", "square_pictures"]

import torch
from torch import Tensor
from torch.nn import functional as F

from ....sefi_core.errors import PictureError, SettingsError
from ....sefi_core.picture.border import within_border

MIN_SIDE = 64  # pixels; the coarsest UNet layer then still sees a grid
MASK_KEPT = 0.9  # of what the whole picture's square has of the mask, where a border is cut off


def square_pictures(
    image: Tensor, mask: Tensor | None, side: int, trimmed: bool = True
) -> tuple[Tensor, Tensor]:
    """Returns square crops (B, 3, side, side) and masks (B, 1, side, side).

    The crop is centred on the mask where there is one; an alpha channel serves as the mask if none
    is given.

    Arguments:
        trimmed: Whether a border of one colour is cut off first.

    Raises:
        PictureError: The pictures are too small, not finite, or do not fit the mask.
    """
    if image.ndim != 4 or image.shape[-1] not in (3, 4):
        raise PictureError(
            f"image: its pixels are of {image.shape[-1]} numbers; connect pictures in colour, "
            "which have 3, or 4 with alpha."
        )
    height, width = image.shape[1:3]
    if min(height, width) < MIN_SIDE:
        raise PictureError(
            f"image: it is {width} x {height} pixels; a face needs {MIN_SIDE} x {MIN_SIDE} or "
            "more, 512 x 512 is good."
        )
    require_side(side)
    count = len(image)
    if mask is not None:
        masks = mask.reshape(-1, 1, *mask.shape[-2:])
    else:
        masks = image[..., 3:].movedim(-1, 1) if image.shape[-1] == 4 else None
    require_fitting(masks, count, height, width)
    made = torch.empty(count, 4, side, side)
    for i in range(count):  # one at a time: they may be many and large
        picture = image[i, ..., :3].movedim(-1, 0).float()
        alone = picture.new_ones(1, height, width)
        if masks is not None:
            alone = masks[min(i, len(masks) - 1)].float()
        planes = required_pixels(picture, alone)
        crop = square_within_border(planes) if trimmed else crop_square(planes)
        resized = F.interpolate(crop[None], size=(side, side), mode="bilinear", antialias=True)
        made[i] = resized[0].clamp(0.0, 1.0)
    return made[:, :3], made[:, 3:]


def require_fitting(masks: Tensor | None, count: int, height: int, width: int) -> None:
    """Raises PictureError unless masks (n, 1, H, W) are one, or one for each, of the pictures."""
    if masks is None:
        return
    if masks.shape[-2:] != (height, width):
        raise PictureError(
            f"mask: it is {masks.shape[-1]} x {masks.shape[-2]} pixels, the image {width} x "
            f"{height}; connect the mask of this image (in Load Image, paint one), or none."
        )
    if len(masks) not in (1, count):
        raise PictureError(
            f"mask: there are {len(masks)} masks for {count} images; connect one, or one for each."
        )


def required_pixels(picture: Tensor, mask: Tensor) -> Tensor:
    """Returns planes (4, H, W) of a picture (3, H, W) and its mask (1, H, W); raises PictureError
    unless there is something to learn.
    """
    if not torch.isfinite(mask).all():
        raise PictureError("mask: it has values that are not finite; check the node that made it.")
    if not torch.isfinite(picture).all():
        raise PictureError(
            "image: it has pixels that are not finite numbers; check the node that made it."
        )
    mask = mask.clamp(0.0, 1.0)
    if not mask.any():
        raise PictureError("mask: it is empty for at least one image; paint the subject white.")
    return torch.cat([picture, mask])


def square_within_border(planes: Tensor) -> Tensor:
    """Returns the square of planes (4, H, W) without a border of one colour, or of all if that
    would cost some of what is to be learned.
    """
    rows, columns = within_border(planes[:3].clamp(0.0, 1.0))
    whole, inner = crop_square(planes), planes[:, rows, columns]
    if not inner[3].any():
        return whole
    square, least = crop_square(inner), planes[3].min()  # of a mask that is the same everywhere: 0
    kept, all_of_it = ((one[3] - least).sum() for one in (square, whole))
    return square if kept >= MASK_KEPT * all_of_it else whole


def require_side(side: int) -> None:
    """Raises SettingsError unless training pictures can be so large."""
    if side % 64 or not MIN_SIDE <= side <= 4096:
        raise SettingsError(
            f"resolution: it is {side}; set 0 or a multiple of 64 from {MIN_SIDE} to 4096."
        )


def crop_square(planes: Tensor) -> Tensor:
    """Returns the largest square of planes (4, H, W) whose centre is nearest the middle of the box
    of the mask, the last of them.
    """
    mask = planes[3]
    size = min(planes.shape[-2:])
    for axis, length in ((-1, planes.shape[-1]), (-2, planes.shape[-2])):
        covered = mask.any(dim=0 if axis == -1 else 1).nonzero()
        middle = (int(covered[0]) + int(covered[-1]) + 1) / 2
        start = round(min(max(middle - size / 2, 0), length - size))
        planes = planes.narrow(axis, start, size)
    return planes
