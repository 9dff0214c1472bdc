"""Two people on one server with the same workflow file: neither is shown what the other does."""

import pytest
from opened import VIEWPORT, Opened
from test_panel import PLAIN

NAMES = {"left": ("anna", 900), "right": ("bob", 910)}


@pytest.fixture
def pair(server, browser):
    both = {name: Opened(server, browser.new_context(viewport=VIEWPORT), False) for name in NAMES}
    yield both
    for tab in both.values():
        complaints, abroad = tab.told()
        tab.page.context.close()
        assert complaints == [] and abroad == []


def trained(tab, who, seed):
    tab.set_widgets("TrainSeFiID", steps=6, train_seed=seed, name=who, **PLAIN)
    tab.set_widgets("SaveSeFiEmbedding", filename_prefix=f"{who}/%date:yyyy%_%Train SeFi ID.name%")
    tab.run_to_the_end()
    tab.wait_for_panel("finished, 6 steps")
    tab.page.locator(".sefi-line", has_text=who).first.wait_for()


def shown(tab):
    return tab.page.inner_text("body")


def told_by_the_server(tab):
    return tab.page.evaluate(
        """async () => (await fetch(`/sefi/trainings?workflow=${app.graph.id}`
            + `&client=${window.app.api?.clientId ?? window.name}`)).json()"""
    )


def test_neither_sees_what_the_other_trains_and_saves(pair, server, miniature):
    workflow = miniature(id="cccccccc-0000-4000-8000-000000000000")
    for tab in pair.values():
        tab.open_workflow(workflow)
    for turn in (0, 1):
        for name, tab in pair.items():
            who, seed = NAMES[name]
            trained(tab, who, seed + turn)
            tab.shoot(f"two_{name}_{turn}")
            other_name = "right" if name == "left" else "left"
            other, stranger = pair[other_name], NAMES[other_name][0]
            other.page.wait_for_timeout(500)
            assert who not in shown(other) and stranger not in shown(tab)
            if (turn, name) == (0, "left"):
                assert "while it trains" in other.panel()
                other.load()  # asks the server for what there is
                other.open_workflow(workflow)
                assert "while it trains" in other.panel() and who not in shown(other)
    for tab in pair.values():
        tab.load()
        tab.wait_for_panel("finished, 6 steps")
        told = told_by_the_server(tab)
        assert len(told) == 1 and told[0]["done"] == 6


def test_a_copied_node_begins_without_a_curve(pair, miniature):
    tab = pair["left"]
    tab.open_workflow(miniature(id="dddddddd-0000-4000-8000-000000000000"))
    trained(tab, "carla", 930)
    kept = tab.page.evaluate(
        """() => {
            const node = app.graph.nodes.find((n) => n.type === 'TrainSeFiID')
            app.canvas.selectItems([node])
            app.canvas.copyToClipboard([node])
            app.canvas.pasteFromClipboard()
            return app.graph.nodes.filter((n) => n.type === 'TrainSeFiID')
                .map((n) => 'sefi_training' in n.properties)
        }"""
    )
    assert sorted(kept) == [False, True]
    panels = tab.page.locator(".sefi-panel").all_inner_texts()
    assert sum("finished, 6 steps" in text for text in panels) == 1
    assert sum("while it trains" in text for text in panels) == 1
