"""The host's models while a training borrows them: loaded, frozen, given back as they were.

The executor runs nodes in inference mode, so the weights it loads are inference tensors that
autograd refuses; inside `trainable` each is swapped for one that it takes.
"""

__all__ = ["DTYPES", "compute_dtype", "trainable"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher

from ....sefi_core.errors import SettingsError, one_line
from ..checkpointing import recomputes, recomputing
from .standing import forget
from .weights import Swap, cast_weights, freeze, thaw

EVERYTHING = 1e20  # bytes: makes the host unload all other models
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def compute_dtype(model: ModelPatcher, choice: str) -> torch.dtype:
    """Returns the dtype to compute in.

    "auto" is the model's own, but bf16 in place of fp16 where the device has it: token gradients
    are too small for fp16 without loss scaling.
    """
    if choice in list(DTYPES):
        return DTYPES[choice]
    if choice != "auto":
        raise SettingsError(
            f'dtype: "{one_line(str(choice))}" is unknown; choose auto, {", ".join(DTYPES)}.'
        )
    own = dtype_of(model)
    if own == torch.float16 and mm.should_use_bf16(model.load_device):
        return torch.bfloat16
    return own if own in (torch.float16, torch.bfloat16, torch.float64) else torch.float32


def dtype_of(model: ModelPatcher) -> torch.dtype:
    """Returns the dtype that a model computes in, loaded or not."""
    return model.get_model_object("manual_cast_dtype") or model.model.get_dtype()


@contextmanager
def trainable(
    model: ModelPatcher, encoder: ModelPatcher, dtype: torch.dtype, again: bool = False
) -> Iterator[tuple[ModelPatcher, Callable[[], None]]]:
    """Loads both models fully and makes them differentiable in their inputs.

    Arguments:
        again: Whether the UNet's blocks are computed again in the backward pass rather than kept;
            SDXL's are in any case.

    Yields:
        The loaded model, and a function to call before steps are taken, at first and after
        something else (a preview) may have moved weights.
    """
    loaded = computing_in(model, dtype)
    swapped: list[Swap] = []
    was_training = getattr(mm, "in_training", None)
    cast = not recomputes(loaded.model, again)  # blocks computed again keep no casts

    @torch.no_grad()  # the host patches LoRAs into weights in place
    def load() -> None:
        mm.load_models_gpu([loaded, encoder], memory_required=EVERYTHING, force_full_load=True)
        for patcher in (loaded, encoder):
            swapped.extend(freeze(patcher.model))

    @torch.no_grad()
    def load_for_steps() -> None:
        load()
        if cast:
            swapped.extend(cast_weights(loaded.model.diffusion_model, dtype))
            swapped.extend(cast_weights(encoder.model, torch.float32))

    try:
        if was_training is not None:
            mm.in_training = True
        with torch.inference_mode(False), torch.enable_grad(), recomputing(loaded.model, again):
            load()
            yield loaded, load_for_steps
    finally:
        if was_training is not None:
            mm.in_training = was_training
        thaw(swapped)
        if loaded is not model:
            forget(loaded)


def computing_in(model: ModelPatcher, dtype: torch.dtype) -> ModelPatcher:
    """Returns the model, or a clone of it where it is to compute in another dtype."""
    if dtype != dtype_of(model):
        model = model.clone()
        model.set_model_compute_dtype(dtype)
    return model
