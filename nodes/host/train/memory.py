"""The memory that a training is going to need, told before it starts."""

__all__ = ["memory_needed", "unet_parts", "what_memory_needs"]

from collections.abc import Iterator

import comfy.model_management as mm
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import (
    Downsample,
    ResBlock,
    UNetModel,
    Upsample,
)
from torch import nn

from ....sefi_core.training.learner import Learner
from ....sefi_core.training.memory import (
    SLACK,
    Block,
    activation_bytes,
    convolution,
    head,
    loss_bytes,
    memory_sentence,
    recomputed_bytes,
    residual,
    spatial_transformer,
    text_bytes,
)
from ..text.encoder import HostTextEncoder
from .backbone import HostBackbone

Side = tuple[int, int]
GENERATOR_COPIES = 3  # gradients and Adam's two moments


def what_memory_needs(
    backbone: HostBackbone, encoder: HostTextEncoder, learner: Learner, side: Side
) -> str:
    """Returns the sentence for the artist; `side` is the latents' (h, w)."""
    needed = memory_needed(backbone, encoder, learner, side, encoder.again)
    thrifty = None if encoder.again else memory_needed(backbone, encoder, learner, side, True)
    return memory_sentence(needed, thrifty, int(mm.get_free_memory(learner.device)))


def memory_needed(
    backbone: HostBackbone, encoder: HostTextEncoder, learner: Learner, side: Side, again: bool
) -> int:
    """Returns the bytes that the steps take beside the loaded models, about."""
    config, unet = learner.config, backbone.model.model.diffusion_model
    noted = set(backbone.layers) if config.attention_loss != "off" else set()
    parts = list(unet_parts(unet, side, len(encoder.token_mask("off")), noted))
    count = recomputed_bytes if again else activation_bytes
    kept = count(parts, config.batch_size, backbone.dtype.itemsize)
    kept += loss_bytes(
        [key.shape[1] for layer, key in backbone.reference_keys.items() if layer in noted],
        len(encoder.token_mask("off")),
        config.batch_size,
    )
    for model in encoder.encoders.values():
        prompts = 2 * min(config.batch_size, config.stages * encoder.count)
        kept += text_of(model.transformer.text_model, prompts, again)
    learned = sum(parameter.nbytes for parameter in learner.generators.parameters())
    if not again:
        kept += cast_bytes(unet, backbone.dtype)
    return int(SLACK * kept) + GENERATOR_COPIES * learned


def cast_bytes(module: nn.Module, dtype: torch.dtype) -> int:
    """Returns what weights of another dtype take: the host casts them for each operation, and
    autograd keeps the casts, but for those in blocks that it computes again.
    """
    return sum(w.numel() for w in module.parameters() if w.dtype != dtype) * dtype.itemsize


def text_of(model: nn.Module, prompts: int, again: bool) -> int:
    """Returns what a text model keeps for prompts that go through it as one batch."""
    layers = model.encoder.layers
    first = layers[0].mlp.fc1
    shape = first.in_features, first.out_features, layers[0].self_attn.heads, len(layers)
    positions = len(model.embeddings.position_embedding.weight)
    kept = text_bytes(*shape, prompts, positions, again)
    return kept if again else kept + cast_bytes(layers, torch.float32)


def unet_parts(unet: UNetModel, side: Side, prompt: int, noted: set[tuple]) -> Iterator[Block]:
    """Yields what the UNet's layers keep, in the order they run, from where the tokens come in.

    Arguments:
        side: Of the latents.
        prompt: L.
        noted: The layers (block, number, index) whose maps are compared.
    """
    started, skipped = False, []
    for block, number, layer in layers_of(unet):
        if block == "output" and layer is unet.output_blocks[number][0]:
            skipped.pop()
        if isinstance(layer, SpatialTransformer):
            compared = [(block, number, i) in noted for i in range(len(layer.transformer_blocks))]
            heads = layer.transformer_blocks[0].n_heads
            shape = layer.in_channels, side[0] * side[1], heads, prompt, compared, layer.use_linear
            yield from spatial_transformer(*shape, first=not started)
            started = True
        elif isinstance(layer, ResBlock) and started:
            yield residual(layer.channels, layer.out_channels, side[0] * side[1])
        elif isinstance(layer, Downsample | Upsample):
            before, side = side, resized(layer, side, skipped)
            reads = before if isinstance(layer, Downsample) else side
            if started:
                yield convolution(layer.channels, reads[0] * reads[1])
        if block == "input" and layer is unet.input_blocks[number][-1]:
            skipped.append(side)
    yield head(unet.out[0].num_channels, side[0] * side[1])


def layers_of(unet: UNetModel) -> Iterator[tuple[str, int, nn.Module]]:
    """Yields (block, number, layer) as the UNet runs them."""
    for number, layers in enumerate(unet.input_blocks):
        yield from (("input", number, layer) for layer in layers)
    yield from (("middle", 0, layer) for layer in unet.middle_block or ())
    for number, layers in enumerate(unet.output_blocks):
        yield from (("output", number, layer) for layer in layers)


def resized(layer: nn.Module, side: Side, skipped: list[Side]) -> Side:
    """Returns the sides after a layer: half of them rounded up, or those of the next skip."""
    if isinstance(layer, Downsample):
        return (side[0] + 1) // 2, (side[1] + 1) // 2
    return skipped[-1] if skipped else (2 * side[0], 2 * side[1])
