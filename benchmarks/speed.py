"""How fast is a training step, and what does an applied identity cost? Ratios within one run.

    python -m benchmarks.speed                                   # all parts on the small model
    python -m benchmarks.speed --size sd15 --parts floor,literal --batch 1,5
    python -m benchmarks.speed --report                          # the table again

Both sides of a ratio are timed in turns, in this process, on the same weights; a ratio is the
median over the rounds, its range stands beside it. Peak memory is of a process of its own for each
contestant. What is in benchmarks/results/speed.json already is not done again (--again does).
"""

__all__ = ["main"]

import argparse
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from .speed_peers import Missing, diffusers_inversion, floor, literal, loaded, train_lora
from .speed_report import RESULTS, write_report
from .speed_scene import Scene, ours, ours_together, sampling

Contestant = Callable[[Scene, int], list[float]]
TOGETHER = (2, 4, 8)
CHILD_STEPS = 1

# By part: the contestant above the line and the one below it.
PARTS: dict[str, tuple[Contestant, Contestant]] = {
    "floor": (ours, floor),
    "attention": (ours, partial(ours, attention_loss="off")),
    "literal": (literal, ours),
    "lora": (train_lora, ours),
    "inversion": (diffusers_inversion, ours),
    "checkpointing": (partial(ours, checkpoint=True), ours),
    "applied": (partial(sampling, applied=True), partial(sampling, applied=False)),
    **{f"together {n}": (partial(ours_together, count=n), ours) for n in TOGETHER},
}
MEMORY: dict[str, Contestant] = {
    "loaded": loaded,
    "floor": floor,
    "ours": ours,
    "checkpointed": PARTS["checkpointing"][0],
}


def in_turns(above: Contestant, below: Contestant, scene: Scene, rounds: int, steps: int) -> dict:
    """Times both in turns, each first every other round; returns seconds a step by round."""
    seconds: dict[str, list[float]] = {"above": [], "below": []}
    sides = [("above", above), ("below", below)]
    for number in range(rounds):
        for name, contestant in sides if number % 2 == 0 else reversed(sides):
            seconds[name].append(statistics.median(contestant(scene, steps)))
    ratios = [a / b for a, b in zip(seconds["above"], seconds["below"], strict=True)]
    return {
        **seconds,
        "ratio": statistics.median(ratios),
        "range": [min(ratios), max(ratios)],
    }


def unet_calls(scene: Scene, applied: bool) -> int:
    """Returns how often one sampling calls the UNet."""
    calls: list[int] = []
    unet = scene.model.model.diffusion_model
    handle = unet.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        sampling(scene, 1, applied)
    finally:
        handle.remove()
    return len(calls) - 1  # one warms up


def peak_memory(scene: Scene) -> dict:
    """Returns the peak resident bytes of each contestant, each in a process of its own."""
    peaks = {}
    for name in MEMORY:
        command = [sys.executable, "-m", "benchmarks.speed", "--child", name]
        command += ["--size", scene.name, "--batch", str(scene.batch)]
        told = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[name] = int(told.stdout.splitlines()[-1])
    return {
        "bytes": peaks,
        "ratio": peaks["ours"] / peaks["floor"],
        "checkpointed ratio": peaks["checkpointed"] / peaks["ours"],
    }


def record_of(part: str, scene: Scene, options: argparse.Namespace) -> dict:
    """Returns one part's result."""
    if part == "memory":
        return peak_memory(scene)
    rounds, steps = options.rounds or scene.size.rounds, options.steps or scene.size.steps
    found = in_turns(*PARTS[part], scene, rounds, steps)
    if part == "applied":
        found["unet calls"] = [unet_calls(scene, applied) for applied in (True, False)]
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*PARTS, "memory"]
    parser.add_argument("--size", choices=("small", "sd15", "sdxl"), default="small")
    parser.add_argument("--parts", default=",".join(names), help=f"of {', '.join(names)}")
    parser.add_argument("--batch", default="1", help="batch sizes, such as 1,5")
    parser.add_argument("--rounds", type=int, default=0, help="pairs to time; 0: the size's own")
    parser.add_argument("--steps", type=int, default=0, help="steps of each in one; 0: likewise")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--child", choices=MEMORY, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.parts = [part.strip() for part in options.parts.split(",")]
    if unknown := [part for part in options.parts if part not in names]:
        parser.error(f"--parts: {', '.join(unknown)}: choose from {', '.join(names)}")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line, measures what is missing and writes the report."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    if options.child:
        MEMORY[options.child](Scene(options.size, int(options.batch)), CHILD_STEPS)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    records = json.loads(options.results.read_text()) if options.results.exists() else {}
    for batch in map(int, options.batch.split(",")):
        for part in () if options.report else options.parts:
            key = f"{options.size} | {part} | {batch}"
            if key in records and not options.again:
                continue
            print(f"{key} ...", flush=True)
            try:
                record = record_of(part, Scene(options.size, batch), options)
            except Missing as error:
                print(f"  left out: {error}")
                continue
            records[key] = {**record, "threads": options.threads, "torch": torch.__version__}
            options.results.parent.mkdir(parents=True, exist_ok=True)
            options.results.write_text(json.dumps(records, indent=1) + "\n")
            print(f"  {record['ratio']:.3f}", flush=True)
    if records:
        print(write_report(records, options.results))


if __name__ == "__main__":
    main()
