"""The memory that a training's steps need, measured by the test before the first of them."""

__all__ = ["measured", "running_out_told", "what_memory_needs"]

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management as mm
import torch

from ....sefi_core.errors import TrainingError
from ....sefi_core.training.learner import Learner

GIB = 2**30
GENERATOR_COPIES = 3  # gradients and Adam's two moments


@contextmanager
def measured(device: torch.device) -> Iterator[list[int]]:
    """Yields a list that holds, once all is done, the most bytes that were taken at a time; it
    stays empty where PyTorch keeps no account of a device, as of the CPU.
    """
    account, peak = getattr(torch, device.type, None), []
    if not hasattr(account, "max_memory_allocated"):
        yield peak
        return
    account.reset_peak_memory_stats(device)
    before = account.memory_allocated(device)
    yield peak
    peak.append(account.max_memory_allocated(device) - before)


def what_memory_needs(sample: int, learner: Learner, again: bool) -> str:
    """Returns the sentence for the artist.

    Arguments:
        sample: Bytes that a step of one sample takes beside the loaded models.
        again: Whether blocks are computed again in the backward pass already.
    """
    learned = sum(parameter.nbytes for parameter in learner.generators.parameters())
    needed = sample * learner.config.batch_size + GENERATOR_COPIES * learned
    free = int(mm.get_free_memory(learner.device))
    said = f"about {needed / GIB:.1f} GB needed for the steps, {free / GIB:.1f} GB free"
    return said if needed <= free else f"{said}; {what_helps(again)}, if it runs out"


def what_helps(again: bool) -> str:
    """Returns what an artist can do about memory that runs out."""
    first = "" if again else "turn on gradient_checkpointing, "
    return f"{first}lower batch_size or resolution, or set dtype to bf16"


@contextmanager
def running_out_told(again: bool) -> Iterator[None]:
    """Says what helps where the device's memory runs out, as a TrainingError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"model: the device ran out of memory for the steps; {what_helps(again)}."
        ) from error
