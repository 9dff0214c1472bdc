"""The two losses.

L_KV   = mean |eps - eps_theta(z_t, t, (P_i^K, P_i^V))|^2        (Eq. 5)
L_attn = sum (Re2(A_r) - Re2(A_t))^2                             (Eq. 4)
L      = L_KV + lambda * L_attn                                  (Eq. 6)
"""

__all__ = ["REFERENCE_COUNT", "LossTerms", "attention_loss", "denoising_loss", "loss_terms"]

from dataclasses import dataclass

import torch
from torch import Tensor

from .devices import sent
from .maps import MAP_SIDE, resize_maps
from .protocols import Prediction

# Eq. 4 is a sum over [8, 77, 32, 32]. As count * mean, lambda = 0.003 keeps its meaning for every
# UNet.
REFERENCE_COUNT = 8 * 77 * MAP_SIDE * MAP_SIDE


@dataclass(frozen=True)
class LossTerms:
    """Scalars of one step; `attention` is L_attn without its weight."""

    denoising: Tensor
    attention: Tensor
    total: Tensor


def loss_terms(
    prediction: Prediction, token_mask: Tensor, weight: float, masks: Tensor | None = None
) -> LossTerms:
    """Returns Eq. 6, lambda being `weight`; without maps to compare, L_attn is 0.

    Arguments:
        token_mask: Which prompt tokens L_attn compares, (L,) or for each sample (B, L), ones and
            zeros, on the CPU.
        masks: Where L_KV looks, (B, 1, h, w) in [0, 1]; everywhere without.
    """
    denoising = denoising_loss(prediction, masks)
    compared = prediction.maps and bool(token_mask.any())
    zero = torch.zeros_like(denoising)
    attention = attention_loss(prediction, token_mask) if compared else zero
    return LossTerms(denoising, attention, denoising + weight * attention)


def denoising_loss(prediction: Prediction, mask: Tensor | None = None) -> Tensor:
    """Returns L_KV, a scalar; with a mask (B, 1, h, w) in [0, 1], the mean over what it covers."""
    error = (prediction.output - prediction.target).square()
    if mask is None:
        return error.mean()
    weight = mask.expand_as(error)
    return (error * weight).sum() / weight.sum().clamp(min=1.0)


def attention_loss(prediction: Prediction, token_mask: Tensor) -> Tensor:
    """Returns L_attn over the prompt tokens, (L,) or (B, L), ones and zeros, that count: options 1,
    2, 3 of the paper.

    Re2 is linear, so it is taken of the differences. Layers with unlike numbers of heads cannot be
    averaged head by head; there each layer is compared by itself and the losses are averaged.
    """
    layers = [
        (side, reference - target)  # (B, H, N, L)
        for (reference, target), side in zip(prediction.maps, prediction.sides, strict=True)
    ]
    if len({difference.shape[1] for _, difference in layers}) == 1:
        compared = [mean_of_layers(layers)]
    else:
        compared = [resize_maps(difference, *side) for side, difference in layers]
    counted = sent(token_mask, compared[0].device)[..., None, :, None, None]  # of (B, H, L, 32, 32)
    losses = [REFERENCE_COUNT * (difference.square() * counted).mean() for difference in compared]
    return torch.stack(losses).mean()


def mean_of_layers(layers: list[tuple[tuple[int, int], Tensor]]) -> Tensor:
    """Returns the mean (B, H, L, 32, 32) of layers (sides, (B, H, N, L)), those of one size added
    up before they are resized.
    """
    sums: dict[tuple[int, int], Tensor] = {}
    for side, layer in layers:
        sums[side] = sums[side] + layer if side in sums else layer
    resized = [resize_maps(layer, *side) for side, layer in sums.items()]
    return torch.stack(resized).sum(dim=0) / len(layers)
