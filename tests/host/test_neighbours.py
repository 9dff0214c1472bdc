"""The table of docs/compatibility.md, measured: each cell is what this run finds.

    SEFI_WRITE_DOCS=1 pytest tests/host/test_neighbours.py

writes the cells of the rows and families that it runs; otherwise a cell that differs from the
committed one fails.
"""

import os
from pathlib import Path

import pytest
import seeded
import torch
from neighbours import NEIGHBOURS
from scene import Scene
from sefi_pack.nodes.host.text.encoder import class_tokens
from sefi_pack.sefi_core.errors import SefiError
from sefi_pack.sefi_core.identity.identity import Identity
from torch import Tensor

PAGE = Path(__file__).resolve().parents[2] / "docs/compatibility.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
SAME, ROUNDED, ACTS, REFUSED = "exact", "rounded", "acts", "refused: "  # the page says what each is
IDLE = {
    ("TomePatchModel", "SDXL")
}  # it merges on the first level alone, where SDXL has no attention
measured: dict[tuple[str, str], str] = {}


@pytest.fixture(scope="session")
def scenes():
    """Each family's scene: (plain, with a neutral identity, with a learned one)."""
    with torch.inference_mode():
        return {name: trio(name) for name in seeded.FAMILIES}


@pytest.fixture(scope="session", autouse=True)
def page():
    yield
    if os.environ.get("SEFI_WRITE_DOCS"):
        write(PAGE, committed() | measured)


def trio(family: str) -> tuple[Scene, Scene, Scene]:
    small = seeded.FAMILIES[family]
    plain = Scene(family, small.model(), small.clip(), small.vae())
    tokens = class_tokens(plain.clip, "person")
    neutral = {name: token.clone().expand(5, 2, 1, -1) for name, token in tokens.items()}
    generator = torch.Generator().manual_seed(7)
    learned = {
        name: 0.3 * torch.randn(5, 2, 1, width, generator=generator)
        for name, width in small.widths.items()
    }
    models = (family, plain.model, plain.clip, plain.vae)
    return plain, Scene(*models, Identity(neutral)), Scene(*models, Identity(learned))


def cell_of(graph, plain: Scene, neutral: Scene, learned: Scene, alone: Tensor | None) -> str:
    """Measures one graph; what deserves no cell fails.

    Arguments:
        alone: The plain picture without the neighbour, if another is expected of it.
    """
    person = graph(plain)
    assert alone is None or not torch.equal(person, alone), "the neighbour does nothing here"
    try:
        same, other = graph(neutral), graph(learned)
    except SefiError as refusal:
        return f"{REFUSED}{refusal}"
    untouched(plain.calls, neutral.calls)
    earned = []
    if torch.equal(same, person):
        earned.append(SAME)
    elif torch.allclose(same, person, rtol=1e-4, atol=1e-4):
        earned.append(ROUNDED)
    untouched(plain.calls, learned.calls)
    if not torch.equal(other, person):
        earned.append(ACTS)
    assert earned[:1] in ([SAME], [ROUNDED]), "a neutral identity changes the picture"
    return ", ".join(earned)


def untouched(plain: list, learned: list) -> None:
    """Asserts that all but the identity's own conditioning reached the UNet, and came out of it
    while both latents were still the same, as in the plain graph.
    """
    assert [(c.sigma, c.batch) for c in learned] == [(c.sigma, c.batch) for c in plain]
    assert not any(c.mine for c in plain)
    assert {c.mine for c in learned} == {True, False}
    for ours, theirs in zip(learned, plain, strict=True):
        if not ours.mine:
            assert torch.equal(ours.keys, theirs.keys)
            assert ours.values is None or torch.equal(ours.values, theirs.values)
            assert ours.sigma != learned[0].sigma or torch.equal(ours.output, theirs.output)


@pytest.mark.parametrize("family", seeded.FAMILIES)
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_cell(name, family, scenes):
    neighbour, idle = NEIGHBOURS[name], (name, family) in IDLE
    alone = neighbour.without(scenes[family][0]) if neighbour.without and not idle else None
    cells = {cell_of(graph, *scenes[family], alone) for graph in neighbour.graphs}
    (cell,) = cells
    measured[name, family] = cell
    if not os.environ.get("SEFI_WRITE_DOCS"):
        assert committed().get((name, family)) == cell


def committed() -> dict[tuple[str, str], str]:
    lines = PAGE.read_text().split(BEGIN)[1].split(END)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {
        (name, family): cell
        for name, *cells in rows[2:]
        for family, cell in zip(rows[0][1:], cells, strict=True)
    }


def write(page: Path, cells: dict[tuple[str, str], str]) -> None:
    families = list(seeded.FAMILIES)
    rows = [["with", *families], ["---"] * (len(families) + 1)]
    rows += [[name, *(cells.get((name, family), "") for family in families)] for name in NEIGHBOURS]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    before, rest = page.read_text().split(BEGIN)
    page.write_text(before + BEGIN + table + END + rest.split(END)[1])


@pytest.mark.skipif(bool(os.environ.get("SEFI_WRITE_DOCS")), reason="it is being written")
def test_the_page_has_all_rows_and_columns_and_no_others():
    assert set(committed()) == {(n, f) for n in NEIGHBOURS for f in seeded.FAMILIES}
    assert all(committed().values())
