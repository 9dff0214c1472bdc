"""What single trainings came to, kept so that none is done twice: a file a split, a line each.

    {"row": "alone", "subject": "ella", "seed": 0, "world": {"scale": 1, "latent": 16},
     "recipe": {...}, "conditions": "...", "seconds": 52.7, "scores": [...]}

A line's key is its row, subject, training seed and world: names that the benchmark owns. What else
shaped the numbers stands beside it: the row's recipe (`Method.recipe`), and a digest of the
conditions that all rows share. A line of another recipe or of other conditions is passed over and
its row measured anew. Files only grow; of two lines that differ in their results, the later counts.
"""

__all__ = ["Record", "append", "found", "read"]

import json
from pathlib import Path
from typing import Any

Record = dict[str, Any]

KEY = ("row", "subject", "world")  # and the seed
SHAPED_BY = ("recipe", "conditions")


def found(lines: list[Record], heading: Record) -> tuple[dict[int, Record], int]:
    """Looks for a row's records of a subject.

    Arguments:
        heading: What a record of today has, but for its results; its seed is of no account.

    Returns:
        The records by training seed, and of how many more seeds there are only others.
    """
    of_key = [line for line in lines if all(line[k] == heading[k] for k in KEY)]
    records = {
        line["seed"]: line for line in of_key if all(line[k] == heading[k] for k in SHAPED_BY)
    }
    return dict(sorted(records.items())), len({line["seed"] for line in of_key} - records.keys())


def read(path: Path) -> list[Record]:
    """Returns a file's lines, the oldest first; none where there is no file yet."""
    return [*map(json.loads, path.read_text().splitlines())] if path.is_file() else []


def append(path: Path, record: Record) -> None:
    """Adds a line in one write to the file's end, so that several processes may add theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(record).encode() + b"\n")
