"""IMAGE, MASK and LATENT of the host <-> pictures, masks and latents of sefi_core.

Host: IMAGE (B, H, W, 3 or 4) in [0, 1], MASK (B, H, W) in [0, 1]. Core: (B, 3, R, R) and (B, 1, R,
R).
"""

__all__ = [
    "dimmed",
    "encode_pool",
    "encode_views",
    "require_side",
    "square_pictures",
]

from collections.abc import Iterable

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy.utils import ProgressBar
from torch import Tensor
from torch.nn import functional as F

from ....sefi_core.errors import PictureError, SettingsError
from ....sefi_core.picture.augment import augmented_views
from ....sefi_core.picture.border import within_border
from ....sefi_core.samples import LatentPool
from ....sefi_core.training.config import TrainingConfig
from ..images import stored_samples

MIN_SIDE = 64  # pixels; the coarsest UNet layer then still sees a grid
PIXELS_AT_ONCE = 512 * 512  # that the VAE encodes; one picture of 512 fills a card as well as many
MASK_KEPT = 0.9  # of what the whole picture's square has of the mask, where a border is cut off
DIMMED = 0.35  # of the brightness, where nothing is learned


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


def dimmed(pictures: Tensor, masks: Tensor) -> Tensor:
    """Returns the first of pictures (B, 3, R, R) in 8 bits, (1, R, R, 3), darker where its mask of
    (B, 1, R, R) is black.
    """
    first = pictures[:1] * (DIMMED + (1.0 - DIMMED) * masks[:1])
    return stored_samples(first.movedim(1, -1))


def encode_pool(
    vae: VAE,
    model: ModelPatcher,
    pictures: Tensor,
    masks: Tensor,
    config: TrainingConfig,
    device: torch.device,
) -> LatentPool:
    """Draws the training's views and encodes them once."""
    generator = torch.Generator().manual_seed(config.seed)
    scales, few = (config.min_scale, config.max_scale), at_once(pictures)
    parts = (
        augmented_views(pictures, masks, min(few, config.views - i), scales, generator, first=i)
        for i in range(0, config.views, few)
    )
    return encode_parts(vae, model, parts, config.views, device)


def encode_views(
    vae: VAE, model: ModelPatcher, views: Tensor, masks: Tensor, device: torch.device
) -> LatentPool:
    """Encodes views (n, 3, R, R); masks are (n, 1, R, R)."""
    few = at_once(views)
    parts = zip(views.split(few), masks.split(few), strict=True)
    return encode_parts(vae, model, parts, len(views), device)


def at_once(views: Tensor) -> int:
    """Returns how many views (n, 3, R, R) are encoded at once."""
    return max(1, PIXELS_AT_ONCE // views[0, 0].numel())


@torch.inference_mode()
def encode_parts(
    vae: VAE,
    model: ModelPatcher,
    parts: Iterable[tuple[Tensor, Tensor]],
    count: int,
    device: torch.device,
) -> LatentPool:
    """Encodes `count` views that come a few at a time, so that memory does not grow with their
    number, with a bar, and stopped when the artist stops.

    Raises:
        PictureError: The VAE is not the model's, or makes numbers that are not finite.
    """
    bar, latents, small = None, [], []
    for views, masks in parts:
        throw_exception_if_processing_interrupted()
        if len(views) < count and bar is None:  # no flash before the steps' own
            bar = ProgressBar(count)
        encoded = vae.encode(views.movedim(1, -1))
        require_latents(encoded, model.model.latent_format.latent_channels)
        latents.append(model.model.process_latent_in(encoded.float()).to(device))
        small.append(F.interpolate(masks, size=encoded.shape[-2:], mode="area").to(device))
        if bar is not None:
            bar.update(len(views))
    with torch.inference_mode(False):
        return LatentPool(torch.cat(latents), torch.cat(small))


def require_latents(latents: Tensor, channels: int) -> None:
    """Raises PictureError for what a VAE makes of a picture and no model can learn from."""
    if latents.ndim != 4 or latents.shape[1] != channels:
        raise PictureError(
            f"vae: it makes latents of {latents.shape[1]} channels in {latents.ndim - 2} "
            f"dimensions, the model takes {channels} in 2; take VAE and MODEL from the same "
            "checkpoint."
        )
    if not torch.isfinite(latents).all():
        raise PictureError(
            "vae: it makes numbers of this picture that are not finite; start ComfyUI with "
            "--fp32-vae, or connect another VAE of the model's family."
        )
