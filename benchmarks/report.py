"""Results as a table with bootstrap intervals, and a contact sheet for eyes.

ID(P) is the paper's: a picture's ID counts only if its Prompt score reaches a threshold, else it
is 0. The paper's 0.23 lies in the gap between pictures that people take for the prompt's and
others. Here the threshold is the one that best tells pictures of native names held against their
own prompt from the same held against the other prompts, on development subjects: the largest sum
of the two shares that are right.
"""

__all__ = [
    "RESULTS",
    "SHEET",
    "STRIPS",
    "save_strip",
    "threshold",
    "write_report",
    "write_sheet",
]

import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .methods import ABLATIONS, MAIN, METHODS, Method
from .records import Record

RESULTS = Path(__file__).with_name("results")
STRIPS = Path(__file__).resolve().parent.parent / "demo/quality"  # pictures of every row
DRAWS = 10_000
SHEET = (
    "name", "inversion", "prospect", "custom", "lora", "paper", "default", "default-trimmed"
)  # fmt: skip
BASE = "default"  # the row that others are compared with
CHANGED = "alone"  # the row that ablations change
CHANGED_BY = {  # but for these groups of them
    "parts of the race alone": "race",
    "parts of default": BASE,
    "attention loss of default": BASE,
    "steps of default": BASE,
    "the border trimmed": f"{BASE}-trimmed",
    "training prompts": BASE,
    "training prompts, learned from a bust": "default-bust",
    "caption": BASE,
    "class word of two tokens": "default-old-means",
    "what the noisiest stage learns from": BASE,
    "with the subject found": BASE,
    "with the noise of default": BASE,
}
COLUMNS = ("ID(P)", "ID", "Prompt", "Detect", "ID(F)", "Detect(F)", "Layout")


def threshold(natives: list[Record]) -> float:
    """Returns the Prompt score of ID(P) from results of native names."""
    scores = [scores for record in natives for scores in record["scores"]]
    own = np.array([x for s in scores for x in s["prompt"]])
    others = np.array([x for s in scores for x in s["others"]])
    levels = np.linspace(0.05, 0.95, 19)
    right = np.array([(own >= level).mean() + (others < level).mean() for level in levels])
    return round(float(levels[right >= right.max() - 1e-9].mean()), 2)  # the middle of a plateau


def summary(record: Record, level: float) -> dict[str, float]:
    """Returns a result's numbers: means over its pictures."""
    worded = [scores for scores in record["scores"] if scores["prompt"]]
    face = [scores for scores in record["scores"] if not scores["prompt"]]
    mean = {key: flat(worded, key).mean() for key in ("id", "prompt", "detect")}
    kept = flat(worded, "id") * (flat(worded, "prompt") >= level)
    return {
        "ID(P)": kept.mean(),
        "ID": mean["id"],
        "Prompt": mean["prompt"],
        "Detect": mean["detect"],
        "ID(F)": flat(face, "id").mean(),
        "Detect(F)": flat(face, "detect").mean(),
        "Layout": flat(worded, "layout").mean(),
        "seconds": record["seconds"],
    }


