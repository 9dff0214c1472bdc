"""A `.safetensors` on disk: read only after a look at its header, written whole or not at all.

The only file of the core that touches the disk. Equal contents are equal bytes. Never unpickled.
"""

__all__ = ["MAX_HEADER", "load_header", "load_tensors", "save_tensors"]

import json
import os
from pathlib import Path
from uuid import uuid4

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from .errors import IdentityFileError

SUFFIXES = (".safetensors", ".sft")
MAX_HEADER = 1 << 20  # bytes; the host shows metadata only below it


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Writes tensors and metadata whole or not at all, the header sorted.

    Raises:
        IdentityFileError: The metadata is larger than a reader takes; nothing is written.
    """
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    header, body = sorted_header(safetensors.torch.save(tensors, metadata=metadata))
    if len(header) > MAX_HEADER:
        raise IdentityFileError(
            f"{path.name}: its texts and cover take {len(header) >> 10} KiB, at most "
            f"{MAX_HEADER >> 10} KiB fit; shorten the notes or take a smaller thumbnail."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid4().hex}.tmp")
    try:
        with partial.open("xb") as file:
            file.write(len(header).to_bytes(8, "little"))
            file.write(header)
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sorted_header(data: bytes) -> tuple[bytes, memoryview]:
    """Returns a saved file's header, which the library writes in random order, sorted; and the rest
    as it is.
    """
    size = int.from_bytes(data[:8], "little")
    fields = json.loads(data[8 : 8 + size])
    header = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format keeps tensors on 8-byte boundaries
    return header, memoryview(data)[8 + size :]


def load_tensors(path: Path, max_bytes: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads the tensors and metadata of a `.safetensors` of at most `max_bytes`.

    Raises:
        IdentityFileError: It is missing, too large, damaged or of another kind.
    """
    data = read_start(path, max_bytes + 1)
    if len(data) > max_bytes:
        raise IdentityFileError(
            f"{path.name}: it is larger than {max_bytes >> 20} MiB, the most such a file may take; "
            "choose another file."
        )
    _, metadata = checked_header(path, data)
    try:
        return safetensors.torch.load(data), metadata
    except (SafetensorError, ValueError, KeyError, OverflowError, RuntimeError) as error:
        raise damaged(path) from error


def load_header(path: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Reads the shapes, by tensor name, and the metadata of a `.safetensors`; of the file no more
    than a header may take.

    Raises:
        IdentityFileError: It is missing, damaged or of another kind.
    """
    return checked_header(path, read_start(path, 8 + MAX_HEADER))


def read_start(path: Path, size: int) -> bytes:
    """Returns the first `size` bytes of a file whose name says that it is a `.safetensors`."""
    if path.suffix.lower() not in SUFFIXES:
        raise IdentityFileError(
            f"{path.name}: only {' and '.join(SUFFIXES)} files are read, because others can run "
            "code; ask its maker for one of these."
        )
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise IdentityFileError(
            f"{path.name}: it cannot be read ({error.strerror}); check the file."
        ) from error


def checked_header(path: Path, data: bytes) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Returns the header's shapes and metadata after a look at the header alone."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise damaged(path)
    if size > MAX_HEADER:
        raise IdentityFileError(
            f"{path.name}: its header takes {size >> 10} KiB, at most {MAX_HEADER >> 10} KiB are "
            "read; choose another file."
        )
    try:
        fields = json.loads(data[8 : 8 + size])
        metadata = fields.pop("__metadata__", {})
        if not all(isinstance(item, str) for pair in metadata.items() for item in pair):
            raise TypeError
        return {name: list(field["shape"]) for name, field in fields.items()}, metadata
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise IdentityFileError(
            f"{path.name}: it is not a safetensors file, whatever its name says; fetch or train "
            "it again."
        ) from error


def damaged(path: Path) -> IdentityFileError:
    return IdentityFileError(
        f"{path.name}: the file is damaged or cut off; fetch or train it again."
    )
