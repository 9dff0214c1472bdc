"""Memory of the backward pass: what is not kept for it but computed again in it.

SDXL at 1024 pixels, one sample, in bf16: the blocks' inner activations take about 5 GB, and of a
checkpoint in fp16 each of its weights, cast to bf16, is kept beside them, 5 GB. The blocks' inputs
and one block take 0.6 GB. CLIP-G computes in float32: its weights, cast, take 2.7 GB. Computing
all that a second time costs about a third of a step, and changes no bit of the result.
"""

__all__ = ["recomputed", "recomputes", "recomputing"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from comfy.model_base import BaseModel
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .unets import blocks_of, family_of


def recomputes(base: BaseModel, asked: bool) -> bool:
    """Returns whether a model's trainings compute blocks again: SDXL's always do."""
    return asked or family_of(base).recomputed


@contextmanager
def recomputing(base: BaseModel, asked: bool = False) -> Iterator[None]:
    """While it lasts, the UNet's blocks keep their inputs alone, if `asked` or on SDXL."""
    blocks = blocks_of(base.diffusion_model) if recomputes(base, asked) else []
    former = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = partial(recomputed, block.forward)
        yield
    finally:
        for block, own in zip(blocks, former, strict=True):
            vars(block).pop("forward", None)
            if own is not None:
                block.forward = own


def recomputed(forward: Callable[..., Tensor], *inputs: Any, **options: Any) -> Tensor:
    """Runs `forward`; keeps its inputs alone for the backward pass where that comes to them."""
    tensors = (x for x in (*inputs, *options.values()) if isinstance(x, Tensor))
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return forward(*inputs, **options)
    # The UNet notes in its options where it is: the second time they must say what they say now.
    inputs = [dict(x) if isinstance(x, dict) else x for x in inputs]
    options = {name: dict(x) if isinstance(x, dict) else x for name, x in options.items()}
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **options)
