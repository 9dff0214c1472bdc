"""Weights that autograd takes, in place of those that the executor's inference mode has made.

An inference tensor is swapped for an ordinary one on the same storage, without a copy. Where the
host computes in another dtype than it stores, it casts each weight for each operation, and autograd
keeps the cast: there the weights are cast once, for as long as steps are taken.
"""

__all__ = ["Swap", "cast_weights", "freeze", "is_tainted", "thaw"]

import torch
from torch import Tensor, nn

PLAIN = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Swap = tuple[dict, str, Tensor, bool, Tensor | None]
"""(slots, name, former tensor, its gradient flag, the copy in its place if there is one)."""


def freeze(module: nn.Module) -> list[Swap]:
    """Makes every weight ordinary and gradient-free; returns what it changed."""
    changed = []
    for part in module.modules():
        for slots in (part._parameters, part._buffers):
            for name, tensor in slots.items():
                if tensor is None:
                    continue
                if is_tainted(tensor):
                    changed.append((slots, name, tensor, tensor.requires_grad, None))
                    plain = alias(tensor)
                    slots[name] = (
                        nn.Parameter(plain, requires_grad=False)
                        if slots is part._parameters
                        else plain
                    )
                elif tensor.requires_grad:
                    changed.append((slots, name, tensor, True, None))
                    tensor.requires_grad_(False)
    return changed


def cast_weights(module: nn.Module, dtype: torch.dtype) -> list[Swap]:
    """Swaps weights of another plain dtype for copies in `dtype`, but for token tables; returns
    what it changed.
    """
    changed = []
    for part in module.modules():
        if isinstance(part, nn.Embedding) or getattr(part, "weight_function", ()):
            continue  # of a table few rows are read; what changes weights on the way does the rest
        for name, weight in part._parameters.items():
            if type(weight) is nn.Parameter and weight.dtype in PLAIN and weight.dtype != dtype:
                copy = nn.Parameter(weight.to(dtype), requires_grad=False)
                changed.append((part._parameters, name, weight, weight.requires_grad, copy))
                part._parameters[name] = copy
    return changed


def thaw(changed: list[Swap]) -> None:
    """Undoes `freeze` and `cast_weights`, in reverse; a weight that the host has moved since keeps
    its new place.
    """
    for slots, name, former, flag, copy in reversed(changed):
        now = slots[name]
        if now is former:
            now.requires_grad_(flag)
        elif now is copy and now.device == former.device:
            slots[name] = former
        elif now is copy:
            slots[name] = nn.Parameter(former.to(now.device), requires_grad=flag)
        elif now.device == former.device and now.data_ptr() == former.data_ptr():
            slots[name] = former
    changed.clear()


def is_tainted(tensor: Tensor) -> bool:
    """Whether autograd refuses the tensor; one moved out of inference mode may only fail at its
    version counter.
    """
    if tensor.is_inference():
        return True
    try:
        return tensor._version < 0
    except RuntimeError:
        return True


def alias(tensor: Tensor) -> Tensor:
    """Returns an ordinary tensor on the same storage; a copy where the tensor type has no plain
    storage.
    """
    if type(tensor) not in (Tensor, nn.Parameter):
        return tensor.clone()
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(
        tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride()
    )
