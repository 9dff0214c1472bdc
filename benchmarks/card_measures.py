"""What a device does in some work: its most memory, what waits for it, how long it idles."""

__all__ = ["idle", "idle_share", "most_bytes", "waits"]

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Each of these names stops Python until the card has caught up.
WAITS = (
    "aten::_local_scalar_dense", "aten::nonzero", "cudaStreamSynchronize", "cudaDeviceSynchronize",
    "cudaEventSynchronize", "cudaMemcpy",
)  # fmt: skip

Work = Callable[[], object]


class Allocations(TorchDispatchMode):
    """Counts the bytes of what operations make, as the allocator of a card counts them; what a
    kernel takes and gives back within itself is not seen.

    Attributes:
        most: The most there was at once, of what was made while this mode lasts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(
        self, function: Callable, types: Iterable, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        before = {storage(x)._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = function(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and storage(made)._cdata not in before | self.known.keys():
                self.note(storage(made))
        return result

    def note(self, made: torch.UntypedStorage) -> None:
        key, size = made._cdata, made.nbytes()

        def gone(_: weakref.ref) -> None:
            if self.known.pop(key, None) is not None:
                self.now -= size

        self.known[key] = weakref.ref(made, gone)
        self.now += size
        self.most = max(self.most, self.now)


def storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def most_bytes(work: Work, device: torch.device) -> int:
    """Returns the most bytes that some work takes beside what is there before it."""
    if device.type != "cuda":
        with Allocations() as counted:
            work()
        return counted.most
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def recorded(work: Work) -> profile:
    kinds = [ProfilerActivity.CPU]
    kinds += [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    with profile(activities=kinds) as found:
        work()
    return found


def waits(step: Work, fewer: int, more: int) -> dict[str, float]:
    """Returns how often one step waits for the device, by the profiler's name of what waits.

    Two records are compared, since to record waits by itself.
    """
    counts = [dict.fromkeys(WAITS, 0) for _ in range(2)]
    for found, steps in zip(counts, (fewer, more), strict=True):
        for event in recorded(lambda n=steps: [step() for _ in range(n)]).key_averages():
            if event.key in found:
                found[event.key] += event.count
    return {name: (counts[1][name] - counts[0][name]) / (more - fewer) for name in WAITS}


def idle_share(step: Work, steps: int) -> float:
    """Returns the share of some steps' time in which the card has nothing to do."""
    found = recorded(lambda: [step() for _ in range(steps)])
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in found.events()
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    )
    return idle(spans)


def idle(spans: list[tuple[float, float]]) -> float:
    """Returns the share of the time between the first begin and the last end that no span covers;
    they come in the order of their begins.
    """
    busy, until = 0.0, spans[0][0]
    for begin, end in spans:
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    return 1.0 - busy / (until - spans[0][0])
