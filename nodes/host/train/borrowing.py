"""The host's models while a training borrows them: loaded, frozen, given back as they were.

The executor runs nodes in inference mode, so the weights it loads are inference tensors that
autograd refuses; inside `trainable` each is swapped for one that it takes.
"""

__all__ = ["DTYPES", "Hold", "compute_dtype", "trainable"]

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher

from ....sefi_core.errors import SettingsError, one_line
from ..checkpointing import recomputes, recomputing
from .standing import forget
from .weights import (
    Hung,
    Swap,
    cast_weights,
    compute_quantised,
    freeze,
    freeze_adapters,
    thaw,
    thaw_adapters,
)

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


class Hold:
    """The weights of both models, in place for steps from each call until they are released.

    Whatever lets the host move or patch weights releases them first: it loads in the mode of the
    caller, as ever, since quantised weights made in one cannot be moved in the other.
    """

    def __init__(
        self, model: ModelPatcher, encoder: ModelPatcher, dtype: torch.dtype, cast: bool
    ) -> None:
        self.model, self.encoder, self.dtype, self.cast = model, encoder, dtype, cast
        self.mode = torch.is_inference_mode_enabled()
        self.swapped: list[Swap] = []
        self.hung: list[Hung] = []

    def __call__(self) -> None:
        """Loads, freezes and casts, for steps."""
        self.load()
        if self.cast:
            with torch.no_grad():
                self.swapped += cast_weights(self.model.model.diffusion_model, self.dtype)
                self.swapped += cast_weights(self.encoder.model, torch.float32)

    def load(self) -> None:
        self.release()
        both = [self.model, self.encoder]
        with torch.inference_mode(self.mode), torch.no_grad():  # LoRAs are patched in, in place
            mm.load_models_gpu(both, memory_required=EVERYTHING, force_full_load=True)
        for patcher in both:
            self.swapped += freeze(patcher.model)
            self.hung += freeze_adapters(patcher.model)
        self.swapped += compute_quantised(self.model.model.diffusion_model, self.dtype)

    def release(self) -> None:
        """Gives the weights back, wherever they are by now."""
        thaw(self.swapped)
        thaw_adapters(self.hung)


@contextmanager
def trainable(
    model: ModelPatcher, encoder: ModelPatcher, dtype: torch.dtype, again: bool = False
) -> Iterator[tuple[ModelPatcher, Hold]]:
    """Loads both models fully and makes them differentiable in their inputs.

    Arguments:
        again: Whether the UNet's blocks are computed again in the backward pass rather than kept;
            SDXL's are in any case.

    Yields:
        The loaded model, and what is to be called before steps are taken.
    """
    loaded = computing_in(model, dtype)
    cast = not recomputes(loaded.model, again)  # blocks computed again keep no casts
    hold = Hold(loaded, encoder, dtype, cast)
    was_training = getattr(mm, "in_training", None)
    try:
        if was_training is not None:
            mm.in_training = True
        with torch.inference_mode(False), torch.enable_grad(), recomputing(loaded.model, again):
            hold.load()
            yield loaded, hold
    finally:
        if was_training is not None:
            mm.in_training = was_training
        hold.release()
        if loaded is not model:
            forget(loaded)


def computing_in(model: ModelPatcher, dtype: torch.dtype) -> ModelPatcher:
    """Returns the model, or a clone of it where it is to compute in another dtype."""
    if dtype != dtype_of(model):
        model = model.clone()
        model.set_model_compute_dtype(dtype)
    return model
