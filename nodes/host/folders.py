"""Where files live: identities in models/sefi, running and finished trainings in the host's output
folder.
"""

__all__ = [
    "NO_CHECKPOINT",
    "checkpoint_names",
    "checkpoint_path",
    "face_model_path",
    "file_state",
    "finished_path",
    "finished_paths",
    "identity_names",
    "identity_path",
    "input_folder",
    "last_identity_path",
    "new_embedding_path",
    "new_identity_path",
    "partial_path",
    "require_plain",
    "running_path",
]

import re
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from unicodedata import normalize

import folder_paths

from ...sefi_core.errors import IdentityFileError, SettingsError, one_line
from .prefixes import of_fitting_length, parts_of, require_plain, same_name

IDENTITIES = "sefi"
FACE_MODELS = "sefi_face"
EXTENSIONS = {".safetensors", ".sft"}
EMBEDDINGS_PREFIX = "textual inversion/"
NO_CHECKPOINT = "[none]"
CHECKPOINT_SUFFIX = ".checkpoint.safetensors"


def register() -> None:
    """Makes models/sefi and models/sefi_face known to the host; folders of extra_model_paths.yaml
    stay first.
    """
    for name, extensions in ((IDENTITIES, EXTENSIONS), (FACE_MODELS, {".onnx"})):
        folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name))
        # The host gives a new folder no extensions, which lists every file in it.
        paths = folder_paths.get_folder_paths(name)
        folder_paths.folder_names_and_paths[name] = (paths, extensions)


register()


def identity_names() -> list[str]:
    """Returns what Load SeFi Embedding offers: our identities, then the host's safe embeddings."""
    embeddings = folder_paths.get_filename_list("embeddings")
    return folder_paths.get_filename_list(IDENTITIES) + [
        EMBEDDINGS_PREFIX + name for name in embeddings if Path(name).suffix.lower() in EXTENSIONS
    ]


def identity_path(name: str) -> Path:
    """Returns the file of a listed name, which may come from a stranger's workflow.

    Raises:
        IdentityFileError: There is none inside the folders.
    """
    name = str(name)
    path = found_path(name) or found_path(listed(name, identity_names()))
    if path is None:
        found = one_line(", ".join(identity_names()), 300) or "nothing"
        raise IdentityFileError(
            f'embedding: "{one_line(name)}" is not in models/{folder_of(name)} (to choose from: '
            f"{found}); put the file there and press R, or choose another."
        )
    return Path(path)


def found_path(name: str) -> str | None:
    if "\0" in name:
        return None
    try:
        return folder_paths.get_full_path(folder_of(name), name.removeprefix(EMBEDDINGS_PREFIX))
    except ValueError:  # on Windows, a name on another drive
        return None


def folder_of(name: str) -> str:
    return "embeddings" if name.startswith(EMBEDDINGS_PREFIX) else IDENTITIES


def listed(name: str, names: list[str]) -> str:
    """Returns that of the names which a workflow of another system means: separators and the
    composition of letters differ between them.
    """
    if name in names:
        return name
    return next((known for known in names if portable(known) == portable(name)), name)


def portable(name: str) -> str:
    return normalize("NFC", name).replace("\\", "/")


def face_model_path(kind: str) -> Path | None:
    """Returns the first file in models/sefi_face whose name contains `kind`, in lower case."""
    names = folder_paths.get_filename_list(FACE_MODELS)
    found = next((name for name in sorted(names) if kind in Path(name).name.lower()), None)
    return found and Path(folder_paths.get_full_path_or_raise(FACE_MODELS, found))


def file_state(name: str | None) -> tuple:
    """Returns what tells a changed file from an unchanged one; nothing for a name that is not
    there.
    """
    try:
        state = identity_path(name or "").stat()
    except (IdentityFileError, OSError):
        return ()
    return state.st_mtime_ns, state.st_size


