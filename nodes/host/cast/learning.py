"""A cast's trainings on models that are borrowed once: who is finished is answered from before, all
others learn some at once, one batch after the other.
"""

__all__ = ["Asked", "Learned", "Learning"]

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from comfy.model_management import throw_exception_if_processing_interrupted
from torch import Tensor

from ....sefi_core.errors import IdentityFileError, SefiError, SettingsError
from ....sefi_core.identity.identity import Identity
from ....sefi_core.training.config import TrainingConfig
from ..page.cast_progress import CastProgress
from ..text.encoder import HostTextEncoder
from ..train.files import Outcome, RunFiles, identity_of
from ..train.loaded import Loaded
from ..train.memory import how_many_fit
from ..train.pictures import dimmed
from ..train.request import Request
from ..train.run import Run
from ..train.session import Session
from ..train.trainer import asked_config, what_shapes
from .batch import CastRun, learned_in_a_batch
from .people import Person
from .photos import photos_of


@dataclass(frozen=True, eq=False)
class Asked:
    """One person's training as it is asked for, as Train SeFi ID would be: crops (B, 3, R, R) and
    masks (B, 1, R, R), and the files that are its own.
    """

    request: Request
    config: TrainingConfig
    pictures: tuple[Tensor, Tensor]
    files: RunFiles


@dataclass(frozen=True, eq=False)
class Learned:
    """What became of a person: an identity and what its training gave, or the sentence that says
    why there is none.
    """

    name: str
    identity: Identity | None = None
    outcome: Outcome | None = None
    fault: str = ""


class Learning:
    """The trainings of a cast.

    Arguments:
        settings: Inputs of `Request` that all people share, all of them.
        at_once: How many learn in one batch; as many as memory allows if 0.
        done: Is given what became of each person, as soon as it is known.
    """

    def __init__(
        self,
        session: Session,
        people: Sequence[Person],
        settings: dict,
        at_once: int,
        progress: CastProgress,
        done: Callable[[Learned], None],
    ) -> None:
        self.session, self.people, self.settings = session, people, settings
        self.at_once, self.progress, self.done = at_once, progress, done
        self.fit = 0  # how many memory allows at once, once it is known
        self.encoders: dict[tuple, HostTextEncoder] = {}

    def of_all(self) -> None:
        """Answers or trains everybody, until the artist stops it."""
        waiting = [i for i in range(len(self.people)) if not self.was_finished(i)]
        if not waiting:
            return
        self.progress.to_come(len(waiting) * self.settings["steps"])
        with self.session.borrowed() as host:
            for runs in self.batches(host, waiting):
                every = self.settings["preview_every"], self.settings["checkpoint_every"]
                for run, found in learned_in_a_batch(host, runs, self.progress, *every):
                    self.tell(run.progress.index, found, run.files)
                if self.progress.keep_asked:
                    return

    def asked(self, person: Person) -> Asked:
        """Reads a person's pictures; raises a SefiError if they cannot be trained with."""
        photos = photos_of(person, self.settings["resolution"] or self.session.own_side)
        request = Request(
            **self.settings,
            name=person.name,
            image=photos.pictures.movedim(1, -1),
            mask=photos.masks if photos.masked else None,
            caption=photos.caption,
        )
        request.wording.of_pictures(len(photos.pictures))
        pictures = photos.pictures, photos.masks
        config = asked_config(self.session, request, *pictures).with_fair_selection()
        shaped_by = what_shapes(self.session, config, request, *pictures)
        files = RunFiles(person.name, shaped_by, {"steps": config.steps})
        return Asked(request, config, pictures, files)

    def was_finished(self, index: int) -> bool:
        """Whether nothing is left to do for a person, which is then told: their training was
        finished before, or cannot begin.
        """
        throw_exception_if_processing_interrupted()
        try:
            asked = self.asked(self.people[index])
            outcome = asked.files.load_finished()
        except SefiError as error:
            self.tell(index, error)
            return True
        own = self.progress.of(index)
        own.reference(dimmed(*asked.pictures))
        if outcome is None:
            return False
        own.go_on(outcome.losses, outcome.shown.stages, outcome.shown.samples)
        own.finish("finished", "Finished before.")
        self.tell(index, outcome, asked.files)
        return True

    def batches(self, host: Loaded, waiting: list[int]) -> Iterator[list[Run]]:
        """Yields the trainings that one batch holds, prepared, until nobody is left."""
        while waiting:
            runs: list[Run] = []
            while waiting and len(runs) < (self.at_once or 1):
                if run := self.prepared(host, waiting.pop(0)):
                    runs.append(run)
                    if not self.fit:
                        self.fit = self.how_many(host, run)
                        self.at_once = self.at_once or self.fit
            left = max((run.learner.config.steps - run.learner.step for run in runs), default=0)
            later = math.ceil(len(waiting) / max(1, self.at_once)) * self.settings["steps"]
            self.progress.to_come(left + later)
            if runs:
                yield runs

    def how_many(self, host: Loaded, run: Run) -> int:
        """Returns how many may learn at once, by the memory; raises TrainingError unless gradients
        are right.
        """
        backbone = host.backbone(run.encoder, run.pool.latents, run.prompts_at_once)
        return how_many_fit(run.tested(backbone), run.learner, run.pool.latents)

    def prepared(self, host: Loaded, index: int) -> Run | None:
        """Returns a person's training, begun anew or where it was stopped; None, and told, if it
        cannot begin.
        """
        own = self.progress.of(index)
        host.load.load()  # what the host has moved for the person before is back in its place
        try:
            asked = self.asked(self.people[index])
            encoder = self.encoder(host, asked)
            request = asked.request
            if asked.files.checkpoint.is_file():
                request = replace(request, resume=asked.files.checkpoint.name)
            given = host, encoder, request, asked.config, asked.pictures, asked.files, own
            try:
                return CastRun.prepared(*given)
            except (IdentityFileError, SettingsError) as error:
                if request.fresh:
                    raise
                own.say(f"From the start, as what was stopped cannot be gone on with: {error}")
                fresh = host, encoder, asked.request, *given[3:]
                return CastRun.prepared(*fresh)
        except SefiError as error:
            self.tell(index, error)
            return None

    def encoder(self, host: Loaded, asked: Asked) -> HostTextEncoder:
        """Returns the text encoder for a person's prompts; one for all who have the same."""
        wording, tokens = asked.request.wording, asked.config.tokens
        key = asked.request.class_word, wording.prompts, len(wording.lines), tokens
        if key not in self.encoders:
            self.encoders[key] = host.encoder(asked.request.class_word, wording, tokens)
        return self.encoders[key]

    def tell(self, index: int, found: Outcome | SefiError, files: RunFiles | None = None) -> None:
        """Tells what became of a person."""
        name = self.people[index].name
        if isinstance(found, SefiError):
            self.progress.of(index).finish("failed", str(found))
            self.done(Learned(name, fault=str(found)))
        elif files is not None:
            identity = identity_of(files.shaped_by, found.pairs, found.losses)
            self.done(Learned(name, identity, found))
