"""The page's pure modules under `node --test`, and what all of web/ keeps to."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WEB = HERE.parents[1] / "web"
MODULES = sorted([*WEB.glob("*.mjs"), *WEB.glob("*.js")])


def test_pure_modules():
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    files = sorted(map(str, HERE.glob("*.test.mjs")))
    done = subprocess.run([node, "--test", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def imported(path):
    return re.findall(r"from '([^']+)'", path.read_text())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_two_files_know_the_page_and_nobody_parses_html(path):
    knows = any("/scripts/" in module for module in imported(path))
    assert knows == (path.name in ("sefi.js", "bridge.mjs"))
    text = path.read_text()
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|\.prototype|onDraw|https?:(?!//www\.w3)"
    assert not re.search(forbidden, text)
    if path.name not in ("sefi.js", "bridge.mjs"):
        assert "bridge" not in "".join(imported(path))


def test_one_file_is_loaded_by_the_host():
    """It imports every .js by itself; the others wait to be imported."""
    assert [path.name for path in WEB.rglob("*.js")] == ["sefi.js"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_files_are_short_and_narrow(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 160 and max(map(len, lines)) <= 100
