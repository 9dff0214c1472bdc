"""What the picker of Load SeFi Embedding shows of each file, from its header alone.

Every text comes from a stranger's file: the page shows it as text, cut to a bounded length.
"""

__all__ = ["cards", "cover"]

import base64
import binascii
import json
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

from ....sefi_core.errors import IdentityFileError
from ....sefi_core.families import ENCODERS, SD1, SD2, family_name
from ....sefi_core.identity.container import load_header
from .. import folders

MOST_CARDS = 5000
LONGEST_TEXT = 200
PICTURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}
TEXTS = {
    "title": "modelspec.title",
    "author": "modelspec.author",
    "notes": "modelspec.description",
    "class_word": "sefi.class_word",
    "placeholder": "modelspec.trigger_phrase",
}


def cards() -> list[dict]:
    """Returns a card for every name that Load SeFi Embedding offers."""
    return [card(name) for name in folders.identity_names()[:MOST_CARDS]]


def card(name: str) -> dict:
    """Returns {name, title, class_word, family, date, bytes, cover, ...}; of a file that cannot be
    read, its name.
    """
    try:
        path = folders.identity_path(name)
        return {"name": name, **described(path, *folders.file_state(name))}
    except (IdentityFileError, TypeError):  # it may go away while it is looked at
        return {"name": name}


@lru_cache(maxsize=MOST_CARDS)
def described(path: Path, changed: int, size: int) -> dict:
    """Returns what a file's header tells; `changed` in ns and `size` in bytes tell it from what it
    was before.
    """
    shapes, metadata = load_header(path)
    texts = {field: metadata.get(key, "")[:LONGEST_TEXT] for field, key in TEXTS.items()}
    return {
        **texts,
        "family": family_of(shapes),
        "date": day(metadata.get("modelspec.date", ""), changed),
        "changed": changed // 1_000_000,
        "bytes": size,
        "cover": cover_in(metadata) is not None,
    }


def family_of(shapes: dict[str, list[int]]) -> str:
    """Returns the family whose text encoders the tensors fit; "" if it cannot be told."""
    widths = {
        encoder: shapes[tensor][-1]
        for encoder in ENCODERS
        for tensor in sorted(shapes)
        if tensor.split(".")[-1] == encoder and shapes[tensor]
    }
    if not widths and "emb_params" in shapes:
        width = shapes["emb_params"][-1:]
        alone = (dict(family.widths) for family in (SD1, SD2))
        widths = next((known for known in alone if [*known.values()] == width), {})
    return family_name(widths).split(" (")[0] if widths else ""


def day(text: str, changed: int) -> str:
    """Returns the day, "2026-01-31", that a file names, or else the one it was changed on."""
    try:
        return datetime.fromisoformat(text[:10]).date().isoformat()
    except ValueError:
        return datetime.fromtimestamp(changed / 1e9, timezone.utc).date().isoformat()


def cover(name: str) -> tuple[bytes, str] | None:
    """Returns the picture in a listed file's header and its media type; None if there is none."""
    try:
        return cover_in(load_header(folders.identity_path(name))[1])
    except IdentityFileError:
        return None


def cover_in(metadata: dict[str, str]) -> tuple[bytes, str] | None:
    """Returns a header's picture, if it is one of three harmless kinds by its first bytes."""
    text = metadata.get("modelspec.thumbnail", "")
    if not text:
        text = first_of(metadata.get("ssmd_cover_images", ""))
    try:
        data = base64.b64decode(text.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    kind = next((kind for start, kind in PICTURES.items() if data.startswith(start)), None)
    return (data, kind) if kind else None


def first_of(text: str) -> str:
    """Returns the first string of a JSON list; "" if it is none."""
    try:
        found = json.loads(text)[0]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return found if isinstance(found, str) else ""
