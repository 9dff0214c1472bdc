"""Denoising with an identity's pairs: tokens to contexts, contexts to the model's prediction."""

__all__ = ["drawn_tokens", "predict_pairs", "predict_rows"]

import torch
from torch import Tensor

from .devices import sent
from .protocols import Backbone, Prediction, TextEncoder
from .stages import stage_of


def predict_pairs(
    backbone: Backbone,
    encoder: TextEncoder,
    pairs: dict[str, Tensor],
    edges: tuple[int, ...],
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    columns: Tensor,
) -> Prediction:
    """Denoises with the pair of each sample's stage; timesteps and columns are on the CPU, noise
    may be.
    """
    rows = stage_of(timesteps, edges)
    return predict_rows(backbone, encoder, pairs, rows, latents, noise, timesteps, columns)


def predict_rows(
    backbone: Backbone,
    encoder: TextEncoder,
    pairs: dict[str, Tensor],
    rows: Tensor,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    columns: Tensor,
) -> Prediction:
    """Denoises each sample with the pair of its row (B,)."""
    device = latents.device
    tokens, place = drawn_tokens(pairs, rows)
    # Eq. 5's two encodings in one batch; the encoder may live on another device.
    keys, values = encoder.encode(tokens).to(device).chunk(2)  # each (n, L, C)
    place = sent(place, device)
    return backbone.predict(
        latents,
        sent(noise, device).to(latents),
        sent(timesteps, device),
        keys.index_select(0, place),
        values.index_select(0, place),
        with_maps=bool(columns.any()),
    )


def drawn_tokens(pairs: dict[str, Tensor], rows: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Returns the tokens (2 n, T, E) to encode, K before V, and each sample's place (B,) among the
    n of K: its own, or, where there are more samples than pairs, its row's.

    Arguments:
        rows: The samples' pairs, (B,), on the CPU.
    """
    count = len(next(iter(pairs.values())))
    every = len(rows) > count
    drawn, place = (torch.arange(count), rows) if every else (rows, torch.arange(len(rows)))
    tokens = {
        name: table.index_select(0, sent(drawn, table.device)).transpose(0, 1).flatten(0, 1)
        for name, table in pairs.items()
    }
    return tokens, place
