"""The panel of Train SeFi ID in a genuine page, in both renderings of nodes."""

import json
import re
import time

import pytest
from opened import PATIENCE
from safetensors.torch import load_file

BOTH = pytest.mark.parametrize("opened", [False, True], ids=["classic", "vue"], indirect=True)
SHORT = {"resolution": 64, "checkpoint_every": 0, "preview_every": 0}
PLAIN = SHORT | {"preset": "paper"}  # no start is chosen, no subject looked for


def steps_shown(opened):
    """The steps of all points, as the page remembers them for the workflow or draws them."""
    return opened.page.evaluate(
        "app.graph.nodes.find((n) => n.type === 'TrainSeFiID').properties.sefi_training?.points"
        ".map((point) => point[0])"
    )


def slowly(route):
    time.sleep(4)
    route.continue_()


@BOTH
def test_it_fills_survives_a_reload_and_keeps_what_is_there(opened, server, miniature):
    opened.open_workflow(miniature())
    seed, total = (5 if opened.vue else 4), 2000
    name = "vue" if opened.vue else "classic"
    opened.set_widgets(
        "TrainSeFiID", steps=total, train_seed=seed, name=name, **SHORT | {"preview_every": 5}
    )
    opened.set_widgets("SaveSeFiEmbedding", filename_prefix=f"kept_{name}")
    assert "while it trains" in opened.panel()
    opened.run()
    opened.wait_for_panel("preview at step 5")
    assert "left" in opened.panel() and f"/ {total}" in opened.panel()
    # The second reference, whose subject has been found, has taken the first one's place.
    for image in ("of=reference&number=2", "of=preview"):
        opened.page.wait_for_function(
            "of => document.querySelector(`.sefi-pictures img[src*='${of}']`).naturalWidth > 0",
            arg=image,
        )
    before = opened.dots()
    assert before >= 5
    opened.shoot(f"panel_{name}_running")

    # In the middle, and so slowly that messages arrive before the nodes are known.
    opened.page.route("**/object_info", slowly)
    opened.load()
    opened.page.unroute("**/object_info")
    opened.wait_for_panel(f"/ {total}")
    opened.page.wait_for_function(
        "n => document.querySelectorAll('.sefi-denoising .sefi-dots').length > 0 && "
        "[...document.querySelectorAll('.sefi-denoising .sefi-dots')]"
        ".map((p) => p.getAttribute('d')).join('').split('M').length > n + 1",
        arg=before,
    )
    assert opened.dots() > before

    opened.page.get_by_role("button", name="Stop and keep").click()
    opened.wait_for_panel("stopped and kept at step")
    opened.wait_until_idle()
    assert "in resume" in opened.panel()
    opened.shoot(f"panel_{name}_kept")
    (saved,) = (server.folder / "models/sefi").glob(f"kept_{name}_*.safetensors")
    (checkpoint,) = (server.folder / "output/sefi").glob(f"{name}_*.checkpoint.safetensors")
    done = len(load_file(checkpoint)["losses"])
    assert 5 < done < total and f"step {done} / {total}" in opened.panel()
    assert load_file(saved)["pairs.clip_l"].shape[:3] == (5, 2, 1)
    assert steps_shown(opened) == list(range(1, done + 1)) or len(steps_shown(opened)) > 100
    assert not list((server.folder / "output/sefi").glob(f"finished/*{name}*"))


@BOTH
def test_a_saved_workflow_shows_its_finished_curve_again(opened, miniature):
    opened.open_workflow(miniature())
    opened.set_widgets("TrainSeFiID", steps=6, train_seed=70 + opened.vue, **PLAIN)
    opened.run()
    opened.wait_for_panel("finished, 6 steps")
    opened.wait_until_idle()
    saved = json.loads(opened.page.evaluate("JSON.stringify(app.graph.serialize())"))
    kept = next(n for n in saved["nodes"] if n["type"] == "TrainSeFiID")
    assert len(kept["widgets_values"]) == 19  # the panel is none of them
    assert "/9j/" not in json.dumps(saved)  # no picture either
    # The server has never heard of these workflows: the first brings its curve in its file, the
    # second is answered by what the host remembers of the first run.
    opened.open_workflow(saved | {"id": "11111111-2222-4333-8444-555555555555"})
    opened.wait_for_panel("finished, 6 steps")
    assert opened.dots() == 6
    assert opened.page.locator(".sefi-pictures img").count() == 0
    del kept["properties"]["sefi_training"]
    opened.open_workflow(saved | {"id": "66666666-2222-4333-8444-555555555555"})
    assert "while it trains" in opened.panel()
    opened.run()
    opened.wait_for_panel("finished, 6 steps")
    assert opened.dots() == 6


def test_another_workflow_and_another_tab_stay_as_they_are(opened, miniature):
    """Two trainings in a row, of two workflows whose nodes have the same numbers."""
    first = miniature(id="aaaaaaaa-0000-4000-8000-000000000000")
    second = miniature(id="bbbbbbbb-0000-4000-8000-000000000000")
    tab = opened.page.context.new_page()
    tab.set_default_timeout(PATIENCE)
    tab.goto(f"http://{opened.server.address}/", wait_until="domcontentloaded")
    tab.wait_for_function("window.app?.graph?.id && app.extensionManager?.setting")
    tab.evaluate("graph => app.loadGraphData(graph)", second)
    opened.open_workflow(first)
    opened.set_widgets("TrainSeFiID", steps=30, train_seed=8, **PLAIN)
    opened.run()
    opened.wait_for_panel(re.compile("/ 30|30 steps"))  # thirty steps may be over in one look
    assert "while it trains" in tab.locator(".sefi-panel").inner_text()

    opened.open_workflow(second)
    opened.set_widgets("TrainSeFiID", steps=7, train_seed=9, **PLAIN)
    assert "while it trains" in opened.panel()
    opened.run()
    opened.wait_for_panel("finished, 7 steps")
    opened.wait_until_idle()
    assert "while it trains" in tab.locator(".sefi-panel").inner_text()  # it queued nothing
    assert opened.dots() == 7

    opened.open_workflow(first)
    opened.wait_for_panel("finished, 30 steps")
    assert opened.dots() == 30
    tab.evaluate("graph => app.loadGraphData(graph)", first)
    tab.wait_for_timeout(1000)
    assert "while it trains" in tab.locator(".sefi-panel").inner_text()
    tab.close()


def test_a_removed_node_leaves_nothing_behind(opened, miniature):
    opened.open_workflow(miniature())
    opened.set_widgets("TrainSeFiID", steps=8, train_seed=10, **PLAIN)
    opened.run()
    opened.page.evaluate("app.graph.remove(app.graph.nodes.find((n) => n.type === 'TrainSeFiID'))")
    opened.wait_until_idle()
    assert opened.page.locator(".sefi-panel").count() == 0
