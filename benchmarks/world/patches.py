"""The miniature's "VAE": a fixed linear map between 4x4 patches and 16 numbers.

latent = (patch - mean) @ basis / scale, with the first 16 principal components of the world's
own patches (98 % of their variance). scale is the square root of each component's deviation,
normed to unit mean variance: between whitening, which would make noise of fine detail as
important as light and dark, and none, which would leave fine detail to the very last steps.
"""

__all__ = ["CHANNELS", "PATCH", "Patches"]

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH, CHANNELS = 4, 16


@dataclass(frozen=True)
class Patches:
    """The fixed patch transform: mean (48,), basis (48, C) with orthonormal columns, scale (C,)."""

    mean: Tensor
    basis: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, pictures: Tensor) -> "Patches":
        """Fits the transform to pictures (B, 3, N, N) in [-1, 1]."""
        patches = F.pixel_unshuffle(pictures, PATCH).transpose(0, 1).flatten(1).mT  # (n, 48)
        mean = patches.mean(dim=0)
        variance, vectors = torch.linalg.eigh(torch.cov(patches.mT.double()))
        basis = vectors[:, -CHANNELS:].flip(1)  # (48, C), most important first
        # eigh leaves signs open; fixed ones make equal data give equal files.
        basis = basis * basis.sum(dim=0).sign()
        deviation = variance[-CHANNELS:].flip(0).sqrt()
        scale = deviation.sqrt() * deviation.mean().sqrt()
        return cls(mean, basis.float(), scale.float())

    def explained(self, pictures: Tensor) -> float:
        """Returns the share of the variance of pictures (B, 3, N, N) the latents keep."""
        centred = pictures - pictures.mean(dim=(0, 2, 3), keepdim=True)
        lost = pictures - self.decode(self.encode(pictures))
        return 1.0 - (lost.square().mean() / centred.square().mean()).item()

    def encode(self, pictures: Tensor) -> Tensor:
        """Returns latents (B, C, N/4, N/4) of pictures (B, 3, N, N) in [-1, 1]."""
        patches = F.pixel_unshuffle(pictures, PATCH).movedim(1, -1)  # (B, h, w, 48)
        return ((patches - self.mean) @ (self.basis / self.scale)).movedim(-1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pictures (B, 3, 4h, 4w), about [-1, 1], of latents (B, C, h, w)."""
        patches = (latents.movedim(1, -1) * self.scale) @ self.basis.mT + self.mean
        return F.pixel_shuffle(patches.movedim(-1, 1), PATCH)

    def rgb_factors(self) -> Tensor:
        """Returns how each channel colours a latent's own pixel, shape (C, 3): for previews."""
        return (self.basis * self.scale).unflatten(0, (3, PATCH * PATCH)).mean(dim=1).mT

    def tensors(self) -> dict[str, Tensor]:
        """Returns the three tensors by name."""
        return {"mean": self.mean, "basis": self.basis, "scale": self.scale}
