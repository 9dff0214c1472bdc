"""A `.safetensors` on disk: read only after a look at its header, written whole or not at all.

The only file of the core that touches the disk. Equal contents are equal bytes. Never unpickled.
"""

__all__ = [
    "MAX_HEADER",
    "NameTakenError",
    "load_header",
    "load_tensors",
    "save_tensors",
    "write_whole",
]

import json
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from errno import EEXIST, ENOENT
from pathlib import Path
from uuid import uuid4

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import IdentityFileError, one_line

SUFFIXES = (".safetensors", ".sft")
STALE_SECONDS = 3600  # much longer than any file takes to be written
MAX_HEADER = 1 << 20  # bytes; the host shows metadata only below it
WAITS = (0.02, 0.1, 0.4)  # seconds; Windows renames over no file that somebody has open


class NameTakenError(IdentityFileError):
    """There is a file of that name, as the file system sees names: on many, `Anna` is `anna`."""


def save_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str], anew: bool = False
) -> None:
    """Writes tensors and metadata whole or not at all, the header sorted; `anew` never replaces a
    file, not even one that somebody else has written this moment.

    Raises:
        NameTakenError: `anew`, and there is a file of that name.
        IdentityFileError: The metadata is larger than a reader takes, or the folder takes no file;
            what was there before is there still.
    """
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    # A page may send half a character, which no file can hold.
    metadata = {key: text.encode("utf-8", "replace").decode() for key, text in metadata.items()}
    header, body = sorted_header(safetensors.torch.save(tensors, metadata=metadata))
    if len(header) > MAX_HEADER:
        raise refused(
            path,
            f"its texts and cover take {len(header) >> 10} KiB, at most {MAX_HEADER >> 10} KiB "
            "fit; shorten the notes or take a smaller thumbnail",
        )
    write_whole(path, [len(header).to_bytes(8, "little"), header, body], anew)


def write_whole(path: Path, parts: Iterable[bytes | memoryview], anew: bool = False) -> None:
    """Writes a file whole or not at all; `anew` never replaces one.

    Raises:
        NameTakenError: `anew`, and there is a file of that name.
        IdentityFileError: The folder takes no file; what was there before is there still.
    """
    partial = path.with_name(f".{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        with partial.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        give_name(partial, path, anew)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, FileExistsError) and anew and path.parent.is_dir():
            raise NameTakenError(str(not_written(path, error))) from error
        if isinstance(error, OSError):
            raise not_written(path, error) from error
        raise


def not_written(path: Path, error: OSError) -> IdentityFileError:
    return refused(
        path,
        f"it cannot be written to {path.parent} ({error.strerror}); make room there, or allow "
        "writing",
    )


def sweep(folder: Path) -> None:
    """Removes what a process left here that was killed while it wrote."""
    for partial in folder.glob(".*.tmp"):
        with suppress(OSError):
            old = time.time() - partial.stat().st_mtime > STALE_SECONDS
            if old and re.fullmatch(r"\.[0-9a-f]{32}\.tmp", partial.name):
                partial.unlink()


def give_name(partial: Path, path: Path, anew: bool) -> None:
    """Renames a whole file; where it must be new, by a link, which an existing name stops."""
    if anew:
        try:
            path.hardlink_to(partial)
        except FileExistsError:
            raise
        except OSError as error:  # a file system without links
            if path.exists():
                raise FileExistsError(EEXIST, os.strerror(EEXIST)) from error
        else:
            partial.unlink()
            return
        partial.rename(path)
        return
    for seconds in WAITS:
        try:
            partial.replace(path)
            return
        except PermissionError:
            time.sleep(seconds)
    partial.replace(path)


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
    data, size = read_start(path, max_bytes)
    if size > max_bytes:
        raise refused(
            path,
            f"it is larger than {max_bytes >> 20} MiB, the most such a file may take; choose "
            "another file",
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
    data, _ = read_start(path, 8 + MAX_HEADER, of_more=True)
    return checked_header(path, data)


def read_start(path: Path, limit: int, of_more: bool = False) -> tuple[bytes, int]:
    """Returns the first `limit` bytes of a file whose name says that it is a `.safetensors`, and
    its size; of a larger file nothing, unless `of_more`. What changes on the disk afterwards does
    not matter.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise refused(
            path,
            f"only {' and '.join(SUFFIXES)} files are read, because others can run code; ask its "
            "maker for one of these",
        )
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise FileNotFoundError(ENOENT, "there is no such file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(limit) if of_more or size <= limit else b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name is none that a file can have"
        raise refused(path, f"it cannot be read ({reason}); check the file") from error
    return data, size


def checked_header(path: Path, data: bytes) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Returns the header's shapes and metadata after a look at the header alone."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise damaged(path)
    if size > MAX_HEADER:
        raise refused(
            path,
            f"its header takes {size >> 10} KiB, at most {MAX_HEADER >> 10} KiB are read; choose "
            "another file",
        )
    try:
        fields = json.loads(data[8 : 8 + size], object_pairs_hook=fields_once)
        metadata = fields.pop("__metadata__", {})
        if not all(isinstance(item, str) for pair in metadata.items() for item in pair):
            raise TypeError
        return {name: list(field["shape"]) for name, field in fields.items()}, metadata
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise refused(
            path,
            "it is not a safetensors file, whatever its name says; fetch or train it again",
        ) from error


def fields_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Returns a JSON object; two readers may take different ones of fields with one name."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands twice")
    return fields


def damaged(path: Path) -> IdentityFileError:
    return refused(path, "the file is damaged or cut off; fetch or train it again")


def refused(path: Path, why: str) -> IdentityFileError:
    return IdentityFileError(f"{one_line(path.name)}: {why}.")
