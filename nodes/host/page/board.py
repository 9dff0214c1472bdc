"""What pages are told about trainings: a record of each that runs, and of the last that ran.

A record belongs to a client and a place, a node of a workflow: who queued it sees it wherever that
workflow is open in the same tab, after a reload too; nobody else does, not with the same file open.
It is kept in memory alone.
"""

__all__ = [
    "KEPT",
    "MIXED",
    "Member",
    "Training",
    "begin",
    "of_prompt",
    "of_workflow",
    "with_prompt",
]

import math
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

MIXED = -1  # the stage of a step whose samples are of several stages
KEPT = 32  # records
MOST_POINTS, FEW_POINTS = 2000, 240  # of a curve that is told; of a longer one every n-th


@dataclass
class Member:
    """One person of a cast as its node shows them; the names are those of `Training`. `state` is
    "waiting" at first, and "failed" where nothing can be learned.
    """

    name: str
    state: str = "waiting"
    done: int = 0
    note: str = ""
    reference: bytes = b""
    references: int = 0
    preview: bytes = b""
    preview_step: int = 0

    def told(self) -> dict:
        """Returns it as JSON, without its pictures."""
        return {
            "name": self.name,
            "state": self.state,
            "done": self.done,
            "note": self.note,
            "reference": self.references,
            "preview": self.preview_step,
        }


@dataclass
class Training:
    """A training as its node shows it.

    Attributes:
        workflow, node, prompt: The host's ids; together they tell it from all others.
        client: The host's id of the page that queued it; "" of none.
        total, done: Steps asked for; steps that the curve shows.
        stages: S, for the colours.
        state: "running"; then "finished", "kept" (ended early by the artist) or "stopped".
        note: A line for the artist.
        candidates, at_first: How many are left to begin the stages from, and were when it began.
        left: Seconds to go, once they can be told.
        reference, preview: JPEGs of what is learned, the `references`th that is shown, and of the
            latest preview, made at `preview_step`.
        keep_asked: Whether the artist has asked to end it early and go on with what is there.
        people: Those of a cast, whose mean losses the curve then shows.
    """

    workflow: str
    node: str
    prompt: str
    total: int
    stages: int
    state: str = "running"
    note: str = ""
    candidates: int = 1
    at_first: int = 1
    left: float | None = None
    reference: bytes = b""
    references: int = 0
    preview: bytes = b""
    preview_step: int = 0
    keep_asked: bool = False
    client: str = ""
    people: list[Member] = field(default_factory=list)
    curve: array = field(default_factory=lambda: array("f"))  # three numbers a step

    @property
    def done(self) -> int:
        return len(self.curve) // 3

    def add(self, losses: list[list[float]], stages: list[int]) -> None:
        """Adds the (denoising, attention) losses of the next steps, and their stages."""
        rows = zip(losses, stages, strict=True)
        self.curve.extend([number for pair, stage in rows for number in (*pair, stage)])

    def told(
        self, since: int = 0, most: int = MOST_POINTS, people: Collection[int] | None = None
    ) -> dict:
        """Returns all of it as JSON, with the points [step, denoising, attention, stage] after step
        `since`, at most so many; a loss that is not finite is null. Of a cast's people, by their
        index, only those in `people`, if it is given.
        """
        done = self.done
        apart = max(1, math.ceil((done - since) / most))
        chosen = range(since, done)[::-1][::apart][::-1]  # the last one always
        return {
            "workflow": self.workflow,
            "node": self.node,
            "prompt": self.prompt,
            "total": self.total,
            "done": done,
            "stages": self.stages,
            "state": self.state,
            "note": self.note,
            "candidates": [self.candidates, self.at_first],
            "left": self.left,
            "reference": self.references,
            "preview": self.preview_step,
            "since": since,
            "points": [[i + 1, *self.point(i)] for i in chosen],
            **(self.cast_told(people) if self.people else {}),
        }

    def cast_told(self, which: Collection[int] | None = None) -> dict:
        """Returns how many people there are, and those of these indices, all if None, as JSON."""
        chosen = range(len(self.people)) if which is None else sorted(which)
        people = [{"index": i, **self.people[i].told()} for i in chosen]
        return {"cast": len(self.people), "people": people}

    def outcome(self) -> dict:
        """Returns what the host keeps with the results of a training that is over: a small curve,
        no picture.
        """
        gone = {"reference": 0, "preview": 0}
        told = self.told(most=FEW_POINTS) | gone
        return told | {"people": [one | gone for one in told["people"]]} if self.people else told

    def shown(self, person: str) -> "Training | Member | None":
        """Returns whose pictures are asked for: its own, or those of the person of an index."""
        if not person:
            return self
        known = person.isdecimal() and int(person) < len(self.people)
        return self.people[int(person)] if known else None

    def point(self, index: int) -> tuple[float | None, float | None, int]:
        denoising, attention, stage = self.curve[3 * index : 3 * index + 3]
        return told_number(denoising), told_number(attention), int(stage)


def told_number(number: float) -> float | None:
    """Returns a number to four digits; None for what JSON does not have."""
    return float(f"{number:.4g}") if math.isfinite(number) else None


records: dict[tuple[str, str, str], Training] = {}


def begin(training: Training) -> Training:
    """Notes a training as the one of its place."""
    place = (training.client, training.workflow or training.prompt, training.node)
    records.pop(place, None)
    records[place] = training
    while len(records) > KEPT:
        records.pop(next(iter(records)))
    return training


def of_workflow(workflow: str, client: str = "") -> Iterator[Training]:
    """Yields the trainings of a workflow's nodes that a client has queued."""
    place = (workflow, client)
    return (each for each in list(records.values()) if (each.workflow, each.client) == place)


def of_prompt(prompt: str) -> Iterator[Training]:
    """Yields the trainings of a queued prompt."""
    return (training for training in list(records.values()) if training.prompt == prompt)


def with_prompt(prompt: str, node: str) -> Training | None:
    """Returns the training that a node made for a queued prompt."""
    for training in list(records.values()):
        if (training.prompt, training.node) == (prompt, node):
            return training
    return None