def flat(scores: list[dict[str, list]], key: str) -> np.ndarray:
    return np.array([x for prompt in scores for x in prompt[key]], dtype=float)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of the mean of one number for each subject, (n,)."""
    draws = np.random.default_rng(0).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def bracket(values: np.ndarray, form: str) -> str:
    """Returns the interval of the mean in brackets; nothing where one subject is all there is."""
    return f" [{', '.join(format(x, form) for x in interval(values))}]" if len(values) > 1 else ""


class Table:
    """Every row's numbers by subject, means over the trainings that there are."""

    def __init__(self, records: list[Record], level: float) -> None:
        self.by_method: dict[str, dict[str, dict[str, float]]] = {}
        self.trained = Counter(record["row"] for record in records)
        trainings: dict[tuple[str, str], list[dict[str, float]]] = {}
        for record in records:
            key = record["row"], record["subject"]
            trainings.setdefault(key, []).append(summary(record, level))
        for (method, subject), found in trainings.items():
            means = {column: np.mean([one[column] for one in found]) for column in found[0]}
            self.by_method.setdefault(method, {})[subject] = means

    def values(self, method: str, column: str, subjects: list[str] | None = None) -> np.ndarray:
        row = self.by_method[method]
        return np.array([row[s][column] for s in subjects or row])

    def difference(self, method: str, other: str) -> str:
        """Returns how much more ID(P) a row has than another, subject by subject."""
        shared = [s for s in self.by_method[method] if s in self.by_method.get(other, {})]
        if method == other or not shared:
            return ""
        gained = self.values(method, "ID(P)", shared) - self.values(other, "ID(P)", shared)
        return f"{gained.mean():+.3f}{bracket(gained, '+.3f')}"

    def line(self, method: Method, base: str) -> str:
        """Returns a row in Markdown."""
        label = METHODS[method.name].label
        if method.name not in self.by_method:
            return f"| {label} | not run |" + " |" * (len(COLUMNS) + 2)
        cells = [f"{self.values(method.name, column).mean():.3f}" for column in COLUMNS]
        cells[0] += bracket(self.values(method.name, "ID(P)"), ".3f")
        seconds = f"{np.median(self.values(method.name, 'seconds')):.0f}"
        subjects, trained = len(self.by_method[method.name]), self.trained[method.name]
        count = f"{subjects}" if trained == subjects else f"{subjects} ({trained} trainings)"
        return " | ".join(
            [f"| {label}", *cells, self.difference(method.name, base), seconds, count + " |"]
        )

    def text(self, methods: tuple[Method, ...], base: str = BASE) -> str:
        """Returns rows in Markdown under their heading, compared with the row `base`."""
        heading = ["row", *COLUMNS, f"ID(P) against `{base}`", "s", "n"]
        rule = "|".join(["", *(" --- " for _ in heading), ""])
        lines = [self.line(method, base) for method in methods]
        return "\n".join([f"| {' | '.join(heading)} |", rule, *lines])


def write_report(
    records: list[Record], natives: list[Record], folder: Path, name: str, about: dict
) -> str:
    """Writes `<name>.md` and `<name>.json`, and returns the tables.

    Arguments:
        records: The results to tell of.
        natives: Those of native names, for the threshold.
        name: Of the files, "test" or "development".
        about: What is the same for all results.
    """
    level = threshold(natives)
    table = Table(records, level)
    parts = [f"ID(P) counts pictures with a Prompt score of {level:.2f} or more.", table.text(MAIN)]
    for group, methods in ABLATIONS.items():
        if any(method.name in table.by_method for method in methods):
            base = CHANGED_BY.get(group, CHANGED)
            rows = tuple(dict.fromkeys((METHODS[base], *methods)))  # the base may be one of them
            parts += [f"**{group}**", table.text(rows, base)]
    text = "\n\n".join(parts) + "\n"
    (folder / f"{name}.md").write_text(text)
    means = {
        method: {c: round(float(table.values(method, c).mean()), 4) for c in (*COLUMNS, "seconds")}
        | {"ID(P) interval": [round(x, 4) for x in interval(table.values(method, "ID(P)"))]}
        | {"subjects": list(row)}
        for method, row in table.by_method.items()
    }
    whole = {**about, "threshold": level, "rows": means}
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n")
    return text


def save_strip(pictures: Tensor, path: Path) -> None:
    """Writes pictures (n, H, W, 3) in [0, 1] side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    row = torch.cat(list(pictures), dim=1)  # (H, n W, 3)
    Image.fromarray(row.mul(255.0).round().byte().numpy()).save(path)


def write_sheet(strips: dict[str, Path], reference: Tensor, prompts: list[str], path: Path) -> None:
    """Writes prompts as rows and methods as columns, the reference (1, H, W, 3) before them.

    Arguments:
        strips: A file of `save_strip` by its column's label.
    """
    side, large, left, top = reference.shape[1], 96, 250, 34
    cell = large + 4
    sheet = Image.new("RGB", (left + cell * (1 + len(strips)), top + cell * len(prompts)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, prompt in enumerate(prompts):
        pen.text((6, top + row * cell + cell // 2 - 6), prompt.format("V*"), fill="black")
    pictures = Image.fromarray(reference[0].mul(255.0).round().byte().numpy())
    sheet.paste(pictures.resize((large, large)), (left, top))
    pen.text((left + 4, 10), "reference", fill="black")
    for column, (label, strip) in enumerate(strips.items(), 1):
        short = label.split(",")[0].split(" (")[0].replace("`", "").replace("SeFi ", "")
        pen.text((left + column * cell + 2, 10), short, fill="black")
        with Image.open(strip) as whole:
            for row in range(len(prompts)):
                one = whole.crop((row * side, 0, (row + 1) * side, side))
                spot = (left + column * cell, top + row * cell)
                sheet.paste(one.resize((large, large), Image.Resampling.LANCZOS), spot)
    sheet.quantize(256).save(path, optimize=True)
