"""The rooms of the house, read off the imports: nodes -> nodes/host -> sefi_core, and the core
downward.
"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST_MODULES = {
    "comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths",
    "latent_preview", "node_helpers", "nodes", "server",
}  # fmt: skip
CORE_ALLOWED = {"torch", "einops", "safetensors", "numpy"}
CORE_SHARED = (
    "errors", "devices", "families", "stages", "words", "prompts", "samples", "protocols", "maps",
    "contexts", "losses", "predict",
)  # fmt: skip
"""Files of the core that all its rooms share; each imports those before it alone."""
HOST_ROOMS = {
    "text": set(), "apply": {"text", "page"}, "page": set(), "identities": set(),
    "train": {"text", "apply", "page"}, "cast": {"text", "page", "identities", "train"},
    "maps": {"text"}, "scores": {"text", "maps"},
}  # fmt: skip
"""The rooms of the host part, each with those that it may look into."""


def imports(path):
    """Yields (level, module) of every import in a file; level counts the leading dots."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.level, node.module
            else:
                yield from ((node.level, alias.name) for alias in node.names)


def files(root, folder):
    return sorted((root / folder).rglob("*.py"))


def resolved(path, level, module):
    """Returns a relative import as a path below the pack's root: ("sefi_core", "stages")."""
    package = path.relative_to(root_of(path)).parts[:-1]
    return (*package[: len(package) - level + 1], *module.split("."))


def root_of(path):
    return next(p for p in path.parents if (p / "sefi_core").is_dir() and (p / "nodes").is_dir())


def faults_of_core(root):
    """Yields what the core imports and may not: a host, a room of its own, a shared file above."""
    for path in files(root, "sefi_core"):
        room = path.relative_to(root / "sefi_core").parts[:-1]
        for level, module in imports(path):
            if level == 0:
                if module.split(".")[0] not in CORE_ALLOWED | set(sys.stdlib_module_names):
                    yield path.name, module
                continue
            core, *target = resolved(path, level, module)
            shared = target[0] in CORE_SHARED
            if core != "sefi_core" or not (shared or (target[0],) == room):
                yield path.name, module
            if shared and not room and path.stem in CORE_SHARED:
                if CORE_SHARED.index(target[0]) >= CORE_SHARED.index(path.stem):
                    yield path.name, module


def faults_of_nodes(root):
    """Yields what the nodes import and may not: ComfyUI outside a folder `host`, a schema from
    below, one room of the host part from another that does not stand under it.
    """
    for path in files(root, "nodes"):
        inside = path.relative_to(root / "nodes").parts
        for level, module in imports(path):
            if level == 0:
                allowed = HOST_MODULES if inside[0] == "host" else {"comfy_api"}
                if module.split(".")[0] in HOST_MODULES - allowed:
                    yield path.name, module
                continue
            target = resolved(path, level, module)
            if inside[0] != "host" or target[0] == "sefi_core":
                continue
            if target[:2] != ("nodes", "host"):
                yield path.name, module
                continue
            room = inside[1] if len(inside) > 2 else None
            other = target[2] if target[2] in HOST_ROOMS else None
            if other and other != room and other not in HOST_ROOMS.get(room, ()):
                yield path.name, module


def test_the_core_knows_no_host_and_its_rooms_know_only_what_they_share():
    assert list(faults_of_core(ROOT)) == []


def test_comfyui_is_imported_below_host_alone_and_rooms_look_downward():
    assert list(faults_of_nodes(ROOT)) == []


@pytest.mark.parametrize(
    ("place", "line", "faults"),
    [
        ("sefi_core/training/deep/planted.py", "import comfy.sample", faults_of_core),
        ("sefi_core/training/planted.py", "from ..picture import augment", faults_of_core),
        ("sefi_core/maps.py", "from .losses import LossTerms", faults_of_core),
        ("nodes/train/planted.py", "from comfy.sd import CLIP", faults_of_nodes),
        ("nodes/host/text/planted.py", "from ..train.run import Run", faults_of_nodes),
        ("nodes/host/train/planted.py", "from ...apply import NODES", faults_of_nodes),
    ],
)
def test_a_planted_import_is_found_in_any_folder(tmp_path, place, line, faults):
    (tmp_path / "sefi_core").mkdir()
    (tmp_path / "nodes").mkdir()
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n")
    assert [name for name, _ in faults(tmp_path)] == [path.name]


def test_every_file_of_the_core_stands_in_a_room_or_is_shared():
    loose = {path.stem for path in (ROOT / "sefi_core").glob("*.py")}
    assert loose == {*CORE_SHARED, "__init__"}


def test_no_import_goes_in_a_circle():
    arrows = {}
    for path in [*files(ROOT, "sefi_core"), *files(ROOT, "nodes")]:
        name = path.relative_to(ROOT).with_suffix("").parts
        arrows[name] = {resolved(path, lv, m) for lv, m in imports(path) if lv}
    while leaves := {name for name, to in arrows.items() if not to & arrows.keys()}:
        arrows = {name: to for name, to in arrows.items() if name not in leaves}
    assert not arrows


@pytest.mark.parametrize("path", sorted((ROOT / "nodes").glob("*.py")), ids=lambda p: p.name)
def test_an_execute_is_one_call(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == "execute":
            assert node.end_lineno - node.lineno < 8
            assert not [n for n in ast.walk(node) if isinstance(n, ast.For | ast.While | ast.Try)]


@pytest.mark.parametrize(
    "path", [ROOT / "__init__.py", *files(ROOT, "nodes"), *files(ROOT, "sefi_core")], ids=str
)
def test_no_module_changes_the_path_or_runs_another(path):
    text = path.read_text()
    assert not any(
        word in text for word in ("sys.path", "subprocess", " torch.load(", "pickle.", "eval(")
    )
