"""Whether a prompt is read by the text encoder's layer that the identity was trained with."""

__all__ = ["tell_other_clip_skip"]

import json
import logging
from collections.abc import Mapping

from comfy.sd import CLIP

from ....sefi_core.identity.group import IdentityGroup
from ....sefi_core.identity.identity import Identity

log = logging.getLogger("sefi")
told: set[tuple[str, int, int]] = set()  # a training, its clip skip and another


def tell_other_clip_skip(clip: CLIP, identity: Identity | IdentityGroup) -> None:
    """Says in the console, once, that a member was trained with another clip skip."""
    now = clip.layer_idx or 0
    for member in identity.members:
        before = trained_with(member.metadata)
        key = (member.metadata.get("sefi.training", ""), before or 0, now)
        if before is None or before == now or key in told:
            continue
        told.add(key)
        log.warning(
            "The identity %s was trained with %s, this prompt is encoded with %s: the likeness may "
            "be weaker. Set CLIP Set Last Layer alike for both.",
            member.placeholder,
            in_words(before),
            in_words(now),
        )


def trained_with(metadata: Mapping[str, str]) -> int | None:
    """Returns the clip skip that a training noted, 0 for the model's own; None if it did not."""
    try:
        skip = json.loads(metadata["sefi.training"])["clip_skip"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    return skip if type(skip) is int else None


def in_words(skip: int) -> str:
    return f"stop_at_clip_layer {skip}" if skip else "the model's own last layer"
