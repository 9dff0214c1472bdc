"""Weights that autograd takes, in place of those that the executor's inference mode has made.

An inference tensor is swapped for an ordinary one on the same storage, without a copy; of a
quantised one, that goes for each tensor that it is made of. Where the host computes in another
dtype than it stores, it casts each weight for each operation, and autograd keeps the cast: there
the weights are cast once, for as long as steps are taken.
"""

__all__ = [
    "Hung",
    "Swap",
    "cast_weights",
    "compute_quantised",
    "freeze",
    "freeze_adapters",
    "is_tainted",
    "thaw",
    "thaw_adapters",
]

import torch
from torch import Tensor, nn

PLAIN = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Swap = tuple[dict, str, Tensor, bool, Tensor | None]
"""(slots, name, former tensor, its gradient flag, the copy in its place if there is one)."""
Hung = tuple[object, tuple, tuple]
"""(adapter, its former weights, those in their place)."""


def freeze(module: nn.Module) -> list[Swap]:
    """Makes every weight ordinary and gradient-free; returns what it changed."""
    changed = []
    for part in module.modules():
        for slots in (part._parameters, part._buffers):
            for name, tensor in slots.items():
                if tensor is None:
                    continue
                if is_tainted(tensor):
                    plain = slots[name] = like(tensor, alias(tensor))
                    copy = None if same_storage(plain, tensor) else plain
                    changed.append((slots, name, tensor, tensor.requires_grad, copy))
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


def compute_quantised(module: nn.Module, dtype: torch.dtype) -> list[Swap]:
    """Swaps the host's quantised weights for ones on the same storage that are computed in `dtype`,
    where the host's own cast would leave them in another; returns what it changed.
    """
    changed = []
    for part in module.modules():
        for name, weight in part._parameters.items():
            if getattr(weight, "_layout_params", {}).get("orig_dtype", dtype) != dtype:
                plain = alias(weight)
                plain._layout_params["orig_dtype"] = dtype
                swapped = part._parameters[name] = like(weight, plain)
                changed.append((part._parameters, name, weight, weight.requires_grad, swapped))
    return changed


def thaw(changed: list[Swap]) -> None:
    """Undoes `freeze` and `cast_weights`, in reverse; a weight that the host has moved since keeps
    its new place.
    """
    for slots, name, former, flag, copy in reversed(changed):
        now = slots[name]
        if now is former:
            former.requires_grad_(flag)
        elif now is copy and now.device == former.device:
            slots[name] = former
        elif now is copy:
            slots[name] = like(former, former.to(now.device))
        elif now.device == former.device and same_storage(now, former):
            slots[name] = former
    changed.clear()


def freeze_adapters(module: nn.Module) -> list[Hung]:
    """Makes the weights ordinary of adapters that stand before a module's forward (bypass LoRAs);
    returns what it changed.
    """
    changed = []
    for part in module.modules():
        adapter = getattr(getattr(part.forward, "__self__", None), "adapter", None)
        former = getattr(adapter, "weights", None)
        if isinstance(former, tuple) and any(map(is_tainted_tensor, former)):
            plain = tuple(alias(w) if is_tainted_tensor(w) else w for w in former)
            adapter.weights = plain
            changed.append((adapter, former, plain))
    return changed


def is_tainted_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and is_tainted(value)


def thaw_adapters(changed: list[Hung]) -> None:
    """Undoes `freeze_adapters`; weights that the host has moved since keep their new place."""
    for adapter, former, plain in changed:
        if adapter.weights is plain:  # type: ignore[attr-defined]
            adapter.weights = former  # type: ignore[attr-defined]
    changed.clear()


def like(former: Tensor, tensor: Tensor) -> Tensor:
    """Returns a tensor as a parameter if the former one was, with its gradient flag off."""
    return nn.Parameter(tensor, requires_grad=False) if isinstance(former, nn.Parameter) else tensor


def parts_of(tensor: Tensor) -> dict[str, Tensor]:
    """Returns the tensors that one of a quantised type is made of, by name; none of a plain one."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return {}
    return {name: getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]}


def same_storage(one: Tensor, other: Tensor) -> bool:
    parts, others = parts_of(one).values(), parts_of(other).values()
    if not parts or not others:
        return type(one) is type(other) and one.data_ptr() == other.data_ptr()
    return all(same_storage(*pair) for pair in zip(parts, others, strict=True))


def is_tainted(tensor: Tensor) -> bool:
    """Whether autograd refuses the tensor, or one that it is made of; one moved out of inference
    mode may only fail at its version counter.
    """
    if tensor.is_inference() or any(is_tainted(part) for part in parts_of(tensor).values()):
        return True
    try:
        return tensor._version < 0
    except RuntimeError:
        return True


def alias(tensor: Tensor) -> Tensor:
    """Returns an ordinary tensor of the same type on the same storage; a copy if it has none."""
    if parts := parts_of(tensor):
        context = tensor.__tensor_flatten__()[1]
        inner = {name: alias(part) for name, part in parts.items()}
        return type(tensor).__tensor_unflatten__(inner, context, tensor.size(), tensor.stride())
    if type(tensor) not in (Tensor, nn.Parameter):
        return alias_of_own_type(tensor)
    if tensor.is_meta:
        return torch.empty_strided(
            tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device
        )
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(
        tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride()
    )


def alias_of_own_type(tensor: Tensor) -> Tensor:
    """Returns an ordinary tensor of a type that other packs have made (GGUF's), with the attributes
    that it has: what is written on one is read on the other.
    """
    plain = tensor.as_subclass(Tensor)
    if not (plain.is_meta or plain.untyped_storage().nbytes()):
        return tensor.clone()
    made = alias(plain).as_subclass(type(tensor))
    made.__dict__ = tensor.__dict__
    return made
