"""What a training and an identity cost on a graphics card: one command, one JSON, within 8 minutes.

    python -m benchmarks.card                          # on the card that is there
    python -m benchmarks.card --minutes 20             # more than the 7 it takes by itself
    python -m benchmarks.card --sizes "tiny sd,tiny sdxl" --results x.json    # on any CPU

Checkpoints with the shapes of SD 1.5 and SDXL, weights from a seed in fp16 files, are written to a
temporary folder and read by ComfyUI's own loader. COMFYUI_PATH says where ComfyUI is; no server may
be using the card. What could not be measured is null, with the reason beside it.
"""
# ruff: noqa: E402 - the host has to be in this process before all else

__all__ = ["main"]

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .card_host import boot

REFUSAL = boot(streamed="--child" in sys.argv)

import torch

from . import card_parts as parts
from .card_models import CARD_SIZES, checkpoint, is_tiny, read
from .card_parts import Record, absent, one_line
from .card_whole import FORWARD_PASSES, SefiError, as_a_child, streamed, whole
from .speed_scene import Scene

RESULTS = Path(__file__).with_name("results") / "card.json"
DTYPES, BATCHES = ("bf16", "fp16", "fp32"), (1, 5)
NO_CARD = (
    "no card was to be had: these are numbers of small models on a CPU, to show that every key is "
    "filled, not how fast anything is"
)
Part = Callable[[], Record]


class Clock:
    """The time that is left of some minutes."""

    def __init__(self, minutes: float) -> None:
        self.minutes, self.end = minutes, time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def measured(self, name: str, part: Part) -> Record:
        """Returns what a part finds, or why nothing: no time, no memory, or an error."""
        if self.left <= 0:
            return absent(f"nothing was left of {self.minutes:g} minutes")
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            return part()
        except (RuntimeError, SefiError) as error:  # too little memory, too, is the former
            return absent(one_line(error))


def machine() -> Record:
    card = torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(0) if card else None
    try:
        from comfyui_version import __version__ as host
    except ImportError:
        host = "unknown"
    return {
        "card": properties.name if card else absent(NO_CARD),
        "memory, bytes": properties.total_memory if card else absent(NO_CARD),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if card else absent(NO_CARD),
        "ComfyUI": host,
    }


def of_size(name: str, scene: Scene, file: Path, clock: Clock) -> Record:
    """Returns all parts of one size but for the whole training."""
    size = scene.size
    rounds, count = size.rounds, size.steps
    many = max(4, 3 * count)
    asked: dict[str, Part] = {
        "neutral identity, largest difference": partial(parts.neutral, scene),
        "training lowers the loss": partial(parts.learning, scene, 2 * many),
        "resume": partial(parts.resumed, scene, many),
        "waiting": partial(parts.waiting, scene, count, 3 * count),
        "checkpointing": partial(parts.checkpointing, scene, count),
        "ten prompts": partial(parts.prompts, scene, count),
    }
    for batch in BATCHES:
        several = Scene(name, batch, scene.given)
        asked[f"sampling, batch {batch}"] = partial(parts.applied, several, rounds)
        for dtype in DTYPES:
            of_dtype = Scene(name, batch, scene.given, dtype)
            asked[f"steps, {dtype}, batch {batch}"] = partial(parts.steps, of_dtype, rounds, count)
    asked["dynamic VRAM"] = partial(streamed, scene, file, count)
    found = {part: clock.measured(f"{size.label}: {part}", run) for part, run in asked.items()}
    return {"dtype auto is": str(scene.session().numbers).removeprefix("torch."), **found}


def whole_training(scene: Scene, clock: Clock, count: int, found: Record) -> Record:
    """Returns a whole training's seconds, unless it would not end in time."""
    auto = found[f"steps, {short(found['dtype auto is'])}, batch 1"]
    seconds = auto.get("step, seconds", 0.0) * FORWARD_PASSES * count / 1000
    if not is_tiny(scene.name) and seconds > clock.left:
        return absent(f"{FORWARD_PASSES} steps would take about {seconds:.0f} seconds")
    return clock.measured(f"{scene.size.label}: whole training", partial(whole, scene, count))


def short(dtype: str) -> str:
    return {"bfloat16": "bf16", "float16": "fp16"}.get(dtype, "fp32")


def measure(options: argparse.Namespace, folder: Path) -> Record:
    clock, found, scenes = Clock(options.minutes), {}, {}
    for name in options.sizes:
        file = checkpoint(name, folder)
        with torch.inference_mode():  # as the executor loads
            scenes[name] = Scene(name, 1, read(name, file))
        found[name] = of_size(name, scenes[name], file, clock)
    for name, scene in scenes.items():
        steps = options.whole
        found[name]["whole training"] = whole_training(scene, clock, steps, found[name])
    taken = 60 * options.minutes - clock.left
    return {"machine": machine(), "seconds of this run": taken, "sizes": found}


def table(record: Record, name: str = "") -> list[str]:
    """Returns a record as rows of a Markdown table, a line for each number."""
    if set(record) == {"value", "reason"}:
        return [f"| {name} | none: {record['reason']} |"]
    rows = []
    for key, value in record.items():
        place = f"{name}; {key}".removeprefix("; ")
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        rows += table(value, place) if isinstance(value, dict) else [f"| {place} | {text} |"]
    return rows


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", help=f"of {', '.join(CARD_SIZES)}; without a card the tiny ones")
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--whole", type=int, default=1000, help="steps of the whole training")
    parser.add_argument("--results", type=Path, default=RESULTS)
    for hidden in ("--child", "--file", "--pairs", "--steps"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    default = CARD_SIZES[:2] if torch.cuda.is_available() else CARD_SIZES[2:]
    options.sizes = options.sizes.split(",") if options.sizes else list(default)
    if unknown := [size for size in options.sizes if size not in CARD_SIZES]:
        parser.error(f"--sizes: {', '.join(unknown)}: choose from {', '.join(CARD_SIZES)}")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line, measures, and writes the JSON and a table beside it."""
    options = parse(arguments)
    if options.child:
        given = Path(options.file), Path(options.pairs), int(options.steps)
        print(json.dumps(as_a_child(options.child, *given, REFUSAL)))
        return
    with tempfile.TemporaryDirectory() as folder:
        record = measure(options, Path(folder))
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(record, indent=1) + "\n")
    rows = ["| what | found |", "| --- | --- |", *table(record)]
    options.results.with_suffix(".md").write_text("\n".join(rows) + "\n")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
