"""Pictures (B, 3, R, R) and masks (B, 1, R, R) of sefi_core -> what the panel shows, and latents by
the host's VAE.
"""

__all__ = ["dimmed", "encode_pool", "encode_views"]

from collections.abc import Iterable

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy.utils import ProgressBar
from torch import Tensor
from torch.nn import functional as F

from ....sefi_core.errors import PictureError
from ....sefi_core.picture.augment import augmented_views
from ....sefi_core.samples import LatentPool
from ....sefi_core.training.config import TrainingConfig
from ..images import stored_samples

PIXELS_AT_ONCE = 512 * 512  # that the VAE encodes; one picture of 512 fills a card as well as many
DIMMED = 0.35  # of the brightness, where nothing is learned


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
