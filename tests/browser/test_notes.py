"""What became of an identity, as its node shows it, in both renderings: a loss that a run has
found, then every other sentence. Whole, in the node, and over nothing else.
"""

import json

import pytest
import torch
from comfy_server import ROOT
from opened import on_the_miniature
from sefi_pack.sefi_core.identity.file_format import save_identity
from sefi_pack.sefi_core.identity.identity import Identity

BOTH = pytest.mark.parametrize("opened", [False, True], ids=["classic", "vue"], indirect=True)
WIDTH = 128  # of the miniature's tokens
NAMES = {"who": "V* and <b>", "where": "KSamplerAdvanced (12:3)", "first": "45", "last": "100"}


def sentences():
    """The ways of losing an identity, by name, as losses.py words them."""
    text = (ROOT / "nodes/host/apply/losses.py").read_text()
    scope = {}
    constants = text[text.index("MODEL = (") : text.index("def losses")]
    exec(constants, scope)  # noqa: S102 - the module itself imports the host
    found = {name.lower(): value for name, value in scope.items() if name.isupper()}
    return {name: sentence.format(**NAMES) for name, sentence in found.items()}


@pytest.fixture(scope="module")
def workflow(server):
    path = server.folder / "models/sefi/my_identity_00001_.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(1)
    save_identity(Identity({"clip_l": torch.randn(5, 2, 1, WIDTH, generator=generator)}), path)
    return on_the_miniature(json.loads((ROOT / "workflows/apply_identity.json").read_text()))


GEOMETRY = """async () => {
    const node = app.graph.nodes.find((n) => n.type === 'ApplySeFiConditioning')
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [200 - node.pos[0], 150 - node.pos[1]]
    app.canvas.deselectAllNodes?.()
    app.canvas.draw(true, true)
    await new Promise((done) => setTimeout(done, 700))
    const line = document.querySelector('.sefi-line')
    const box = (element) => {
        const { left, top, right, bottom } = element.getBoundingClientRect()
        return [left, top, right, bottom]
    }
    const vue = document.querySelector(`[data-node-id="${node.id}"]`)
    const canvas = app.canvas.canvas.getBoundingClientRect()
    const own = vue ? box(vue) : [
        canvas.x + 200, canvas.y + 150, canvas.x + 200 + node.size[0], canvas.y + 150 + node.size[1]
    ]
    const around = vue ?? document.querySelector('.dom-widget')?.parentElement ?? document.body
    const others = [...around.querySelectorAll('textarea, input, button')]
        .filter((e) => e.offsetParent && !line.contains(e) && !e.contains(line)).map(box)
    const drawn = vue ? [] : node.widgets.filter((w) => !w.element && !w.hidden && w.last_y)
        .map((w) => [own[0], own[1] + w.last_y, own[2], own[1] + w.last_y + 20])
    const nodes = vue
        ? [...document.querySelectorAll('[data-node-id]')].filter((e) => e !== vue).map(box)
        : app.graph.nodes.filter((n) => n !== node).map((n) => {
            const [x, y] = [own[0] + n.pos[0] - node.pos[0], own[1] + n.pos[1] - node.pos[1]]
            return [x, y - 30, x + n.size[0], y + n.size[1]]
        })
    return {
        line: box(line), own, others: [...others, ...drawn], nodes,
        hidden: line.scrollHeight - line.clientHeight
    }
}"""


def over(one, other):
    return min(one[2], other[2]) - max(one[0], other[0]) > 1 and (
        min(one[3], other[3]) - max(one[1], other[1]) > 1
    )


def check(opened, name):
    seen = opened.page.evaluate(GEOMETRY)
    opened.shoot(f"note_{'vue' if opened.vue else 'classic'}_{name}")
    left, top, right, bottom = seen["line"]
    own = seen["own"]
    assert own[0] <= left and own[1] <= top and right <= own[2] + 1 and bottom <= own[3] + 1, name
    assert right - left > 150 and bottom - top > 10 and seen["hidden"] <= 1, name
    assert not [other for other in seen["others"] if over(seen["line"], other)], name
    assert not [other for other in seen["nodes"] if over(own, other)], name


@BOTH
def test_every_loss_is_read_whole_in_its_node(opened, workflow):
    opened.open_workflow(workflow)
    opened.set_widgets("EmptyLatentImage", width=64, height=64)
    opened.set_widgets("KSampler", steps=1, seed=int(opened.vue))
    opened.page.evaluate(
        """() => {
            const [sampler, loader] = ['KSampler', 'LoadMiniatureWorld'].map(
                (type) => app.graph.nodes.find((n) => n.type === type))
            loader.connect(0, sampler, 0)
        }"""
    )
    opened.run_to_the_end()
    line = opened.page.locator(".sefi-line")
    line.filter(has_text="whose model does not come from Apply SeFi Conditioning").wait_for()
    check(opened, "a_run")
    for name, sentence in sentences().items():
        opened.page.evaluate(
            """line => window.comfyAPI.api.api.dispatchCustomEvent('sefi.note', {
                workflow: (app.rootGraph ?? app.graph).id, line,
                node: String(app.graph.nodes.find((n) => n.type === 'ApplySeFiConditioning').id)
            })""",
            sentence,
        )
        line.filter(has_text=sentence).wait_for()
        check(opened, name)


NOTES = {
    "choosing": ("running", "the prompt takes 1.9 of 2.3 GB that are free"),
    "stopped": (
        "stopped",
        "Stopped at step 480. To go on, press R and choose identity_20310203_040506.checkpoint"
        ".safetensors in resume; the identity so far is in /home/an/artists/ComfyUI/output/sefi/"
        "identity_20310203_040506.identity_so_far.safetensors. The stages 2 and 3 are alike: they "
        "learned the same, which costs nothing.",
    ),
}
PANEL = """async ([state, note]) => {
    const node = app.graph.nodes.find((n) => n.type === 'TrainSeFiID')
    const points = Array.from({ length: 480 }, (_, i) => [i + 1, 1 / (i + 9), 0.1, i % 5])
    window.comfyAPI.api.api.dispatchCustomEvent('sefi.progress', {
        workflow: (app.rootGraph ?? app.graph).id, node: String(node.id), prompt: note, total: 1000,
        done: 480, stages: 5, state, note, candidates: [3, 5], left: 3599, reference: 2,
        preview: 400, since: 0, points
    })
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [150 - node.pos[0], 850 - node.pos[1] - node.size[1]]
    app.canvas.draw(true, true)
    await new Promise((done) => setTimeout(done, 1000))
    const panel = document.querySelector('.sefi-panel')
    const bottom = (selector) => panel.querySelector(selector).getBoundingClientRect().bottom
    return {
        over: Math.max(...['note', 'legend', 'charts', 'pictures'].map((n) => bottom(`.sefi-${n}`)))
            - panel.getBoundingClientRect().bottom,
        hidden: panel.scrollHeight - panel.clientHeight, status: panel.innerText
    }
}"""


@BOTH
def test_the_panel_hides_none_of_its_words(opened, miniature):
    face = (ROOT / "docs/icon.png").read_bytes()
    opened.page.route("**/sefi/picture*", lambda route: route.fulfill(body=face))
    opened.open_workflow(miniature())
    for name, (state, note) in NOTES.items():
        seen = opened.page.evaluate(PANEL, [state, note])
        opened.shoot(f"panel_{'vue' if opened.vue else 'classic'}_{name}")
        assert note in seen["status"] and seen["over"] <= 0 and seen["hidden"] <= 1, name
        assert ("selecting a start, 3 of 5" in seen["status"]) == (state == "running")