def new_identity_path(prefix: str, tried: int = 0) -> Path:
    """Returns models/sefi/<prefix>_00001_.safetensors with the first number that looks free, or one
    `tried` later; `prefix` may name sub-folders. Only writing tells which names are one on a disk.
    """
    folder, name, taken = saved_under(prefix)
    number = 1 + max(taken, default=0) + tried
    return of_fitting_length(folder / f"{name}_{number:05}_.safetensors")


def last_identity_path(prefix: str) -> Path | None:
    """Returns the file of the highest number under a prefix; None if there is none."""
    _, _, taken = saved_under(prefix)
    return taken[max(taken)] if taken else None


def saved_under(prefix: str) -> tuple[Path, str, dict[int, Path]]:
    """Returns the folder and the name of a prefix, and the files under it by their numbers."""
    *folders, name = parts_of(prefix)
    folder = Path(folder_paths.get_folder_paths(IDENTITIES)[0]).joinpath(*folders)
    taken = {}
    for path in folder.glob("*_.safetensors"):
        match = re.match(rf"{re.escape(same_name(name))}_(\d+)_\.", same_name(path.name))
        if match:
            taken[int(match[1])] = path
    return folder, name, taken


def new_embedding_path(prefix: str, tried: int = 0) -> tuple[Path, str]:
    """Returns a file in models/embeddings that looks free, or the one `tried` later, and its name
    in prompts, which hold no spaces: <prefix>, <prefix>_2, ...; `prefix` may name sub-folders.
    """
    parts = parts_of(prefix)
    for part in parts:
        if " " in part:
            raise SettingsError(
                f'filename_prefix: "{part}" has a space, where a prompt would end the name; write '
                f'"{part.replace(" ", "_")}".'
            )
    name = "/".join(parts)
    folder = Path(folder_paths.get_folder_paths("embeddings")[0])
    present = {same_name(path.name) for path in (folder / name).parent.glob("*.*")}
    names = (name if number == 1 else f"{name}_{number}" for number in count(1))
    looks_free = (n for n in names if not any(map(starting(n), present)))
    free = next(islice(looks_free, tried, None))
    return of_fitting_length(folder / f"{free}.safetensors"), free


def starting(name: str) -> Callable[[str], bool]:
    """Returns whether a present file's name is this one with any ending."""
    return lambda present: present.startswith(same_name(f"{name.rpartition('/')[2]}."))


def input_folder() -> Path:
    return Path(folder_paths.get_input_directory())


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory()) / "sefi"


def running_path(name: str, fingerprint: str) -> Path:
    """Returns the checkpoint file of the one running training with this name and fingerprint."""
    return output_folder() / f"{name}_{fingerprint[:8]}{CHECKPOINT_SUFFIX}"


def partial_path(checkpoint: Path) -> Path:
    """Returns the file beside a checkpoint that holds the identity so far."""
    return checkpoint.with_name(
        checkpoint.name.removesuffix(CHECKPOINT_SUFFIX) + ".identity_so_far.safetensors"
    )


def finished_path(key: str) -> Path:
    """Returns the file of a finished training by the content hash of all that shaped it."""
    return output_folder() / "finished" / f"{key}.safetensors"


def finished_paths() -> list[Path]:
    """Returns the files of all finished trainings, newest first."""
    return sorted((output_folder() / "finished").glob("*.safetensors"), key=age)


def checkpoint_names() -> list[str]:
    """Returns what `resume` offers: [none], then the checkpoints, newest first."""
    found = output_folder().glob(f"*{CHECKPOINT_SUFFIX}")
    return [NO_CHECKPOINT, *(path.name for path in sorted(found, key=age))]


def age(path: Path) -> float:
    """Returns a number that grows with a file's age; a file may vanish while files are listed."""
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0


def checkpoint_path(name: str) -> Path:
    """Returns the checkpoint of a listed name.

    Raises:
        SettingsError: There is none in the folder.
    """
    name = listed(str(name), checkpoint_names())
    path = output_folder() / Path(name).name
    if path.name != name or not name.endswith(CHECKPOINT_SUFFIX) or not path.is_file():
        raise SettingsError(
            f'resume: there is no checkpoint "{one_line(name)}" in output/sefi; '
            "press R and choose one that is there, or [none]."
        )
    return path
