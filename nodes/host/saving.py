"""A new identity file in models/sefi, read back before it is announced."""

__all__ = ["save_new_identity"]

import base64
import json
from datetime import datetime, timezone
from io import BytesIO

import torch
from torch import Tensor

from ...sefi_core.errors import IdentityFileError
from ...sefi_core.file_format import load_identity, save_identity
from ...sefi_core.identity import Identity
from . import folders
from .pictures import as_pil, stored_samples
from .progress import say

COVER_PIXELS, COVER_QUALITY = 256, 85


def save_new_identity(
    identity: Identity,
    filename_prefix: str,
    thumbnail: Tensor | None = None,
    title: str = "",
    author: str = "",
    notes: str = "",
    include_source_hash: bool = True,
    node_id: str | None = None,
) -> str:
    """Writes the identity under a free name; returns a line with its path and size."""
    path = folders.new_identity_path(filename_prefix)
    texts = {
        "title": title or path.stem,
        "author": author,
        "description": notes,
        "date": datetime.now(timezone.utc).isoformat(),
    }
    metadata = {f"modelspec.{name}": text for name, text in texts.items() if text}
    if thumbnail is not None:
        cover = jpeg(thumbnail)
        metadata["modelspec.thumbnail"] = f"data:image/jpeg;base64,{cover}"
        metadata["ssmd_cover_images"] = json.dumps([cover])  # the host's own browser shows it
    hidden = () if include_source_hash else ("sefi.source_hash",)
    kept = {name: text for name, text in identity.metadata.items() if name not in hidden}
    save_identity(
        Identity(identity.pairs, identity.class_word, identity.placeholder, identity.edges, kept),
        path,
        metadata,
        anew=True,
    )
    read_back = load_identity(path)
    if any(not torch.equal(pairs, read_back.pairs[name]) for name, pairs in identity.pairs.items()):
        raise IdentityFileError(
            f"filename_prefix: {path.name}: what was written does not read back equal; check the "
            "disk and save again."
        )
    line = f"Saved {path} ({path.stat().st_size / 1000:.0f} KB)"
    say(line, node_id)
    return line


def jpeg(image: Tensor) -> str:
    """Returns the first picture of an IMAGE as a small JPEG in base64."""
    picture = as_pil(stored_samples(image[:1, ..., :3]))
    picture.thumbnail((COVER_PIXELS, COVER_PIXELS))
    data = BytesIO()
    picture.save(data, "JPEG", quality=COVER_QUALITY)
    return base64.b64encode(data.getvalue()).decode()
