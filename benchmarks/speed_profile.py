"""Where the time of a step goes: `python -m benchmarks.speed_profile --size sd15`.

Milliseconds of each kind of operation in one step of the floor, of the pack and of the paper's loop
as it reads (benchmarks.speed tells what they are). A contestant is recorded over one step and over
three; half of the difference is one step without whatever sets it up.
"""

__all__ = ["main"]

import argparse

import torch
from torch.profiler import ProfilerActivity, profile

from .speed import Contestant
from .speed_models import SIZES
from .speed_peers import floor, literal
from .speed_scene import Scene, ours

CONTESTANTS: dict[str, Contestant] = {"floor": floor, "a step": ours, "as it reads": literal}
# The first kind whose word is in an operation's name takes it.
KINDS: dict[str, tuple[str, ...]] = {
    "convolutions": ("conv",),
    "attention": ("attention", "softmax"),
    "products of matrices": ("mm", "linear", "matmul"),
    "norms": ("norm",),
    "activations": ("gelu", "silu", "sigmoid"),
    "resizes": ("upsample", "interpolate"),
    "sums, factors, powers": ("add", "mul", "sub", "div", "pow", "sum", "mean", "lerp", "sqrt"),
    "copies and views": ("copy", "clone", "cat", "stack", "fill", "zero", "index", "slice"),
}
OTHER = "all else"
STEPS = 1, 3


def kind_of(operation: str) -> str:
    name = operation.removeprefix("aten::")
    return next((kind for kind, words in KINDS.items() if any(w in name for w in words)), OTHER)


def milliseconds(contestant: Contestant, scene: Scene, steps: int) -> dict[str, float]:
    """Returns the operations' own time by kind, over so many steps and what sets them up."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        contestant(scene, steps)
    found = dict.fromkeys((*KINDS, OTHER), 0.0)
    for event in recorded.key_averages():
        found[kind_of(event.key)] += event.self_cpu_time_total / 1e3
    return found


def of_one_step(contestant: Contestant, scene: Scene) -> dict[str, float]:
    """Returns the milliseconds of one step by kind."""
    fewer, more = (milliseconds(contestant, scene, steps) for steps in STEPS)
    return {kind: (more[kind] - fewer[kind]) / (STEPS[1] - STEPS[0]) for kind in fewer}


def main() -> None:
    """Reads the command line, records and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    scene = Scene(options.size, options.batch)
    torch.manual_seed(0)
    of_one_step(floor, scene)  # the models are made
    found = {name: of_one_step(contestant, scene) for name, contestant in CONTESTANTS.items()}
    found = {name: spent | {"**all**": sum(spent.values())} for name, spent in found.items()}
    print(f"| ms, {scene.size.label}, batch {scene.batch} | {' | '.join(found)} |")
    print(f"| --- {'| ---: ' * len(found)}|")
    for kind in next(iter(found.values())):
        print(f"| {kind} | {' | '.join(f'{spent[kind]:.0f}' for spent in found.values())} |")


if __name__ == "__main__":
    main()
