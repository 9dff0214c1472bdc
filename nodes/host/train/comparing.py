"""What tells two trainings apart, in an artist's words."""

__all__ = ["BEHAVIOUR", "changes"]

import math
from collections.abc import Sequence

from ....sefi_core.prompts import FACE_PROMPT, THING_PROMPT

WORDS, CHOSEN = {"class_word", "prompt", "captions"}, (FACE_PROMPT, THING_PROMPT)
BEHAVIOUR = "behaviour"  # numbers among what shapes a training; all else is compared exactly
ALIKE = 0.01  # how far they may be from each other, as a share of their size


def changes(before: dict, now: dict) -> list[str]:
    """Returns in an artist's words what tells two trainings apart, but for their length; the pack's
    version alone if that is another, since it may have changed what the rest is called.
    """
    if before.get("arithmetic") != now["arithmetic"]:
        return [in_words("arithmetic")]
    names = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
    if BEHAVIOUR in names and alike(before.get(BEHAVIOUR, ()), now[BEHAVIOUR]):
        names.remove(BEHAVIOUR)
    if "tokens" in names and WORDS & set(names):
        names.remove("tokens")  # of other words they are others
    if "class_word" in names and all(state.get("prompt") in CHOSEN for state in (before, now)):
        names = [name for name in names if name != "prompt"]
    return sorted(set(map(in_words, names)))


def alike(before: Sequence[float], now: Sequence[float]) -> bool:
    """Whether two models make the same of fixed inputs, but for rounding."""
    if len(before) != len(now):
        return False
    return math.dist(before, now) <= ALIKE * math.hypot(*now)


def in_words(name: str) -> str:
    """Returns what an artist calls a part of `shaped_by`."""
    names = {"seed": "train_seed", "masked_loss": "mask", "find_subject": "mask"}
    names |= dict.fromkeys(("generator", "starts", "race_from", "settle"), "preset")
    names |= dict.fromkeys(("velocity_loss", "unseen"), "preset")
    names |= {"race_every": "steps"}  # a short training's selection is shorter
    names |= {"min_scale": "preset", "arithmetic": "version of this pack"}
    names |= {"clip_skip": "clip", "tokens": "clip", "vectors": "tokens", "views": "image"}
    names |= {"prompt": "training_prompts", "captions": "caption"}
    names |= dict.fromkeys(("prediction", "noise_levels", "unread", BEHAVIOUR), "model")
    return names.get(name, name)
