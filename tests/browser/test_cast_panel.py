"""The panel of Train SeFi Cast in a genuine page: everybody's picture and name."""

import sys

import numpy as np
import pytest
from comfy_server import ROOT
from PIL import Image

sys.path.append(str(ROOT))
try:
    from benchmarks.world.drawing import Picture, render
    from benchmarks.world.subjects import split
finally:
    sys.path.remove(str(ROOT))

# The paper's preset selects no start, whose comparisons would take most of the time here.
SETTINGS = {
    "folder": "town", "steps": 8, "resolution": 64, "preview_every": 4, "at_once": 2,
    "preset": "paper",
}  # fmt: skip


@pytest.fixture(scope="module")
def town(server):
    """Four people and one who cannot be learned, in the server's input folder."""
    folder = server.folder / "input/town"
    folder.mkdir(exist_ok=True)
    for i, person in enumerate(split("person", "test")[:4]):
        pixels = render(Picture("face", (person,)), np.random.default_rng(11))
        Image.fromarray(pixels).save(folder / f"{'abcd'[i]}nna.png")
    (folder / "broken.png").write_bytes(b"no picture")


@pytest.mark.parametrize("opened", [False, True], ids=["classic", "vue"], indirect=True)
def test_everybody_is_shown_while_they_learn_and_afterwards(opened, town, miniature):
    opened.open_workflow(miniature())
    opened.put_cast()
    opened.set_widgets("TrainSeFiCast", **SETTINGS, train_seed=int(opened.vue))
    assert "while it trains" in opened.panel()
    opened.run()
    opened.wait_for_panel("1 of 5 people")  # the broken one is told of at once
    opened.page.locator(".sefi-is-running img").nth(1).wait_for()
    opened.shoot(f"cast_{'vue' if opened.vue else 'classic'}_running")
    opened.wait_for_panel("finished")
    opened.wait_until_idle()
    assert "5 of 5 people" in opened.panel() and "no whole picture" in opened.panel()
    assert opened.page.locator(".sefi-is-finished img").count() == 4
    opened.page.wait_for_function(
        "[...document.querySelectorAll('.sefi-is-finished img')].every((i) => i.naturalWidth > 0)"
    )
    opened.shoot(f"cast_{'vue' if opened.vue else 'classic'}_finished")
    opened.load()  # from the server's record
    opened.wait_for_panel("5 of 5 people")
    assert opened.page.locator(".sefi-is-finished img").count() == 4
