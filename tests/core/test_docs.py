"""What the pages say of the pack and of each other is so: links, paths, rooms, errors, files."""

import re
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from sefi_pack.sefi_core.training.config import PRESETS, TrainingConfig
from sefi_pack.sefi_core.training.learner import Learner

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))
try:
    from benchmarks.messages import messages
finally:
    sys.path.remove(str(ROOT))

PAGES = sorted(
    page for folder in (".", "docs", "web/docs", "benchmarks/world")
    for page in (ROOT / folder).glob("*.md")
)  # fmt: skip
HELP = ROOT / "web/docs"
OURS = "https://github.com/comfyui-sefi-id/ComfyUI-SeFi-ID/blob/main/"
MESSAGES = messages()
ERRORS = re.compile(r"^\| (the sentence (begins|goes on)|you see) \|", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def named(page):
    return str(page.relative_to(ROOT))


@cache
def prose(page):
    """Returns a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """Returns the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def section(page, head):
    """Returns what stands under a heading, up to the next of its level."""
    return re.search(rf"^## {head}$(.*?)(?=^## |\Z)", prose(page), re.DOTALL | re.MULTILINE)[1]


def broken(page):
    """Yields the links of a page that lead nowhere."""
    for link in LINK.findall(prose(page)):
        file, _, anchor = link.partition("#")
        if file.startswith(OURS):
            target = ROOT / file.removeprefix(OURS)
        elif file.startswith("http"):
            continue
        else:
            target = page.parent / file if file else page
            if page.parent == HELP and target.resolve().parent != HELP:
                yield link  # ComfyUI shows these pages by themselves
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_and_anchors_lead_somewhere(page):
    assert list(broken(page)) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One head\n[a](#one-head) [b](#none) [c](none.md) [d](page.md#one-head)\n")
    assert list(broken(page)) == ["#none", "none.md"]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_paths_of_the_code_are_there(page):
    tops = "|".join(re.escape(path.name) for path in ROOT.iterdir() if path.is_dir())
    paths = re.findall(rf"`((?:{tops})/[\w./*-]*)`", prose(page))
    made = ("demo/", "tests/browser/shots")  # by the commands of the page
    gone = [path for path in paths if not path.startswith(made) and not list(ROOT.glob(path))]
    assert gone == []


def rooms(*tops):
    """Returns the folders of the code below these, and these, as `sefi_core/identity/`."""
    inside = [path for top in tops for path in [ROOT / top, *(ROOT / top).rglob("*")]]
    folders = {path for path in inside if list(path.glob("*.py"))}
    return {f"{named(path)}/" for path in folders}


def test_the_map_names_every_room_and_no_other():
    table = section(ROOT / "CONTRIBUTING.md", "Where things are").split("###")[0]
    told = set(re.findall(r"^\| `([\w/]+/)`", table, flags=re.MULTILINE))
    assert told == rooms("sefi_core", "nodes") | {"web/"}


def test_the_core_names_its_rooms_and_what_they_share_itself():
    text = (ROOT / "sefi_core/__init__.py").read_text()
    told = set(re.findall(r"^    (\w+)/ ", text, flags=re.MULTILINE))
    assert {f"sefi_core/{room}/" for room in told} == rooms("sefi_core") - {"sefi_core/"}
    shared = re.search(r"^    (\w+(?:,\s+\w+)+)$", text, flags=re.MULTILINE)[1]
    told = [*re.findall(r"\w+", shared), "__init__"]
    assert sorted(told) == sorted(path.stem for path in ROOT.glob("sefi_core/*.py"))


def is_said(quoted):
    """Whether the code says this of an input; "…", numbers and what stands in quotation marks are
    what it fills in. Of a sentence that it puts together, every part must stand in its file.
    """
    if quoted.startswith("…"):  # it goes on like this
        parts = [part.strip() for part in quoted.split("…")]
        return any(all(part in message.text for part in parts) for message in MESSAGES)
    field, _, said = quoted.partition(": ")
    parts = [part.strip(" .") for part in re.split(r"…|\d+|\"[^\"]*\"", said)]
    pattern = ".*".join(map(re.escape, parts))
    for message in MESSAGES:
        of, _, text = message.text.partition(": ")
        if of == field or of.startswith("<"):
            source = (ROOT / message.place.split(":")[0]).read_text()
            together = text.startswith("<") and all(part in source for part in parts)
            if together or re.match(pattern, text.replace('"', "")):
                return True
    return False


@pytest.mark.parametrize("page", [p for p in PAGES if ERRORS.search(prose(p))], ids=named)
def test_the_errors_of_a_page_are_those_of_the_code(page):
    table = prose(page)[ERRORS.search(prose(page)).end() :]
    rows = re.findall(r"^\| (`.+?) \|", table, flags=re.MULTILINE)
    quoted = [quote for row in rows for quote in re.findall(r"`(…[^`]+|[^`]+: [^`]+)`", row)]
    assert quoted
    assert [quote for quote in quoted if not is_said(quote)] == []


def test_the_tensors_of_a_checkpoint_are_those_of_a_learner():
    """Its other two, what it has shown, are the host's."""
    told = re.findall(r"^\| `(\w+)", section(ROOT / "docs/training-files.md", "Checkpoint"), re.M)
    heads = set()
    for config in (PRESETS["default"], TrainingConfig()):
        learner = Learner({"clip_l": torch.zeros(8)}, config, scaled=True)
        heads |= {name.split(".")[0] for name in learner.state()}
    assert {*heads, "optimizer", "samples", "stages"} == set(told)


def test_the_number_of_the_arithmetic_is_the_code_s():
    (number,) = (
        found
        for path in (ROOT / "nodes/host").rglob("*.py")
        for found in re.findall(r"^ARITHMETIC = (\d+)", path.read_text(), flags=re.MULTILINE)
    )
    text = " ".join(section(ROOT / "docs/training-files.md", "After an update").split())
    assert f"in this version it is {number}." in text
