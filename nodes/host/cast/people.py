"""The people of a cast: a picture, or a sub-folder of pictures, for each, as files lie in a folder.

Beside a picture `anna.png` may lie `anna.txt`, what else is in it, and `anna.mask.png`, white where
the subject is; inside a sub-folder the same beside each picture, or beside the folder for all of
its pictures. What systems put into folders by themselves is passed over.
"""

__all__ = [
    "Person",
    "Shot",
    "connected_people",
    "folder_below",
    "folder_state",
    "people_in",
    "require_different",
]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ....sefi_core.errors import SettingsError, one_line
from ....sefi_core.words import cleaned
from ..prefixes import require_plain, same_name

PICTURES = {
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif",
    ".avif",
}  # fmt: skip
SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"}
MASK = ".mask"  # at the end of a picture's stem


@dataclass(frozen=True)
class Shot:
    """A picture's file, with those of its mask and its caption."""

    picture: Path
    mask: Path | None = None
    caption: Path | None = None

    @property
    def files(self) -> list[Path]:
        return [path for path in (self.picture, self.mask, self.caption) if path is not None]


@dataclass(frozen=True, eq=False)
class Person:
    """One of a cast.

    Attributes:
        shots: The files to learn from; none of a picture that is connected.
        image: A connected picture (1, H, W, 3 or 4).
        fault: The sentence that says why nothing can be learned from it; "" if it may be tried.
    """

    name: str
    shots: tuple[Shot, ...] = ()
    image: Tensor | None = None
    fault: str = ""


def folder_below(root: Path, name: str) -> Path:
    """Returns the folder that an artist names under `root`.

    Raises:
        SettingsError: There is none, or it lies elsewhere.
    """
    plain = cleaned(name).replace("\\", "/")
    path = root / plain
    try:
        inside = path.resolve().is_relative_to(root.resolve()) and path.is_dir()
    except (OSError, ValueError):  # a zero in the name
        inside = False
    if not inside or not plain:
        raise SettingsError(
            f'folder: there is no folder "{one_line(name)}" in {root.name}/; put one there, with a '
            "picture or a sub-folder of pictures for each person, and write its name."
        )
    return path


def people_in(folder: Path, root: Path) -> tuple[list[Person], list[str]]:
    """Returns the people of a folder by their names, and the names of files that are none's.

    Arguments:
        root: No link may lead out of it.

    Raises:
        SettingsError: There are none, or two have one name.
    """
    entries = entries_of(folder)
    named = {
        entry: entry.name if entry.is_dir() else entry.stem
        for entry in entries
        if entry.is_dir() or is_picture(entry)
    }
    require_different([(name, entry.name) for entry, name in named.items()])
    found, used = [], set(named)
    for entry, name in named.items():
        mask, caption = beside(entries, name)
        used |= {path for path in (mask, caption) if path is not None}
        shots = shots_in(entry) if entry.is_dir() else [Shot(entry)]
        shots = [
            replace(shot, mask=shot.mask or mask, caption=shot.caption or caption) for shot in shots
        ]
        fault = fault_of(entry, name, shots, root)
        found.append(Person(name, () if fault else tuple(shots), fault=fault))
    if not found:
        raise SettingsError(
            f'folder: "{one_line(folder.name)}" holds no pictures; put a picture, or a sub-folder '
            "of pictures, there for each person."
        )
    return found, [entry.name for entry in entries if entry not in used]


def connected_people(images: Sequence[Tensor], names: str) -> list[Person]:
    """Returns the people of connected IMAGEs, one a picture, named line by line.

    Raises:
        SettingsError: There are not as many names as pictures, or two have one name.
    """
    pictures = [one for image in images for one in image.split(1)]
    lines = [cleaned(line) for line in names.splitlines() if cleaned(line)]
    if len(lines) != len(pictures):
        raise SettingsError(
            f"names: there are {len(lines)} names for {len(pictures)} pictures; write one on a "
            "line for each picture, in their order."
        )
    require_different([(line, line) for line in lines])
    return [
        Person(require_plain("names", name), image=picture)
        for name, picture in zip(lines, pictures, strict=True)
    ]


def folder_state(folder: Path) -> tuple:
    """Returns what tells a folder's files, and those of its sub-folders, from what they were."""
    state = []
    for path in entries_of(folder):
        for file in entries_of(path) if path.is_dir() else [path]:
            try:
                stat = file.stat()
            except OSError:
                continue
            state.append((str(file.relative_to(folder)), stat.st_mtime_ns, stat.st_size))
    return tuple(state)


def require_different(names: Iterable[tuple[str, str]]) -> None:
    """Raises SettingsError if two names are one on many disks; each has what it stands for."""
    seen: dict[str, str] = {}
    for name, of in names:
        key = same_name(cleaned(name))
        if key in seen:
            raise SettingsError(
                f'folder: "{one_line(seen[key])}" and "{one_line(of)}" would be one person, as '
                "their names differ in nothing that every disk keeps apart; rename one of them."
            )
        seen[key] = of


def entries_of(folder: Path) -> list[Path]:
    """Returns what lies in a folder, but for what systems put there; in an order of its own."""
    entries = [e for e in folder.iterdir() if e.name[0] != "." and e.name.lower() not in SYSTEM]
    return sorted(entries, key=lambda entry: (same_name(entry.name), entry.name))


def is_picture(entry: Path) -> bool:
    """Whether a file is a picture to learn from, by its name."""
    named = entry.suffix.lower() in PICTURES and not entry.stem.lower().endswith(MASK)
    return named and not entry.is_dir()


def beside(entries: Iterable[Path], name: str) -> tuple[Path | None, Path | None]:
    """Returns the mask and the caption that lie beside what has this name."""
    kept = {same_name(entry.name): entry for entry in entries if not entry.is_dir()}
    return kept.get(same_name(f"{name}{MASK}.png")), kept.get(same_name(f"{name}.txt"))


def shots_in(folder: Path) -> list[Shot]:
    entries = entries_of(folder)
    return [Shot(entry, *beside(entries, entry.stem)) for entry in entries if is_picture(entry)]


def fault_of(entry: Path, name: str, shots: Sequence[Shot], root: Path) -> str:
    """Returns the sentence that says why a person cannot be learned; "" if they can be tried."""
    try:
        require_plain("folder", name)
        require_inside([entry, *(path for shot in shots for path in shot.files)], root)
        if not shots:
            raise SettingsError(
                f'folder: the sub-folder "{one_line(name)}" has no picture in it; put one there, '
                "or take it out."
            )
    except SettingsError as error:
        return str(error)
    return ""


def require_inside(paths: Iterable[Path], root: Path) -> None:
    """Raises SettingsError for a link that leads out of a folder."""
    top = root.resolve()
    for path in paths:
        if not path.resolve().is_relative_to(top):
            raise SettingsError(
                f'folder: "{one_line(path.name)}" is a link that leads out of {root.name}/; put '
                "the file itself there."
            )
