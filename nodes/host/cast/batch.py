"""People who learn in one batch: one pass of the frozen model a step, and each learns what they
would learn alone, up to rounding.
"""

__all__ = ["CastRun", "learned_in_a_batch"]

from collections.abc import Sequence

import comfy.model_management as mm
import torch

from ....sefi_core.errors import TrainingError
from ....sefi_core.training.loop import StepReport, Subject, train_together
from ..page.cast_progress import GO_ON, CastProgress
from ..train.backbone import HostBackbone
from ..train.files import Outcome
from ..train.loaded import Loaded
from ..train.memory import running_out_told
from ..train.run import Run, with_gradients

Found = list[tuple[Run, Outcome | TrainingError]]


class CastRun(Run):
    """One person's training; a cast goes on by itself where it was stopped."""

    @property
    def how_to_go_on(self) -> str:
        return GO_ON.removesuffix(".")  # a sentence goes on there


def learned_in_a_batch(
    host: Loaded,
    runs: Sequence[Run],
    progress: CastProgress,
    preview_every: int,
    checkpoint_every: int,
) -> Found:
    """Trains people at once, to the end or until the artist stops it; of a person whose numbers
    blow up returns the error, and the others go on. Where memory runs out it goes on in halves.
    """
    try:
        batch = Batch(host, runs, progress)
        return batch.to_the_end(preview_every, checkpoint_every)
    except torch.OutOfMemoryError:
        if len(runs) == 1:
            with running_out_told(host.again):
                raise
        progress.say(f"{len(runs)} people at once are too many for the memory: half of them, then")
    mm.soft_empty_cache()  # only here is nothing held by the error any more
    half = (len(runs) + 1) // 2
    parts = runs[:half], runs[half:]
    return [
        found
        for part in parts
        for found in learned_in_a_batch(host, part, progress, preview_every, checkpoint_every)
    ]


class Batch:
    """The people of one batch, the model for their prompts, and what became of each."""

    def __init__(self, host: Loaded, runs: Sequence[Run], progress: CastProgress) -> None:
        self.host, self.runs, self.progress = host, runs, progress
        self.found: Found = []

    @property
    def going(self) -> list[Run]:
        over = {id(run) for run, _ in self.found}
        return [run for run in self.runs if id(run) not in over]

    def to_the_end(self, preview_every: int, checkpoint_every: int) -> Found:
        backbone, subjects = self.on_one_model()
        for run in self.runs:
            run.begin()
        try:
            for reports in with_gradients(train_together(backbone, subjects)):
                self.take(reports, preview_every)
                if self.progress.keep_asked:
                    break
                for run in self.going:
                    run.save_if_due(checkpoint_every)
            for run in self.going:
                self.found.append((run, run.finish() if run.is_whole else run.keep()))
        except BaseException:
            for run in self.going:
                run.stop()
            raise
        return self.found

    def on_one_model(self) -> tuple[HostBackbone, list[Subject]]:
        """Returns the model for the prompts of all, and each as a subject of it."""
        subjects = [Subject(run.encoder, run.pool, run.learner) for run in self.runs]
        return self.host.together(subjects, sum(run.prompts_at_once for run in self.runs))

    def take(self, reports: dict[int, StepReport | TrainingError], preview_every: int) -> None:
        """Notes and shows a step. All is noted before anything may be interrupted: what is kept of
        each then counts the same steps.
        """
        taken = [(self.runs[i], report) for i, report in reports.items()]
        whole = [(run, report) for run, report in taken if isinstance(report, StepReport)]
        self.found += [(run, report) for run, report in taken if isinstance(report, TrainingError)]
        for run, report in whole:
            run.note(report)
            run.progress.step(report)
        if whole:
            self.progress.step_of([report for _, report in whole])
        for run, report in whole:
            run.preview_if_due(report, preview_every)
