"""What a cast under way shows: the bar and the mean losses of the people who learn at once, and of
each person how far they are, what is learned of them and how it looks.
"""

__all__ = ["GO_ON", "CastProgress", "PersonProgress"]

import logging
from collections.abc import Sequence
from types import TracebackType

import torch
from torch import Tensor

from ....sefi_core.training.loop import StepReport
from ..images import as_jpeg
from .board import Member
from .progress import Progress

log = logging.getLogger("sefi")

GO_ON = "To go on, queue the cast again."


class CastProgress(Progress):
    """Follows a cast; its steps are those that all of a batch take at once.

    Arguments:
        names: Of its people.
        total, stages, node_id, workflow: As of `Progress`.
    """

    def __init__(
        self,
        names: Sequence[str],
        total: int,
        stages: int,
        node_id: str | None,
        workflow: dict | None = None,
    ) -> None:
        super().__init__(total, stages, node_id, workflow)
        self.training.people = [Member(name) for name in names]
        self.changed = set(range(len(names)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        begun = [m for m in self.training.people if m.state in ("running", "stopped")]
        if kind is not None and begun:
            for member in begun:
                member.state = "stopped"
            self.changed.update(range(len(self.training.people)))
            self.training.state, self.training.note = "stopped", GO_ON
            self.tell()
        super().__exit__(kind, error, traceback)

    def of(self, index: int) -> "PersonProgress":
        """Returns the progress of one person."""
        return PersonProgress(self, index)

    @property
    def taken(self) -> int:
        """How many steps batches have taken."""
        return self.training.done + len(self.waiting)

    def to_come(self, steps: int) -> None:
        """Tells how many steps batches are still to take."""
        self.training.total = self.taken + steps

    def step_of(self, reports: Sequence[StepReport]) -> None:
        """Shows a step of all who take it, by their mean losses; raises the host's interrupt if the
        artist has pressed cancel.
        """
        losses = torch.stack([report.losses for report in reports]).mean(dim=0)
        stages = torch.cat([report.stages for report in reports])
        candidates = max(report.candidates for report in reports)
        self.step(StepReport(self.taken + 1, losses, stages, candidates))

    def tell(self) -> None:
        self.send(self.training.told(self.told, people=self.changed))
        self.changed.clear()


class PersonProgress:
    """What one person's training shows; it has what `Progress` has."""

    def __init__(self, cast: CastProgress, index: int) -> None:
        self.cast, self.index = cast, index
        self.member = cast.training.people[index]

    def say(self, text: str) -> None:
        """Writes a line below the person and into the log."""
        log.info("%s: %s", self.member.name, text)
        self.member.note = text
        self.show()
        self.cast.tell()

    def show(self) -> None:
        """Lets the page know with the next message."""
        self.cast.changed.add(self.index)

    def reference(self, picture: Tensor) -> None:
        self.member.reference = as_jpeg(picture)
        self.member.references += 1
        self.show()

    def choose_from(self, at_first: int, candidates: int) -> None:
        self.cast.choose_from(at_first, candidates)

    def go_on(self, losses: Tensor, stages: Tensor, samples: Tensor) -> None:
        self.member.state, self.member.note, self.member.done = "running", "", len(losses)
        if len(samples):
            self.picture(len(losses), samples[-1:])
        self.show()

    def step(self, report: StepReport) -> None:
        self.member.done = report.step
        self.show()

    def picture(self, step: int, picture: Tensor) -> None:
        self.member.preview, self.member.preview_step = as_jpeg(picture), step
        self.show()

    def finish(self, state: str, note: str) -> None:
        self.member.state = state
        self.say(note)

    @property
    def keep_asked(self) -> bool:
        return self.cast.keep_asked
