"""The host's text layers for training: their residuals out of place, equal bit for bit.

The host adds residuals in place, which autograd refuses.
"""

__all__ = ["causal_mask", "encode_embeds", "layers_read"]

from collections.abc import Callable

import torch
from comfy.ldm.modules.attention import optimized_attention_for_device
from comfy.sd1_clip import SDClipModel
from torch import Tensor, nn

from ..checkpointing import recomputed


def causal_mask(embeds: Tensor) -> Tensor:
    """Returns the host's mask (L, L) for embeddings (L, E)."""
    lowest, length = -torch.finfo(embeds.dtype).max, len(embeds)
    return torch.full((length, length), lowest, dtype=embeds.dtype, device=embeds.device).triu_(1)


def encode_embeds(
    encoder: SDClipModel, x: Tensor, mask: Tensor, clip_layer: int | None, again: bool = False
) -> Tensor:
    """Returns the host's text context (B, L, C) of embeddings with positions (B, L, E), out of
    place, in their dtype.

    Arguments:
        mask: From `causal_mask`.
        clip_layer: The CLIP's clip skip (-1, -2, ...), None for the model's own.
        again: Whether layers are computed again in the backward pass rather than kept.
    """
    model, (count, normed) = encoder.transformer.text_model, layers_read(encoder, clip_layer)
    attention = optimized_attention_for_device(x.device, mask=True, small_input=True)
    for block in model.encoder.layers[:count]:
        inputs = block, x, mask, attention
        x = recomputed(text_layer, *inputs) if again else text_layer(*inputs)
    return model.final_layer_norm(x) if normed else x


def layers_read(encoder: SDClipModel, clip_layer: int | None) -> tuple[int, bool]:
    """Returns how many layers a context goes through, and whether the final norm follows.

    Arguments:
        clip_layer: The CLIP's clip skip (-1, -2, ...), None for the model's own.
    """
    count = encoder.num_layers
    layer, index, _ = encoder.options_default
    if clip_layer is not None:
        layer, index = ("last", None) if abs(clip_layer) > count else ("hidden", clip_layer)
    if layer == "last":
        return count, True
    return index % count + 1, encoder.layer_norm_hidden_state


def text_layer(block: nn.Module, x: Tensor, mask: Tensor, attention: Callable) -> Tensor:
    """Returns a text layer's output (B, L, E), its residuals out of place."""
    x = x + block.self_attn(block.layer_norm1(x), mask, attention)
    return x + block.mlp(block.layer_norm2(x))
