"""The errors an artist can cause; each message is one sentence with what was found, what is
expected, what to do.
"""

__all__ = [
    "IdentityFileError",
    "MismatchError",
    "PictureError",
    "PromptError",
    "SefiError",
    "SettingsError",
    "TrainingError",
    "one_line",
]


class SefiError(ValueError):
    """Base of all of them. What a stranger wrote stands on its one line, too: half a character in
    it would keep the host from telling the page at all.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence, LONGEST))


class PromptError(SefiError):
    """A text without its placeholder, or one that cannot be tokenised around it."""


class PictureError(SefiError):
    """A training picture or mask that cannot be learned from."""


class SettingsError(SefiError):
    """A setting outside its range, or settings that contradict a checkpoint."""


class MismatchError(SefiError):
    """A model, text encoder or identity of the wrong family."""


class IdentityFileError(SefiError):
    """A file that is not a readable identity, embedding or training checkpoint."""


class TrainingError(SefiError):
    """A training that left the finite numbers, or that cannot be trusted to start."""


LONGEST = 2000  # signs of a sentence


def one_line(text: str, limit: int = 120) -> str:
    """Returns a stranger's text as it may stand in a sentence: printable, on a line, and short."""
    printable = "".join(sign if sign.isprintable() else " " for sign in text[:limit])
    return " ".join(printable.split())
