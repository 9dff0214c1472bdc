"""What Train SeFi ID's own settings tell before anything runs."""

__all__ = ["asked_settings"]

from ....sefi_core.prompts import plain_noun
from ....sefi_core.training.config import ATTENTION_SCOPES, PRESETS
from ....sefi_core.training.wording import Wording
from ..prefixes import require_plain
from ..queued import own_inputs, refusal, require_choice
from .borrowing import DTYPES
from .resuming import require_resumable
from .squares import require_side

CHOICES = {"preset": PRESETS, "attention_loss": ATTENTION_SCOPES, "dtype": ("auto", *DTYPES)}


def asked_settings(*settings: str | int | None) -> bool | str:
    """Returns True, or the sentence with which the settings are refused."""
    return refusal(lambda: require_settings(*settings))


def require_settings(
    class_word: str | None,
    name: str | None,
    resume: str | None,
    resolution: int | None,
    caption: str | None,
    training_prompts: str | None,
) -> None:
    """Raises a SefiError for settings with which no training can begin; None comes by a link."""
    if class_word is not None:
        plain_noun(class_word)
    if name is not None:
        require_plain("name", name)
    if resume is not None:
        require_resumable(str(resume))
    if isinstance(resolution, int) and resolution:  # the host has told of another kind
        require_side(resolution)
    Wording.read(str(class_word or ""), str(training_prompts or ""), str(caption or ""))
    for field, value in own_inputs().items():
        if field in CHOICES and isinstance(value, str):
            require_choice(field, value, CHOICES[field])
