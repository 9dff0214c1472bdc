"""Memory of the backward pass: what is not kept for it but computed again in it.

SDXL at 1024 pixels, one sample, in bf16: the blocks' inner activations take about 8.5 GB, and of a
checkpoint in fp16 each of its weights, cast to bf16, is kept beside them, 5 GB. The blocks' inputs
take 0.4 GB. CLIP-G computes in float32: its weights, cast, take 2.7 GB. Computing all that a
second time costs about a third of a step, and changes no bit of the result.
"""

__all__ = ["recomputed", "recomputing"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.model_base import SDXL, BaseModel
from torch import Tensor
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputing(base: BaseModel) -> Iterator[None]:
    """While it lasts, SDXL's blocks keep their inputs alone; smaller UNets are left as they are."""
    blocks = [
        module
        for module in base.diffusion_model.modules()
        if isinstance(base, SDXL) and isinstance(module, BasicTransformerBlock | ResBlock)
    ]
    former = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = partial(recomputed, block.forward)
        yield
    finally:
        for block, own in zip(blocks, former, strict=True):
            del block.forward
            if own is not None:
                block.forward = own


def recomputed(forward: Callable[..., Tensor], *inputs: Any, **options: Any) -> Tensor:
    """Runs `forward`, keeping its inputs alone for the backward pass."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    if "transformer_options" in options:
        # The UNet notes in them where it is: the second time they must say what they say now.
        options["transformer_options"] = dict(options["transformer_options"])
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **options)
