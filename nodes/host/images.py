"""IMAGE of the host, in [0, 1], <-> pictures of 8 bits, as they are kept and shown."""

__all__ = ["as_colour", "as_image", "as_jpeg", "as_pil", "stored_samples"]

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...sefi_core.errors import PictureError

SMALL_PIXELS, SMALL_QUALITY = 256, 85  # of covers and of what a node shows


def stored_samples(image: Tensor) -> Tensor:
    """Returns an IMAGE (B, H, W, 3) in 8 bits, as kept with a finished training."""
    with torch.inference_mode(False):
        return image.clone().float().clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8).cpu()


def as_image(samples: Tensor) -> Tensor:
    """Returns 8-bit pictures (B, H, W, 3) as an IMAGE."""
    return samples.float() / 255.0


def as_pil(samples: Tensor) -> Image.Image:
    """Returns the first of 8-bit pictures (B, H, W, 3)."""
    return Image.fromarray(np.ascontiguousarray(samples[0].numpy()))


def as_jpeg(samples: Tensor) -> bytes:
    """Returns the first of 8-bit pictures (B, H, W, 3) as a small JPEG."""
    picture = as_pil(samples)
    picture.thumbnail((SMALL_PIXELS, SMALL_PIXELS))
    data = BytesIO()
    picture.save(data, "JPEG", quality=SMALL_QUALITY)
    return data.getvalue()


def as_colour(field: str, image: Tensor) -> Tensor:
    """Returns an IMAGE as (n, h, w, 3) on the CPU; raises PictureError unless it is one."""
    if image.ndim != 4 or image.shape[-1] not in (3, 4) or not torch.isfinite(image).all():
        raise PictureError(
            f"{field}: its pictures are not in colour, or some of their pixels are not finite "
            "numbers; connect pictures in colour, with 3 channels, or 4 with alpha."
        )
    return image[..., :3].float().cpu().clamp(0.0, 1.0)
