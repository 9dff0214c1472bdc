"""What a running training shows, the host's bar and the panel of its node; and what it hears, the
host's cancel and "Stop and keep".
"""

__all__ = ["Progress"]

import logging
import time
from types import TracebackType

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_execution.utils import get_executing_context
from server import PromptServer
from torch import Tensor

from ....sefi_core.training.loop import StepReport
from ..images import as_jpeg
from .board import MIXED, Training, begin

log = logging.getLogger("sefi")

REFRESH_SECONDS = 1.0  # each refresh reads losses back, which waits for the device
EVENT = "sefi.progress"


class Progress:
    """Follows one training of `total` steps on its node; a context manager, left when it is over.

    Arguments:
        stages: S.
        workflow: The host's `extra_pnginfo`, which names the workflow; None without a page.
    """

    def __init__(
        self, total: int, stages: int, node_id: str | None, workflow: dict | None = None
    ) -> None:
        context = get_executing_context()
        server = getattr(PromptServer, "instance", None)  # there is none without a page
        self.training = begin(
            Training(
                workflow=str(((workflow or {}).get("workflow") or {}).get("id") or ""),
                node=str(node_id),
                prompt=context.prompt_id if context else "",
                total=total,
                stages=stages,
                client=getattr(server, "client_id", None) or "",
            )
        )
        self.bar = ProgressBar(total, node_id=node_id)
        self.waiting: list[StepReport] = []
        self.told = self.first = 0
        self.started = self.refreshed = time.monotonic()

    def __enter__(self) -> "Progress":
        self.tell()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None and self.training.state == "running":
            self.training.state, self.training.note = "stopped", ""
            self.tell()

    def say(self, text: str) -> None:
        """Writes a line on the node and into the log."""
        log.info(text)
        self.training.note = text
        self.tell()

    def reference(self, picture: Tensor) -> None:
        """Shows the picture (1, H, W, 3), 8 bits, that is learned."""
        self.training.reference = as_jpeg(picture)
        self.training.references += 1

    def choose_from(self, at_first: int, candidates: int) -> None:
        """Shows of how many candidates a start is chosen, and how many are left."""
        self.training.at_first, self.training.candidates = at_first, candidates

    def go_on(self, losses: Tensor, stages: Tensor, samples: Tensor) -> None:
        """Shows the losses (n, 2), the stages (n,) and the previews of the steps taken earlier, and
        starts the clock.
        """
        self.training.add(losses.tolist(), stages.tolist())
        self.first = self.training.done
        self.training.note = ""
        self.started = self.refreshed = time.monotonic()
        if len(samples):
            self.picture(self.first, samples[-1:])
        self.tell()

    def step(self, report: StepReport) -> None:
        """Shows a step, at most once a second; raises the host's interrupt if the artist has
        pressed cancel.
        """
        throw_exception_if_processing_interrupted()
        self.waiting.append(report)
        self.training.candidates = report.candidates
        now, training = time.monotonic(), self.training
        if now - self.refreshed < REFRESH_SECONDS and report.step != training.total:
            return
        self.refreshed = now
        self.flush()
        rate = (now - self.started) / max(1, report.step - self.first)
        training.left = rate * (training.total - report.step)
        self.tell()
        self.bar.update_absolute(report.step, training.total)

    def flush(self) -> None:
        """Reads the losses of the steps since the last time back from their device, at once."""
        if self.waiting:
            losses = torch.stack([report.losses for report in self.waiting]).tolist()
            self.training.add(losses, [common_stage(report.stages) for report in self.waiting])
            self.waiting.clear()

    def picture(self, step: int, picture: Tensor) -> None:
        """Shows a preview (1, H, W, 3) in 8 bits."""
        self.training.preview, self.training.preview_step = as_jpeg(picture), step

    def finish(self, state: str, note: str) -> None:
        """Shows that the training is "finished", "kept" or "stopped"."""
        self.flush()
        self.training.state, self.training.left = state, None
        self.say(note)

    @property
    def keep_asked(self) -> bool:
        """Whether the artist has pressed "Stop and keep"."""
        return self.training.keep_asked

    def tell(self) -> None:
        """Sends what is new to the page that queued it."""
        self.send(self.training.told(self.told))

    def send(self, message: dict) -> None:
        """Sends a message to the page that queued it; the host tells all if it has no name."""
        server, client = getattr(PromptServer, "instance", None), self.training.client
        if server is not None and client:
            server.send_sync(EVENT, message, client)
        self.told = self.training.done


def common_stage(stages: Tensor) -> int:
    """Returns the stage that all samples (B,) of a step are of, or MIXED."""
    return int(stages[0]) if bool((stages == stages[0]).all()) else MIXED
