"""New files: an identity in models/sefi, read back before it is announced, and an identity as a
plain embedding in models/embeddings.
"""

__all__ = ["cover_of", "is_saved", "require_export", "save_new_embedding", "save_new_identity"]

import base64
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ....sefi_core.errors import IdentityFileError, MismatchError, SettingsError, one_line
from ....sefi_core.identity.container import NameTakenError, save_tensors
from ....sefi_core.identity.edit import AXES, stage_mean
from ....sefi_core.identity.file_format import load_identity, save_identity
from ....sefi_core.identity.group import IdentityGroup
from ....sefi_core.identity.identity import Identity
from .. import folders
from ..images import as_jpeg, stored_samples

log = logging.getLogger("sefi")
MOST_TRIES = 1000  # names
Saved = TypeVar("Saved")


def save_new_identity(
    identity: Identity | IdentityGroup,
    filename_prefix: str,
    thumbnail: Tensor | None = None,
    title: str = "",
    author: str = "",
    notes: str = "",
    include_source_hash: bool = True,
    node_id: str | None = None,
) -> str:
    """Writes the identity under a free name; returns a line with its path and size."""
    texts = {"title": title, "author": author, "description": notes}
    metadata = {f"modelspec.{name}": text for name, text in texts.items() if text}
    metadata["modelspec.date"] = datetime.now(timezone.utc).isoformat()
    if thumbnail is not None:
        metadata |= cover_of(thumbnail)
    if not include_source_hash:
        identity = identity.without("sefi.source_hash")

    def save(tried: int) -> Path:
        path = folders.new_identity_path(filename_prefix, tried)
        save_identity(identity, path, {"modelspec.title": path.stem, **metadata}, anew=True)
        return path

    path = under_free_name(save)
    read_back = load_identity(path)
    if not all(map(alike, identity.members, read_back.members)):
        raise IdentityFileError(
            f"filename_prefix: {path.name}: what was written does not read back equal; check the "
            "disk and save again."
        )
    line = f"Saved {path} ({path.stat().st_size / 1000:.0f} KB)"
    log.info("%s (node %s)", line, node_id)
    return line


def is_saved(identity: Identity, filename_prefix: str) -> bool:
    """Returns whether the last file under a prefix holds this very identity."""
    path = folders.last_identity_path(filename_prefix)
    if path is None:
        return False
    try:
        found = load_identity(path).members
    except IdentityFileError:
        return False
    return len(found) == 1 and same_shapes(identity, found[0]) and alike(identity, found[0])


def same_shapes(one: Identity, other: Identity) -> bool:
    shapes = [{n: pairs.shape for n, pairs in each.pairs.items()} for each in (one, other)]
    return shapes[0] == shapes[1]


def cover_of(thumbnail: Tensor) -> dict[str, str]:
    """Returns the metadata of a cover, the first of an IMAGE; the host's own browser shows it."""
    cover = base64.b64encode(as_jpeg(stored_samples(thumbnail[:1, ..., :3]))).decode()
    return {
        "modelspec.thumbnail": f"data:image/jpeg;base64,{cover}",
        "ssmd_cover_images": json.dumps([cover]),
    }


def under_free_name(save: Callable[[int], Saved]) -> Saved:
    """Returns what `save` does with the first name that is free where files lie: which names are
    one there, only the disk knows.

    Arguments:
        save: Is given how many names have been tried before.
    """
    for tried in range(MOST_TRIES):
        with suppress(NameTakenError):
            return save(tried)
    return save(MOST_TRIES)


def alike(one: Identity, other: Identity) -> bool:
    """Returns whether two identities act alike in every prompt."""
    if any(not torch.equal(pairs, other.pairs[name]) for name, pairs in one.pairs.items()):
        return False
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("class_word", "placeholder", "edges", "strengths")
    )


def save_new_embedding(
    identity: Identity | IdentityGroup,
    filename_prefix: str,
    tokens: str,
    node_id: str | None = None,
) -> tuple[str, str]:
    """Writes one vector per token as a plain textual-inversion embedding under a free name; returns
    what to write in a prompt, and a line that says so.

    Arguments:
        tokens: Which of an identity's tokens serve both, one of AXES.
    """
    require_export(filename_prefix, tokens)
    identity = identity.single("identity")
    vectors = stage_mean(identity, AXES.index(tokens))
    if not vectors:
        raise MismatchError(
            f"identity: its {tokens} are the class word in every stage, so there is nothing to "
            "export; connect it before the edit, or choose the other tokens."
        )

    def save(tried: int) -> tuple[Path, str]:
        path, name = folders.new_embedding_path(filename_prefix, tried)
        save_tensors(vectors, path, {}, anew=True)
        return path, name

    path, name = under_free_name(save)
    prompt = f"embedding:{name}"
    line = f"Saved {path}; write {prompt} in a prompt"
    log.info("%s (node %s)", line, node_id)
    return prompt, line


def require_export(filename_prefix: str | None, tokens: str | None) -> None:
    """Raises SettingsError for inputs of an export that cannot be; None is one that comes later."""
    if tokens is not None and tokens not in AXES:
        raise SettingsError(
            f'tokens: "{one_line(str(tokens))}" is unknown; choose one of {", ".join(AXES)}.'
        )
    if filename_prefix is not None:
        folders.new_embedding_path(filename_prefix)
