"""Gradient checkpointing: the UNet's blocks keep their inputs alone and run once more in the
backward pass.

The host's UNet has none of its own. A block is one that keeps many tensors between its input and
its output: a residual block, and a spatial transformer, or each of its transformers where it
stacks several, so that one at a time is there twice.
"""

__all__ = ["checkpointed_blocks", "checkpointing"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def checkpointing(unet: nn.Module, enabled: bool) -> Iterator[None]:
    """Checkpoints the blocks of a UNet while the context lasts, if `enabled`."""
    blocks = checkpointed_blocks(unet) if enabled else []
    former = [vars(block).get("forward") for block in blocks]  # mostly the class's own
    try:
        for block in blocks:
            block.forward = run_again(block.forward)
        yield
    finally:
        for block, forward in zip(blocks, former, strict=True):
            vars(block).pop("forward", None)
            if forward is not None:
                block.forward = forward


def checkpointed_blocks(unet: nn.Module) -> list[nn.Module]:
    """Returns the blocks of a UNet that are worth running twice, none inside another."""
    blocks = []
    for module in unet.modules():
        if isinstance(module, ResBlock):
            blocks.append(module)
        elif isinstance(module, SpatialTransformer):
            stacked = list(module.transformer_blocks)
            blocks += stacked if len(stacked) > 1 else [module]
    return blocks


def run_again(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Returns a block's forward that saves its inputs alone where gradients come to them."""

    def checkpointed(*args, **kwargs) -> Tensor:
        tensors = (arg for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor))
        if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
            return forward(*args, **kwargs)
        # The UNet writes where it is into its options as it goes; the second run needs them as
        # they are now.
        args = [dict(arg) if isinstance(arg, dict) else arg for arg in args]
        kwargs = {k: dict(v) if isinstance(v, dict) else v for k, v in kwargs.items()}
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return checkpointed
