"""The memory that a training's steps need, measured by the test before the first of them."""

__all__ = ["how_many_fit", "measured", "running_out_told", "what_memory_needs"]

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management as mm
import torch

from ....sefi_core.errors import TrainingError
from ....sefi_core.training.learner import Learner

GIB = 2**30
MOST_AT_ONCE = {"cuda": 32, "cpu": 8}  # more of them make a step no cheaper for each
SHARE = 0.85  # of the memory that is free
CPU_SAMPLE = 2.2 * GIB / 4096  # bytes by latent pixel of a step of SD 1.5 in float32, measured
GENERATOR_COPIES = 3  # gradients and Adam's two moments
SLACK = 1.15  # what a step has beside the test: maps of the size that the loss compares


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
    needed = bytes_of_steps(sample, learner)
    free = int(mm.get_free_memory(learner.device))
    said = f"about {needed / GIB:.1f} GB needed for the steps, {free / GIB:.1f} GB free"
    return said if needed <= free else f"{said}; {what_helps(again)}, if it runs out"


def bytes_of_steps(sample: int, learner: Learner) -> int:
    """Returns what a learner's steps take, of `sample` bytes a sample."""
    learned = sum(parameter.nbytes for parameter in learner.generators.parameters())
    return int(SLACK * sample * learner.config.batch_size) + GENERATOR_COPIES * learned


def how_many_fit(peak: list[int], learner: Learner, latent: torch.Tensor) -> int:
    """Returns how many people may learn at once, at least one.

    Arguments:
        peak: The bytes that a step of one sample took, if the device keeps an account.
        latent: What they learn from, (..., h, w).
    """
    sample = peak[0] if peak else int(CPU_SAMPLE * latent.shape[-1] * latent.shape[-2])
    fit = int(SHARE * mm.get_free_memory(learner.device)) // bytes_of_steps(sample, learner)
    return max(1, min(fit, MOST_AT_ONCE.get(learner.device.type, MOST_AT_ONCE["cuda"])))


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
