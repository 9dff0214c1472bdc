"""The rooms of the house, read off the imports: nodes -> nodes/host -> sefi_core, and the core
downward.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST_MODULES = {
    "comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths",
    "latent_preview", "node_helpers", "nodes", "server",
}  # fmt: skip
CORE_ALLOWED = {"torch", "einops", "safetensors", "numpy"}
CORE_ORDER = (
    "errors", "backbone", "devices", "stages", "prompts", "identity", "group", "edit", "generator",
    "contexts", "maps", "heatmap", "losses", "memory", "augment", "framing", "recipe", "guard",
    "learner", "prediction", "probe", "word", "subject", "race", "training", "together",
    "container", "texts", "file_format", "evaluation",
)  # fmt: skip


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


def files(folder):
    return sorted((ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("path", files("sefi_core"), ids=lambda p: p.name)
def test_the_core_knows_no_host_and_imports_downward(path):
    import sys

    standard = sys.stdlib_module_names
    above = CORE_ORDER[CORE_ORDER.index(path.stem) :] if path.stem in CORE_ORDER else CORE_ORDER
    for level, module in imports(path):
        if level == 0:
            assert module.split(".")[0] in CORE_ALLOWED | standard, module
        else:
            assert level == 1 and module not in above, module


def test_every_core_file_has_its_place_in_the_order():
    assert {path.stem for path in files("sefi_core")} == {*CORE_ORDER, "__init__"}


@pytest.mark.parametrize("path", files("nodes"), ids=lambda p: p.name)
def test_nodes_ask_the_host_only_for_its_node_interface(path):
    for level, module in imports(path):
        if level == 0:
            assert module.split(".")[0] not in HOST_MODULES - {"comfy_api"}, module


@pytest.mark.parametrize("path", files("nodes"), ids=lambda p: p.name)
def test_an_execute_is_one_call(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == "execute":
            assert node.end_lineno - node.lineno < 8
            assert not [n for n in ast.walk(node) if isinstance(n, ast.For | ast.While | ast.Try)]


@pytest.mark.parametrize("path", files("nodes/host"), ids=lambda p: p.name)
def test_the_adapter_never_imports_a_node(path):
    assert all(level != 2 for level, _ in imports(path))


@pytest.mark.parametrize(
    "path", [ROOT / "__init__.py", *files("nodes"), *files("nodes/host"), *files("sefi_core")]
)
def test_no_module_changes_the_path_or_runs_another(path):
    text = path.read_text()
    assert not any(
        word in text for word in ("sys.path", "subprocess", " torch.load(", "pickle.", "eval(")
    )
