"""The folder that the command fills: one whole identity file a person, which tells by itself what
it was made from and how its training went.
"""

__all__ = ["Shelf", "cover_in", "curve_in", "key_of", "packed"]

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from ....sefi_core.errors import IdentityFileError, SettingsError
from ....sefi_core.identity.container import load_header, write_whole
from ....sefi_core.identity.file_format import load_identity, save_identity
from ..identities.saving import cover_of
from ..images import as_image
from ..train.files import Outcome
from ..train.trainer import ARITHMETIC
from .learning import Learned
from .people import Person

RECORD = "sefi.cast"  # metadata: the key of what it was made from, and the losses in brief
FEW_POINTS = 120
LOCK, FILE = ".cast.lock", "identity.safetensors"


class Shelf:
    """A folder of identity files by the names of people."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"--out: {folder} cannot be made ({error.strerror}); name another folder."
            ) from error

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def metadata(self, name: str) -> dict[str, str]:
        """Returns what a person's file tells; nothing if there is no whole one."""
        with suppress(IdentityFileError):
            return load_header(self.path(name))[1]
        return {}

    def holds(self, name: str, key: str) -> bool:
        """Returns whether a person's file was made from just this."""
        return record_in(self.metadata(name)).get("key") == key

    def put(self, name: str, data: bytes) -> None:
        """Writes a person's whole file in place of an older one, or not at all.

        Raises:
            IdentityFileError: It is no whole identity, or the folder takes no file.
        """
        with TemporaryDirectory() as folder:
            path = Path(folder) / FILE
            path.write_bytes(data)
            load_identity(path)  # nothing that does not read back takes a place
        write_whole(self.path(name), [data])

    @contextmanager
    def alone(self) -> Iterator["Shelf"]:
        """Yields itself, and keeps a second run away until this one ends, however it does.

        Raises:
            SettingsError: Another run fills the folder.
        """
        with (self.folder / LOCK).open("a+b") as file:
            try:
                lock(file.fileno())
            except OSError as error:
                raise SettingsError(
                    f"--out: another run fills {self.folder} just now; wait for it, or name "
                    "another folder."
                ) from error
            yield self


def lock(handle: int) -> None:
    """Locks an open file until it is closed or its process ends; raises OSError if it is locked."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def key_of(person: Person, settings: dict, checkpoint: str) -> str:
    """Returns a hash of all that an identity is made from: a person's files, the settings, the
    checkpoint's own hash, and the arithmetic of this version.
    """
    digest = hashlib.sha256(json.dumps([settings, checkpoint, ARITHMETIC], sort_keys=True).encode())
    for shot in person.shots:
        for file in shot.files:
            data = file.read_bytes()
            digest.update(f"{file.name} {len(data)} ".encode() + data)
    return digest.hexdigest()[:32]


def packed(learned: Learned, key: str) -> bytes:
    """Returns a person's whole identity file, with the last preview as its cover."""
    identity, outcome = learned.identity, learned.outcome
    record = {"key": key, "curve": thinned(outcome)}
    metadata = {"modelspec.title": learned.name, RECORD: json.dumps(record)}
    samples: Tensor = outcome.shown.samples
    if len(samples):
        metadata |= cover_of(as_image(samples[-1:]))
    with TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        save_identity(identity, path, metadata)
        return path.read_bytes()


def thinned(outcome: Outcome) -> list[list[float]]:
    """Returns [step, denoising, attention] of a few steps, each the mean of those since the last,
    to four digits.
    """
    losses = outcome.losses
    apart = -(-len(losses) // FEW_POINTS)
    means = [part.mean(dim=0).tolist() for part in losses.split(apart)]
    return [
        [min((i + 1) * apart, len(losses)), float(f"{a:.4g}"), float(f"{b:.4g}")]
        for i, (a, b) in enumerate(means)
    ]


def record_in(metadata: dict[str, str]) -> dict:
    with suppress(ValueError, RecursionError):
        found = json.loads(metadata.get(RECORD, ""))
        return found if isinstance(found, dict) else {}
    return {}


def curve_in(metadata: dict[str, str]) -> list[list[float]]:
    """Returns the losses in brief that a file tells of."""
    curve = record_in(metadata).get("curve")
    return curve if isinstance(curve, list) else []


def cover_in(metadata: dict[str, str]) -> bytes:
    """Returns the JPEG of a file's cover; b"" if it has none."""
    _, _, text = metadata.get("modelspec.thumbnail", "").partition("base64,")
    with suppress(ValueError):
        return base64.b64decode(text)
    return b""
