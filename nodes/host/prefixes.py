"""What an artist may write as the name of a new file: `faces/anna`, `%date:yyyy-MM-dd%/anna`."""

__all__ = ["of_fitting_length", "parts_of", "require_plain", "same_name"]

import os
import re
from datetime import datetime
from pathlib import Path
from unicodedata import normalize

from ...sefi_core.errors import SettingsError, one_line
from ...sefi_core.words import cleaned, is_plain_name

MOST_FOLDERS = 8
LONGEST_PATH = 259 if os.name == "nt" else 4095  # signs, on Windows; bytes elsewhere
LONGEST_PARTIAL = 38  # signs of the name that a file has while it is written
SEPARATORS = re.compile(r"[/\\\uff0f\uff3c]")  # the full-width ones too
PARTS = {"year": "%Y", "month": "%m", "day": "%d", "hour": "%H", "minute": "%M", "second": "%S"}
LETTERS = {"d": "day", "M": "month", "h": "hour", "m": "minute", "s": "second"}


def parts_of(prefix: str) -> list[str]:
    """Returns the folders and the name of a prefix, with dates filled in as the host's Save nodes
    fill them in.

    Raises:
        SettingsError: They cannot be the names of files on every system.
    """
    parts = SEPARATORS.split(dated(cleaned(prefix), datetime.now()))
    if len(parts) > MOST_FOLDERS:
        raise SettingsError(
            f"filename_prefix: it names {len(parts) - 1} sub-folders; use at most "
            f"{MOST_FOLDERS - 1}."
        )
    return [require_plain("filename_prefix", part) for part in parts]


def require_plain(field: str, name: str) -> str:
    """Returns a name cleaned; raises SettingsError unless it is one part of a path and nothing
    more.
    """
    plain = cleaned(name)
    if not is_plain_name(plain):
        raise SettingsError(
            f'{field}: "{one_line(name)}" is no plain name; use 1 to 80 letters (fewer in some '
            'scripts), digits, spaces, ".", "-" and "_", with no space or dot at either end, and '
            "none that Windows keeps for itself, such as CON."
        )
    return plain


def dated(prefix: str, now: datetime) -> str:
    """Returns a prefix with its %year%, %month% ... and %date:yyyy-MM-dd% filled in."""
    for name, code in PARTS.items():
        prefix = prefix.replace(f"%{name}%", now.strftime(code))
    return re.sub(r"%date:([^%]+)%", lambda found: formatted(found[1], now), prefix)


def formatted(form: str, now: datetime) -> str:
    """Returns a date by the letters that the host's page knows; a colon is in no name of a file."""

    def part(found: re.Match[str]) -> str:
        letters = found[0]
        if letters[0] == "y":
            return {2: f"{now.year:04}"[2:], 4: f"{now.year:04}"}.get(len(letters), letters)
        return str(getattr(now, LETTERS[letters[0]])).zfill(len(letters))

    return re.sub("dd?|MM?|hh?|mm?|ss?|yyy?y?", part, form).replace(":", "-")


def same_name(name: str) -> str:
    """Returns what is equal for names that are one on many disks."""
    return normalize("NFC", normalize("NFC", name).casefold())


def of_fitting_length(path: Path) -> Path:
    """Returns a path that the system can open; while it is written, its file has another name."""
    absolute = str(path.absolute())
    partial = absolute[: -len(path.name)] + "x" * LONGEST_PARTIAL
    length = max(len(text if os.name == "nt" else text.encode()) for text in (absolute, partial))
    if length > LONGEST_PATH:
        raise SettingsError(
            f"filename_prefix: with its folders the file's name takes {length} signs, the system "
            f"takes {LONGEST_PATH}; shorten it, or move ComfyUI to a folder nearer the top."
        )
    return path
