"""How much memory a step keeps between its forward and its backward pass, counted.

With frozen weights autograd keeps, by operation: the input of a convolution or a norm; query, key,
value and output of an attention; the argument of an activation and both factors of a product; of a
linear layer only its weight. Nothing is kept before the first cross-attention, where the tokens
come in. For a picture of N pixels, C channels, L prompt tokens, H heads:

    residual block    3 C_in N + 3 C_out N
    transformer       3 C N (norms) + 4 C N (self) + 2 C N + 2 C L (cross) + 12 C N (GEGLU)
    compared maps     H N L of A_t in place of the cross-attention's output
"""

__all__ = [
    "Block",
    "activation_bytes",
    "convolution",
    "head",
    "loss_bytes",
    "memory_sentence",
    "recomputed_bytes",
    "residual",
    "spatial_transformer",
    "text_bytes",
]

from collections.abc import Iterable
from dataclasses import dataclass

from ..maps import MAP_SIDE

GIB = 2**30
GROUPS = 32  # of every GroupNorm; it keeps a mean and a deviation of each
SLACK = 1.15  # what comes and goes: gradients on their way, buffers of convolutions


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


def memory_sentence(needed: int, thrifty: int | None, free: int) -> str:
    """Returns what to tell an artist before a training starts.

    Arguments:
        needed: Bytes that the steps need beside the loaded models.
        thrifty: The same with gradient checkpointing; None if it is on already.
        free: Bytes free on the device.
    """
    said = f"about {gib(needed)} GB needed for the steps, {gib(free)} GB free"
    if needed <= free:
        return said
    if thrifty is None:
        return f"{said}; lower batch_size or resolution, or set dtype to bf16, if it runs out"
    more = "" if thrifty <= free else ", and lower batch_size or resolution"
    return f"{said}; turn on gradient_checkpointing to need {gib(thrifty)} GB{more}"


def gib(count: int) -> str:
    return f"{count / GIB:.1f}"
