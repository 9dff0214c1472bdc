"""Scores as words and as a picture."""

__all__ = ["draw", "picture_rows", "report"]

import math

from torch import Tensor

from ....sefi_core.analysis.evaluation import Estimate
from ..drawing import table

ROWS = 48  # pictures that the table picture lists
PICTURE_HEADS = ["picture", "ID", "Prompt", "remarks"]


def picture_rows(
    cosines: Tensor | None, prompts: Tensor | None, copies: Tensor, threshold: float
) -> list[list[str]]:
    """Returns a row of words for every picture."""
    rows = []
    for i, copy in enumerate(copies.tolist()):
        identity = "not measured" if cosines is None else number(float(cosines[i]), "no face")
        score = "not measured" if prompts is None else number(float(prompts[i]), "")
        low = prompts is not None and float(prompts[i]) < threshold
        marks = ["below the threshold"] * low + ["near copy"] * copy
        rows.append([str(i + 1), identity, score, ", ".join(marks)])
    return rows


def number(value: float, otherwise: str) -> str:
    return otherwise if math.isnan(value) else f"{value:.3f}"


def summary_rows(summary: dict[str, Estimate]) -> list[list[str]]:
    heads = ["measure", "mean", "95 % interval", "pictures"]
    return [heads] + [
        [
            name,
            number(found.value, "not measured"),
            "" if math.isnan(found.low) else f"{found.low:.3f} to {found.high:.3f}",
            str(found.count),
        ]
        for name, found in summary.items()
    ]


def report(
    title: str, summary: dict[str, Estimate], rows: list[list[str]], notes: list[str]
) -> str:
    """Returns everything in Markdown."""
    tables = []
    for heads, *body in (summary_rows(summary), [PICTURE_HEADS, *rows]):
        lines = [heads, ["---"] * len(heads), *body]
        tables.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join([title, *tables, *notes])


def draw(
    title: str,
    summary: dict[str, Estimate],
    rows: list[list[str]],
    notes: list[str],
    images: Tensor,
    reference: Tensor,
) -> Tensor:
    """Returns the table picture, with the pictures in small."""
    shown = [["", *PICTURE_HEADS], [reference[0], "reference", "", "", ""]]
    shown += [[image, *row] for image, row in zip(images[:ROWS], rows, strict=False)]
    if len(rows) > ROWS:
        notes = [*notes, f"The first {ROWS} of {len(rows)} pictures are listed; report has all."]
    return table(title, [summary_rows(summary), shown], notes)
