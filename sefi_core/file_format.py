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

__all__ = ["ENCODERS", "load_identity", "load_tensors", "save_identity", "save_tensors"]

import hashlib
import json
import os
import tempfile
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from .errors import IdentityFileError, SefiError
from .identity import Identity

FORMAT, FORMAT_VERSION = "sefi-id", 1
ENCODERS = ("clip_l", "clip_g", "clip_h")
ARCHITECTURES = {
    ("clip_l", 768): "stable-diffusion-v1",
    ("clip_h", 1024): "stable-diffusion-v2-512",
    ("clip_g", 1280): "stable-diffusion-xl-v1-base",
}
MAX_HEADER = 1 << 20  # bytes; the host shows metadata only below it
MAX_IDENTITY = 64 << 20  # bytes


def save_identity(identity: Identity, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes an identity with its own and the given metadata; equal ones are equal bytes."""
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
    )


def load_identity(path: Path) -> Identity:
    """Reads an identity, or a textual-inversion embedding as one.

    Raises:
        IdentityFileError: The file is neither, damaged, or from a newer version.
    """
    tensors, metadata = load_tensors(path, MAX_IDENTITY)
    try:
        if metadata.get("format") == FORMAT:
            return identity_from(tensors, metadata)
        return identity_from_embedding(tensors)
    except (SefiError, ValueError, KeyError, TypeError) as error:
        raise IdentityFileError(f"{path.name}: {error}") from error


def identity_from(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Identity:
    version = metadata.get("format_version", "")
    if not version.isascii() or not version.isdigit():
        raise IdentityFileError("its format version is not a number; ask for the file again.")
    if int(version[:9]) > FORMAT_VERSION:
        raise IdentityFileError(
            f"it has format version {version[:9]}, this pack reads up to {FORMAT_VERSION}; update ComfyUI-SeFi-ID."
        )
    pairs = {name: tensors.pop(f"pairs.{name}") for name in ENCODERS if f"pairs.{name}" in tensors}
    unknown = sorted(set(tensors) - set(pairs))
    if unknown:
        raise IdentityFileError(
            f"it holds tensors no SeFi identity has ({', '.join(unknown)[:120]}); ask for the file again."
        )
    try:
        edges = tuple(json.loads(metadata["sefi.stage_edges"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IdentityFileError(
            "its stage edges cannot be read; ask for the file again."
        ) from error
    if not all(type(edge) is int for edge in edges):
        raise IdentityFileError("its stage edges are not whole numbers; ask for the file again.")
    return Identity(
        {name: value.float() for name, value in pairs.items()},
        class_word=metadata.get("sefi.class_word") or "person",
        placeholder=metadata.get("modelspec.trigger_phrase") or Identity.placeholder,
        edges=edges,
        metadata=metadata,
    )


def identity_from_embedding(tensors: dict[str, Tensor]) -> Identity:
    """Returns an embedding's vectors as an identity of one stage whose K and V are equal."""
    named = {name: tensors[name] for name in ENCODERS if name in tensors}
    if "emb_params" in tensors:
        widths = {width: name for name, width in ARCHITECTURES}
        named = {widths.get(tensors["emb_params"].shape[-1], "clip_l"): tensors["emb_params"]}
    if not named:
        raise IdentityFileError(
            "it is no SeFi identity and no textual-inversion embedding "
            f"(it holds {', '.join(sorted(tensors))[:120] or 'nothing'}); choose another file."
        )
    return Identity(
        {
            name: vectors.float().reshape(-1, vectors.shape[-1]).expand(1, 2, -1, -1).contiguous()
            for name, vectors in named.items()
        }
    )


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Writes a `.safetensors` whole or not at all, its header sorted."""
    data = canonical(
        safetensors.torch.save({k: v.contiguous() for k, v in tensors.items()}, metadata=metadata)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def canonical(data: bytes) -> bytes:
    """Sorts a saved file's header, whose metadata the library writes in random order; tensors do
    not move.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(
        json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)  # the format keeps tensors on 8-byte boundaries
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def load_tensors(path: Path, max_bytes: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads the tensors and metadata of a `.safetensors` of at most `max_bytes`.

    Raises:
        IdentityFileError: It is missing, too large, damaged or of another kind.
    """
    if path.suffix.lower() not in (".safetensors", ".sft"):
        raise IdentityFileError(
            f'{path.name}: only ".safetensors" files are read, because others can run code; '
            "ask for the file in that format."
        )
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise IdentityFileError(
            f"{path.name}: it cannot be read ({error.strerror}); check the file."
        ) from error
    if len(data) > max_bytes:
        raise IdentityFileError(
            f"{path.name}: it is larger than the {max_bytes >> 20} MiB that such a file may take; choose another file."
        )
    metadata = checked_metadata(path, data)
    try:
        return safetensors.torch.load(data), metadata
    except (SafetensorError, ValueError, KeyError, OverflowError, RuntimeError) as error:
        raise IdentityFileError(
            f"{path.name}: the file is damaged or cut off; fetch or train it again."
        ) from error


def checked_metadata(path: Path, data: bytes) -> dict[str, str]:
    """Returns the header's metadata after a look at the header alone."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise IdentityFileError(
            f"{path.name}: the file is damaged or cut off; fetch or train it again."
        )
    if size > MAX_HEADER:
        raise IdentityFileError(
            f"{path.name}: its header takes {size >> 10} KiB, more than {MAX_HEADER >> 10}; choose another file."
        )
    try:
        header = json.loads(data[8 : 8 + size])
        metadata = header.get("__metadata__", {})
        if not all(isinstance(item, str) for pair in metadata.items() for item in pair):
            raise TypeError
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise IdentityFileError(
            f"{path.name}: it is not a safetensors file, whatever its name says; fetch or train it again."
        ) from error
    return metadata
