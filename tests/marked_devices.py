"""Two cards on a machine without any: real tensors that say where they are.

    with Marked():
        x = x.to(FIRST)

Under the mode a tensor's `device` is its mark, `to` and factories set it, results have that of
their operands, and operands of unlike marks are refused, as cards do. Numbers are those of the CPU.
"""

__all__ = ["FIRST", "SECOND", "Marked", "marked"]

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

CPU, FIRST, SECOND = (
    torch.device("cpu"),
    torch.device("privateuseone", 0),
    torch.device("privateuseone", 1),
)


def marked(module: nn.Module, device: torch.device) -> nn.Module:
    """Marks all weights and buffers of a module."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.mark = device
    return module


def place(tensor: Tensor) -> torch.device:
    return getattr(tensor, "mark", CPU)


def sent(tensor: Tensor, *args, **kwargs) -> Tensor:
    """What `Tensor.to` does, to a mark."""
    target, rest = kwargs.pop("device", None), []
    kwargs.pop("non_blocking", None)
    for arg in args:
        if isinstance(arg, Tensor):
            target, arg = place(arg), arg.dtype
        if isinstance(arg, torch.device | str):
            target = torch.device(arg)
        elif not isinstance(arg, bool):
            rest.append(arg)
    target = place(tensor) if target is None else target
    moved = tensor.to(*rest, **kwargs) if rest or kwargs else tensor
    if target != place(tensor) and moved is tensor:
        moved = tensor.clone()
    moved.mark = target
    return moved


class Marked(TorchFunctionMode):
    """Refuses operands that are marked for different devices."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function == Tensor.device.__get__:
            return place(args[0])
        if function is Tensor.to:
            return sent(*args, **kwargs)
        if function is Tensor.cpu:
            return sent(args[0], CPU)
        device = kwargs.pop("device", None)
        operands = args[:1] if function is Tensor.__getitem__ else (args, kwargs)
        tensors = [x for x in tree_leaves(operands) if isinstance(x, Tensor)]
        found = {place(x) for x in tensors if x.ndim}
        if len(found) > 1 and function is not Tensor.copy_:
            raise RuntimeError(f"{function.__name__}: operands on different devices: {found}")
        where = torch.device(device) if device is not None else next(iter(found), None)
        if function is Tensor.copy_ or where is None:
            where = place(tensors[0]) if tensors else CPU

        def mark(result: Tensor) -> Tensor:
            result.mark = where
            return result

        return tree_map_only(Tensor, mark, function(*args, **kwargs))
