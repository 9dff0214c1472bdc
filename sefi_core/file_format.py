"""The identity file, a `.safetensors` (full text: docs/identity-file.md).

Tensors, float16 or float32, finite:
    pairs.<encoder>   [stages, 2, tokens, width]; axis 1 is (K, V); stage 0 is the noisiest
    <encoder>         [tokens, width], the mean of the V tokens: any embedding loader reads it
Metadata, text: format = "sefi-id", format_version = "1", sefi.class_word, sefi.stages,
sefi.stage_edges, modelspec.trigger_phrase (the placeholder), and what else is known of it.

Also read: textual-inversion embeddings (`emb_params`, or `clip_l` / `clip_g` alone), as an identity
of one stage. Files are checked before they are believed, never unpickled, and written whole or not
at all.
"""

__all__ = ["ENCODERS", "load_identity", "save_identity"]

import hashlib
import json
import re
from pathlib import Path

import torch
from torch import Tensor

from .container import load_tensors, save_tensors
from .errors import IdentityFileError, SefiError, one_line
from .identity import Identity

FORMAT, FORMAT_VERSION = "sefi-id", 1
ENCODERS = ("clip_l", "clip_g", "clip_h")
ARCHITECTURES = {
    ("clip_l", 768): "stable-diffusion-v1",
    ("clip_h", 1024): "stable-diffusion-v2-512",
    ("clip_g", 1280): "stable-diffusion-xl-v1-base",
}
MAX_IDENTITY = (
    8 << 20
)  # bytes; fifty stages for both text encoders of SDXL take less than one of these


def save_identity(
    identity: Identity, path: Path, metadata: dict[str, str] | None = None, anew: bool = False
) -> None:
    """Writes an identity with its own and the given metadata; equal ones are equal bytes. `anew`
    never replaces a file.

    Raises:
        IdentityFileError: It is larger than a reader takes, or the folder takes no file.
    """
    size = sum(pairs.numel() * pairs.itemsize for pairs in identity.pairs.values())
    if size > MAX_IDENTITY // 2:  # what else is in the file takes less than the other half
        raise IdentityFileError(
            f"{one_line(path.name)}: an identity of {size >> 20} MiB is larger than the "
            f"{MAX_IDENTITY >> 21} MiB that are read back; train one of fewer stages."
        )
    tensors = {f"pairs.{name}": pairs for name, pairs in identity.pairs.items()}
    tensors |= {name: pairs[:, 1].mean(dim=0) for name, pairs in identity.pairs.items()}
    widths = sorted(identity.widths.items())
    base = ARCHITECTURES.get(widths[0], "custom")
    digest = hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors)))
    save_tensors(
        tensors,
        path,
        {
            **identity.metadata,
            **(metadata or {}),
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "sefi.class_word": identity.class_word,
            "sefi.stages": str(identity.stages),
            "sefi.stage_edges": json.dumps(list(identity.edges)),
            "modelspec.sai_model_spec": "1.0.1",
            "modelspec.architecture": f"{base}/sefi-identity",
            "modelspec.implementation": "https://arxiv.org/abs/2402.00631",
            "modelspec.trigger_phrase": identity.placeholder,
            "modelspec.hash_sha256": f"0x{digest.hexdigest()}",
        },
        anew,
    )


def load_identity(path: Path) -> Identity:
    """Reads an identity, or a textual-inversion embedding as one.

    Raises:
        IdentityFileError: The file is neither, damaged, or from a newer version.
    """
    try:
        tensors, metadata = load_tensors(path, MAX_IDENTITY)
    except IdentityFileError as error:
        raise IdentityFileError(f"embedding: {error}") from error
    try:
        if metadata.get("format") == FORMAT:
            return identity_from(tensors, metadata)
        return identity_from_embedding(tensors)
    except SefiError as error:
        raise IdentityFileError(f"embedding: {one_line(path.name)}: {error}") from error


def identity_from(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Identity:
    version = metadata.get("format_version", "")
    if not re.fullmatch("[0-9]{1,9}", version):
        raise IdentityFileError(
            "its format version is not a number; ask its maker to save it again."
        )
    if int(version) > FORMAT_VERSION:
        raise IdentityFileError(
            f"it has format version {version}, this pack reads up to {FORMAT_VERSION}; update "
            "ComfyUI-SeFi-ID."
        )
    pairs = {name: tensors[f"pairs.{name}"] for name in ENCODERS if f"pairs.{name}" in tensors}
    unknown = sorted(set(tensors) - set(pairs) - {f"pairs.{name}" for name in pairs})
    if unknown or any(
        value.dtype not in (torch.float16, torch.float32) for value in pairs.values()
    ):
        raise IdentityFileError(
            "it holds tensors that an identity of this version does not have "
            f"({one_line(', '.join(unknown)) or 'not float16 or float32'}); update "
            "ComfyUI-SeFi-ID, or ask its maker to save it again."
        )
    try:
        edges = json.loads(metadata["sefi.stage_edges"])
        if not isinstance(edges, list) or not all(type(edge) is int for edge in edges):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IdentityFileError(
            "its stage edges are not a list of whole numbers; ask its maker to save it again."
        ) from error
    return Identity(
        {name: value.float() for name, value in pairs.items()},
        class_word=metadata.get("sefi.class_word") or "person",
        placeholder=metadata.get("modelspec.trigger_phrase") or Identity.placeholder,
        edges=tuple(edges),
        metadata=metadata,
    )


def identity_from_embedding(tensors: dict[str, Tensor]) -> Identity:
    """Returns an embedding's vectors as an identity of one stage whose K and V are equal."""
    named = {name: tensors[name] for name in ENCODERS if name in tensors}
    if "emb_params" in tensors:
        widths = {width: name for name, width in ARCHITECTURES}
        vectors = tensors["emb_params"]
        named = {widths.get(vectors.shape[-1] if vectors.ndim else 0, "clip_l"): vectors}
    if not named:
        raise IdentityFileError(
            "it is no SeFi identity and no textual-inversion embedding (it holds "
            f"{one_line(', '.join(sorted(tensors))) or 'nothing'}); choose another file."
        )
    if not all(vectors.ndim in (1, 2) and vectors.numel() for vectors in named.values()):
        raise IdentityFileError(
            f"its vectors have shapes {[list(vectors.shape) for vectors in named.values()]}, "
            "expected [tokens, width]; choose another file."
        )
    return Identity(
        {
            name: vectors.float().reshape(-1, vectors.shape[-1]).expand(1, 2, -1, -1).contiguous()
            for name, vectors in named.items()
        }
    )
