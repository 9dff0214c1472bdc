"""Sending a tensor to a device without waiting for it."""

__all__ = ["sent"]

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor on a device. CUDA takes a copy of the bytes at once and puts them in its
    queue; an ordinary `to` would wait until the queue is empty.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")
