"""The host's models while a training borrows them: loaded, frozen, given back as they were.

The executor runs nodes in inference mode, so the weights it loads are inference tensors that
autograd refuses; inside `trainable` each is swapped for one that it takes.
"""

__all__ = ["DTYPES", "compute_dtype", "trainable"]

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher

from ....sefi_core.errors import SettingsError, one_line
from ..checkpointing import recomputes, recomputing
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
    own = model.model.manual_cast_dtype or model.model.get_dtype()
    if own == torch.float16 and mm.should_use_bf16(model.load_device):
        return torch.bfloat16
    return own if own in (torch.float16, torch.bfloat16, torch.float64) else torch.float32


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
    loaded, text = static(model, dtype), still(encoder)
    swapped: list[Swap] = []
    was_training = getattr(mm, "in_training", None)
    cast = not recomputes(model.model, again)  # blocks computed again keep no casts

    def load() -> None:
        mm.load_models_gpu([loaded, text], memory_required=EVERYTHING, force_full_load=True)
        for patcher in (loaded, text):
            swapped.extend(freeze(patcher.model))

    def load_for_steps() -> None:
        load()
        if cast:
            swapped.extend(cast_weights(loaded.model.diffusion_model, dtype))
            swapped.extend(cast_weights(text.model, torch.float32))

    try:
        if was_training is not None:
            mm.in_training = True
        with torch.inference_mode(False), torch.enable_grad(), recomputing(model.model, again):
            load()
            yield loaded, load_for_steps
    finally:
        if was_training is not None:
            mm.in_training = was_training
        thaw(swapped)
        for borrowed, own in ((loaded, model), (text, encoder)):
            if borrowed is not own:
                forget(borrowed)


def still(model: ModelPatcher) -> ModelPatcher:
    """Returns the model, or a clone where it must be told to keep its weights in place.

    Newer hosts stream weights through buffers that autograd would read after they were overwritten.
    """
    if "disable_dynamic" in inspect.signature(model.clone).parameters:
        return model.clone(disable_dynamic=True)
    return model


def static(model: ModelPatcher, dtype: torch.dtype) -> ModelPatcher:
    """Returns the model with its weights in place, or a clone of it that computes in `dtype`."""
    model = still(model)
    if dtype != (model.model.manual_cast_dtype or model.model.get_dtype()):
        model = model.clone()
        model.set_model_compute_dtype(dtype)
    return model


def forget(clone: ModelPatcher) -> None:
    """Takes a clone off the host's list of loaded models, and its object patches off the model."""
    for i in reversed(range(len(mm.current_loaded_models))):
        if mm.current_loaded_models[i].model is clone:
            mm.current_loaded_models.pop(i).model_finalizer.detach()
            clone.detach()
