"""A hash of any value by what it holds: numbers, tensors of every kind, functions with what they
have closed over, objects with their attributes.

Patches, adapters and injections that other nodes hang on a model are such values. Addresses, names
of files and other things that differ between two loads of the same do not count.
"""

__all__ = ["Content"]

import enum
import functools
import hashlib
import inspect
import types
import weakref
from collections.abc import Iterable, Mapping

import numpy
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..fingerprint import digest_of

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.Size, slice)
NAMED = (type, types.BuiltinFunctionType, types.ModuleType)
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
# Of tensors that carry patches of their own: the patcher's are read instead. A mark that is lost on
# the way to a card.
PASSING = {"patches", "is_largest_weight"}


class Content:
    """A hash that values are added to, in an order that counts.

    Arguments:
        names: Modules of the model, by id: they count by their name, as they are read elsewhere.

    Attributes:
        unread: The kinds of values that could not be read, so that the hash does not hold them.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names, self.unread = names, set()
        self.digest = hashlib.sha256()
        # By id, its number and itself: alive, so that no id is used twice.
        self.seen: dict[int, tuple[int, object]] = {}

    def put(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.digest.update(f"{len(data)}:".encode() + data)

    def add(self, *values: object) -> None:
        for value in values:
            self.add_one(value)

    def add_one(self, value: object) -> None:
        if isinstance(value, enum.Enum):
            self.put(f"{kind_of(value)}.{value.name}")
        elif isinstance(value, PLAIN):
            self.put(f"{type(value).__name__} {value!r}")
        elif isinstance(value, torch.device):
            self.put("device")
        elif isinstance(value, NAMED):
            self.put(f"{getattr(value, '__module__', '')}.{value.__name__}")
        elif id(value) in self.names:
            self.put(f"module {self.names[id(value)]}")
        elif isinstance(value, Tensor):
            self.add_tensor(value)
        elif id(value) in self.seen:
            self.put(f"again {self.seen[id(value)][0]}")
        else:
            self.seen[id(value)] = len(self.seen), value
            self.put(kind_of(value))
            self.add_compound(value)

    def add_compound(self, value: object) -> None:
        match value:
            case Mapping():
                for key, item in value.items():
                    self.add(key if isinstance(key, PLAIN) else kind_of(key), item)
            case set() | frozenset():
                self.add(*sorted(map(str, value)))
            case list() | tuple():
                self.add(len(value), *value)
            case functools.partial():
                self.add(value.func, value.args, value.keywords)
            case types.MethodType():
                self.add(value.__func__, value.__self__)
            case types.FunctionType():
                self.add(value.__qualname__, value.__code__, value.__defaults__)
                self.add(value.__kwdefaults__, inspect.getclosurevars(value).nonlocals)
            case types.CodeType():
                self.add(value.co_code, value.co_names, value.co_consts)
            case numpy.ndarray():
                self.add(str(value.dtype), value.shape, value.tobytes())
            case weakref.ref():
                pass
            case _:
                self.add_object(value)

    def add_object(self, value: object) -> None:
        if isinstance(value, nn.Module) and not isinstance(value, torch.jit.ScriptModule):
            self.add_module(value)
        elif hasattr(value, "original_forward") and hasattr(value, "adapter"):
            self.add_bypass(value)
        elif hasattr(value, "create_injections") and hasattr(value, "hooks"):
            self.add(value.hooks)
        elif hasattr(value, "loaded_keys") and hasattr(value, "weights"):
            self.add(value.weights)  # of an adapter; where it has been applied does not count
        elif hasattr(value, "__dict__") and not isinstance(value, ModelPatcher):
            self.add(sorted_by_name(vars(value)))
        else:
            self.unread.add(kind_of(value))

    def add_bypass(self, hook: object) -> None:
        """Adds an adapter beside a layer. Applying it puts its weights into the layer's dtype."""
        own = getattr(getattr(hook.module, "weight", None), "dtype", None)
        dtype = getattr(hook.module, "weight_comfy_model_dtype", own)
        dtype = dtype if dtype in FLOATS else None
        weights = getattr(hook.adapter, "weights", hook.adapter)
        if isinstance(weights, list | tuple):
            weights = [w.to(dtype) if isinstance(w, Tensor) and dtype else w for w in weights]
        self.add(hook.module, kind_of(hook.adapter), weights, hook.multiplier)

    def add_module(self, module: nn.Module) -> None:
        """Adds a module that is none of the model's."""
        for name, part in module.named_modules():
            self.add(name, kind_of(part), part.extra_repr())
        self.add_tensors(named_tensors(module))

    def add_tensors(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        for name, tensor in tensors:
            self.put(name)
            self.add_tensor(tensor)

    def add_tensor(self, tensor: Tensor, dtype: torch.dtype | None = None) -> None:
        """Adds a tensor as it is in `dtype`; of a type of its own, by what that is made of."""
        if type(tensor) in (Tensor, nn.Parameter):
            self.put(digest_of(tensor, dtype))
            return
        self.put(kind_of(tensor))
        if hasattr(tensor, "__tensor_flatten__"):
            inner, context = tensor.__tensor_flatten__()
            self.add(*(getattr(tensor, name) for name in inner), context)
            return
        self.put(digest_of(tensor))
        kept = {n: v for n, v in vars(tensor).items() if n not in PASSING and n[:1] != "_"}
        self.add(sorted_by_name(kept))

    def hexdigest(self) -> str:
        return self.digest.hexdigest()[:32]


def kind_of(value: object) -> str:
    """Returns a value's type. The host chooses among its own classes of a layer by device."""
    if isinstance(value, nn.Module) and type(value).__module__ == "comfy.ops":
        return type(value).__name__
    return f"{type(value).__module__}.{type(value).__qualname__}"


def sorted_by_name(values: Mapping[str, object]) -> dict[str, object]:
    return dict(sorted(values.items()))


def named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Returns every parameter and buffer by name, sorted."""
    found = {**dict(module.named_parameters(remove_duplicate=False))}
    found |= dict(module.named_buffers(remove_duplicate=False))
    return sorted(found.items())
