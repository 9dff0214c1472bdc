"""How much memory a step keeps between its forward and its backward pass, counted.

With frozen weights autograd keeps, by operation: the input of a convolution or a norm; query, key,
value and output of an attention; the argument of an activation and both factors of a product; of a
linear layer only its weight. Nothing is kept before the first cross-attention, where the tokens
come in. For a picture of N pixels, C channels, L prompt tokens, H heads:

    residual block    3 C_in N + 3 C_out N
    transformer       3 C N (norms) + 4 C N (self) + 2 C N + 2 C L (cross) + 12 C N (GEGLU)
    compared maps     H N L of A_t in place of the cross-attention's output
"""
# ruff: noqa: E402 - the pack and the host can be imported after `ensure_pack` only

__all__ = [
    "activation_bytes",
    "cast_bytes",
    "loss_bytes",
    "recomputed_bytes",
    "text_bytes",
    "text_of",
    "unet_parts",
]

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from .pack import ensure_pack

ensure_pack()
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import (
    Downsample,
    ResBlock,
    UNetModel,
    Upsample,
)
from sefi_pack.sefi_core.maps import MAP_SIDE

GROUPS = 32  # of every GroupNorm; it keeps a mean and a deviation of each
Side = tuple[int, int]


@dataclass(frozen=True)
class Block:
    """What a part of the UNet keeps for one sample, in numbers.

    Attributes:
        kept: In the model's dtype.
        exact: In float32 whatever the dtype: maps, and the sums of norms and attentions.
        copied: Of these, those kept again in the model's dtype, where that is another.
        entry: Its input, which is all that is kept of a block that is computed again.
        again: Whether it is such a block, if there are any.
    """

    kept: int
    exact: int = 0
    copied: int = 0
    entry: int = 0
    again: bool = False

    def bytes(self, itemsize: int) -> int:
        copied = self.copied if itemsize < 4 else 0
        return (self.kept + copied) * itemsize + self.exact * max(4, itemsize)


def residual(inputs: int, outputs: int, pixels: int) -> Block:
    """Returns a residual block from `inputs` to `outputs` channels."""
    kept = 3 * (inputs + outputs) * pixels
    return Block(kept, 4 * GROUPS, entry=inputs * pixels, again=True)


def convolution(channels: int, pixels: int) -> Block:
    """Returns a convolution that reads `channels` x `pixels`: one that changes the size."""
    return Block(channels * pixels)


def head(channels: int, pixels: int) -> Block:
    """Returns the output's norm, activation and convolution."""
    return Block(3 * channels * pixels, 2 * GROUPS)


def spatial_transformer(
    channels: int,
    pixels: int,
    heads: int,
    prompt: int,
    compared: list[bool],
    linear: bool,
    first: bool = False,
) -> list[Block]:
    """Returns the parts of a spatial transformer.

    Arguments:
        prompt: L.
        compared: For each transformer it stacks, whether its maps are compared.
        linear: Whether its projections are linear layers rather than convolutions.
        first: Whether the tokens come in here: no gradient goes further up.
    """
    picture, words = channels * pixels, channels * prompt
    blocks = []
    for number, noted in enumerate(compared):
        fresh = first and number == 0
        kept = (13 if fresh else 13 + 6) * picture  # GEGLU and its norm; self-attention, two norms
        exact = 2 * pixels if fresh else (6 + heads) * pixels
        if noted:
            kept, copied = kept + words, heads * pixels * prompt
            exact += picture + words + copied  # query, keys, A_t
        else:
            kept, copied = kept + 2 * picture + 2 * words, 0
            exact += heads * pixels
        blocks.append(Block(kept, exact, copied, picture, again=len(compared) > 1))
    around = (0 if first else 1 if linear else 2) + (0 if linear else 1)
    shell = Block(around * picture, 0 if first else 2 * GROUPS)
    if len(compared) > 1:
        return [shell, *blocks]
    (only,) = blocks
    kept, exact = only.kept + shell.kept, only.exact + shell.exact
    return [Block(kept, exact, only.copied, picture, again=True)]


def activation_bytes(blocks: Iterable[Block], batch: int, itemsize: int) -> int:
    """Returns what the UNet keeps for `batch` samples."""
    return batch * sum(block.bytes(itemsize) for block in blocks)


def recomputed_bytes(blocks: Iterable[Block], batch: int, itemsize: int) -> int:
    """Returns what it keeps when its blocks are computed again: their inputs, and all of the one
    whose turn it is.
    """
    blocks = list(blocks)
    largest = max((block.bytes(itemsize) for block in blocks if block.again), default=0)
    rest = sum(b.entry * itemsize if b.again else b.bytes(itemsize) for b in blocks)
    return batch * (rest + largest)


def loss_bytes(heads: Iterable[int], prompt: int, batch: int) -> int:
    """Returns what the attention loss keeps: the difference of maps (B, H, L, 32, 32), once if all
    compared layers have the same number of heads, else for each.
    """
    heads = list(heads)
    counted = heads[:1] if len(set(heads)) == 1 else heads
    return 4 * batch * sum(counted) * prompt * MAP_SIDE**2


def text_bytes(
    width: int, hidden: int, heads: int, layers: int, prompts: int, prompt: int, again: bool
) -> int:
    """Returns what a text encoder keeps for prompts of `prompt` tokens, float32, where its
    attention keeps its maps; with layers computed `again`, their inputs and one layer.
    """
    layer = 5 * width + 2 * hidden + heads * prompt + 4
    kept = layers * width + layer if again else layers * layer
    return 4 * prompts * prompt * (kept + width)  # the last norm's input


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
