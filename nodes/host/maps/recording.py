"""What a watched model's samplings attended to, kept under the latents they ended in."""

__all__ = ["KEPT_RUNS", "Recording", "Run"]

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock, local
from typing import NoReturn
from uuid import UUID, uuid4

from torch import Tensor

from ....sefi_core.analysis.heatmap import AttentionRecord, Box
from ....sefi_core.errors import SettingsError
from ....sefi_core.stages import even_edges
from .watched import Owner, Watched, fingerprint

KEPT_RUNS = 4  # a graph may sample several times before the first maps are drawn


@dataclass(eq=False)
class Run:
    """One sampling.

    Attributes:
        prompts: The positive prompts' records, in their order.
        table: Which record a prompt's calls belong to, while it runs.
        ended: The fingerprint of the latent it ended in.
        unfinished: Whether it left noise for another sampler to go on from.
    """

    prompts: list[AttentionRecord] = field(default_factory=list)
    table: dict[UUID, AttentionRecord] = field(default_factory=dict)
    ended: str = ""
    unfinished: bool = False


class Recording:
    """What a watched model's last samplings attended to; the sampler fills it after the node that
    made it has run. Samplings in several threads, and calls of one from several, keep apart.

    Arguments:
        node_id: Of the node that made it.
    """

    def __init__(self, stages: int, node_id: str | None = None) -> None:
        self.edges = even_edges(stages)
        self.node_id = node_id
        self.runs: deque[Run] = deque(maxlen=KEPT_RUNS)
        self.running: list[Run] = []  # in any thread; its calls may come from yet another
        self.thread, self.lock = local(), Lock()

    @property
    def current(self) -> Run:
        """The sampling that this thread is in."""
        return getattr(self.thread, "run", None) or Run()

    @contextmanager
    def under_way(self, run: Run) -> Iterator[Run]:
        """Makes a sampling this thread's own; one that it interrupts goes on afterwards."""
        before, self.thread.run = getattr(self.thread, "run", None), run
        with self.lock:
            self.running = [*self.running, run]
        try:
            yield run
        finally:
            self.thread.run = before
            with self.lock:
                self.running = [other for other in self.running if other is not run]

    def rows(self, uuids: list[UUID], batch: int) -> list[tuple[slice, AttentionRecord]]:
        """Returns which rows of a model call's batch belong to which record."""
        size = batch // max(1, len(uuids))
        return [
            (slice(i * size, (i + 1) * size), run.table[uuid])
            for run in self.running
            for i, uuid in enumerate(uuids)
            if uuid in run.table
        ]

    @property
    def nbytes(self) -> int:
        """The bytes that all its maps hold."""
        return sum(record.nbytes for run in self.runs for record in run.prompts)

    def find(self, ended: str) -> Run | None:
        """Returns the run that ended in a latent of a fingerprint."""
        with self.lock:
            return next((run for run in reversed(self.runs) if run.ended == ended), None)

    def prompt(self, samples: Tensor, number: int) -> AttentionRecord:
        """Returns the record of a latent's n-th positive prompt, counted from 1.

        Raises:
            SettingsError: There is none.
        """
        ended = fingerprint(samples)
        run = self.find(ended)
        if run is None:
            raise_missing(self, WATCHED.owners_of(ended))
        found = [record for record in run.prompts if record.sums is not None]
        if not 1 <= number <= len(found):
            raise SettingsError(
                f"prompt_number: it is {number}, the sampler had {len(found)} positive prompt(s) "
                "with text attention; set a number from 1 to that."
            )
        return found[number - 1]

    def note_prompts(self, guider: object, sides: tuple[int, int]) -> None:
        """Opens a record for every positive prompt of a sampling whose latents have these sides."""
        run, positive = self.current, guider.original_conds.get("positive", ())
        numbers = {entry["uuid"]: i for i, entry in enumerate(positive)}
        found = {}
        for name, entries in guider.conds.items():
            for entry in entries or ():
                if entry["uuid"] not in numbers or entry.get("cross_attn") is None:
                    continue
                if name != "positive":
                    entry["uuid"] = uuid4()  # the host's copy of an area prompt, in another list
                    continue
                tokens = entry["cross_attn"].shape[1]
                record = AttentionRecord(self.edges, tokens, box_of(entry.get("area"), sides))
                found[numbers[entry["uuid"]]] = run.table[entry["uuid"]] = record
        run.prompts = [found[number] for number in sorted(found)]

    def keep(self, run: Run, latent_image: Tensor, samples: Tensor) -> None:
        """Keeps a run under its latent, together with the unfinished one it went on from."""
        run.table.clear()
        run.prompts = [record.on_cpu() for record in run.prompts]
        run.ended = fingerprint(samples)
        before = self.find(fingerprint(latent_image))
        if before is not None and before.unfinished:
            for record, earlier in zip(run.prompts, before.prompts, strict=False):
                record.join(earlier)
        with self.lock:
            self.runs.append(run)
        WATCHED.note(run.ended, self, self.node_id)


WATCHED: Watched[Recording] = Watched()


def raise_missing(recording: Recording, owners: list[Owner[Recording]]) -> NoReturn:
    """Says why a recording has no maps of a latent that these have watched."""
    if not owners:
        raise SettingsError(
            "samples: this latent does not come from a sampler that used the watched model; "
            "connect the model of SeFi Attention Map to the sampler and the sampler's LATENT "
            "here, and sample again (with another seed if ComfyUI repeats an old result)."
        )
    if any(owner.made_place_for(recording) for owner in owners):
        raise SettingsError(
            "recording: the maps of this latent are no longer held, because ComfyUI has let go of "
            f"the recording to free memory or {KEPT_RUNS} later samplings took their place; sample "
            "again with another seed, and draw before other samplings follow."
        )
    raise SettingsError(
        "recording: this latent comes from a sampler that another SeFi Attention Map watched; "
        "connect the recording of that one, or the LATENT of the sampler that this one's model "
        "went to."
    )


def box_of(area: tuple[int, ...] | None, sides: tuple[int, int]) -> Box:
    """Returns the host's area (height, width, top, left), in latent pixels, as shares of the
    sides.
    """
    if area is None:
        return 0.0, 0.0, 1.0, 1.0
    height, width, top, left = area
    bottom, right = min(top + height, sides[0]), min(left + width, sides[1])
    return top / sides[0], left / sides[1], bottom / sides[0], right / sides[1]
