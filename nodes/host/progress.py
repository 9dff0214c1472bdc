"""What a running training shows: the bar, its text, preview pictures; and the stop button."""

__all__ = ["Progress", "say"]

import logging
import time

from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from PIL import Image
from server import PromptServer

from ...sefi_core.training import StepReport

log = logging.getLogger("sefi")

REFRESH_SECONDS = 0.5  # each refresh reads losses back, which waits for the device
PREVIEW_PIXELS = 512


def say(text: str, node_id: str | None) -> None:
    """Writes a line on the node and into the log."""
    log.info(text)
    show(text, node_id)


def show(text: str, node_id: str | None) -> None:
    server = getattr(PromptServer, "instance", None)  # there is none without a page
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)


class Progress:
    """Follows one training of `total` steps, of which `done` were taken earlier."""

    def __init__(self, total: int, done: int, node_id: str | None) -> None:
        self.bar = ProgressBar(total, node_id=node_id)
        self.total, self.first, self.node_id = total, done, node_id
        self.started = self.refreshed = time.monotonic()

    def step(self, report: StepReport) -> None:
        """Shows a step, at most twice a second; raises the host's interrupt if the artist has
        pressed stop.
        """
        throw_exception_if_processing_interrupted()
        now = time.monotonic()
        if now - self.refreshed < REFRESH_SECONDS and report.step != self.total:
            return
        self.refreshed = now
        denoising, attention = report.losses.tolist()
        left = (now - self.started) / max(1, report.step - self.first) * (self.total - report.step)
        show(
            f"step {report.step} / {self.total}, {clock(left)} left\nloss {denoising:.4f}, "
            f"attention {attention:.2f}",
            self.node_id,
        )
        self.bar.update_absolute(report.step, self.total)

    def picture(self, step: int, picture: Image.Image) -> None:
        """Shows a preview picture on the node."""
        self.bar.update_absolute(step, self.total, ("JPEG", picture, PREVIEW_PIXELS))


def clock(seconds: float) -> str:
    """Returns a duration as an artist reads it, for example "2:05"."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}"
