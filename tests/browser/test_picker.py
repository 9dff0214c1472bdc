"""The picker of Load SeFi Embedding in a genuine page, with files that do not mean well."""

import base64
import json
import re
import shutil
from io import BytesIO

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

BOTH = pytest.mark.parametrize("opened", [False, True], ids=["classic", "vue"], indirect=True)
EVIL = '<img src=x onerror="window.robbed = 1">'
GRAPH = {
    "version": 0.4, "last_node_id": 1, "last_link_id": 0, "links": [], "groups": [], "config": {},
    "extra": {},
    "nodes": [{
        "id": 1, "type": "LoadSeFiEmbedding", "pos": [100, 100], "size": [380, 100], "flags": {},
        "order": 0, "mode": 0, "inputs": [], "outputs": [], "properties": {},
        "widgets_values": ["people/anna.safetensors"],
    }],
}  # fmt: skip


def jpeg(colour):
    data = BytesIO()
    Image.new("RGB", (64, 64), colour).save(data, "JPEG")
    return base64.b64encode(data.getvalue()).decode()


def put(folder, name, pairs="pairs.clip_l", **metadata):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    given = {re.sub("^(modelspec|sefi)_", r"\1.", key): v for key, v in metadata.items()}
    save_file({pairs: torch.zeros(5, 2, 1, 768)}, path, {"format": "sefi-id", **given})


@pytest.fixture(scope="module")
def folder(server):
    """The server's identities: these alone, whatever the tests before have saved there."""
    folder = server.folder / "models/sefi"
    shutil.rmtree(folder, ignore_errors=True)
    put(
        folder,
        "people/anna.safetensors",
        modelspec_title="Anna",
        sefi_class_word="person",
        modelspec_date="2026-01-31T10:00:00",
        ssmd_cover_images=json.dumps([jpeg("teal")]),
    )
    put(
        folder,
        "rex.safetensors",
        modelspec_title="Rex",
        sefi_class_word="iguana",
        modelspec_thumbnail=f"data:image/jpeg;base64,{jpeg('peru')}",
    )
    texts = (
        "title",
        "author",
        "description",
        "date",
        "trigger_phrase",
        "thumbnail",
        "architecture",
    )
    put(
        folder,
        "evil.safetensors",
        sefi_class_word=EVIL,
        ssmd_cover_images=json.dumps([EVIL]),
        **{f"modelspec_{text}": EVIL for text in texts},
    )
    put(folder, "abroad.safetensors", modelspec_thumbnail="https://example.com/a.jpg")
    (folder / "broken.safetensors").write_bytes(b"\xff" * 64)
    return folder  # fmt: skip


def titles(opened):
    return opened.page.locator(".sefi-card .sefi-title").all_inner_texts()


@BOTH
def test_it_shows_searches_and_picks(opened, folder):
    opened.open_workflow(GRAPH)
    name = "vue" if opened.vue else "classic"
    opened.press_widget("LoadSeFiEmbedding", "Browse identities")
    anna = opened.page.get_by_role("button", name="Anna")
    anna.wait_for()
    assert "person · SD 1.x · 2026-01-31 · 32 KB" in anna.inner_text()
    assert anna.evaluate("card => card.classList.contains('sefi-chosen')")
    opened.page.wait_for_function(
        "[...document.querySelectorAll('.sefi-cover img')]"
        ".filter((image) => image.naturalWidth).length === 2"
    )
    assert (
        "this file cannot be read"
        in opened.page.locator(".sefi-card", has_text="broken").inner_text()
    )
    opened.shoot(f"picker_{name}")

    evil = opened.page.locator(".sefi-card", has_text="evil.safetensors")
    assert evil.locator(".sefi-title").inner_text() == EVIL
    assert EVIL in evil.locator(".sefi-facts").inner_text()
    assert evil.locator("img").count() == 0
    assert opened.page.evaluate("window.robbed") is None

    opened.page.keyboard.type("IGUANA sd")
    assert titles(opened) == ["Rex"]
    opened.page.keyboard.press("Enter")
    opened.page.locator(".sefi-picker").wait_for(state="detached")
    value = "app.graph.nodes[0].widgets.find((w) => w.name === 'embedding').value"
    assert opened.page.evaluate(value) == "rex.safetensors"
    if opened.vue:
        opened.page.get_by_text("rex.safetensors").first.wait_for()
    serialized = opened.page.evaluate("app.graph.serialize().nodes[0].widgets_values")
    assert serialized == ["rex.safetensors"]

    put(folder, f"late_{name}.safetensors", modelspec_title=f"Late {name}")
    opened.press_widget("LoadSeFiEmbedding", "Browse identities")
    opened.page.get_by_role("button", name=f"Late {name}").click()
    assert opened.page.evaluate(value) == f"late_{name}.safetensors"
    options = opened.page.evaluate(value.replace(".value", ".options.values"))
    assert f"late_{name}.safetensors" in options


def test_it_is_a_plain_list_without_room_and_escape_closes_it(opened, folder):
    opened.open_workflow(GRAPH)
    size = opened.page.viewport_size
    opened.press_widget("LoadSeFiEmbedding", "Browse identities")
    card = opened.page.locator(".sefi-card", has_text="Anna")
    card.wait_for()
    assert card.locator(".sefi-cover").is_visible()
    opened.page.set_viewport_size({"width": 480, "height": 700})
    assert not card.locator(".sefi-cover").is_visible()
    assert card.bounding_box()["height"] < 40
    opened.shoot("picker_list")
    opened.page.keyboard.press("Escape")
    opened.page.locator(".sefi-picker").wait_for(state="detached")
    opened.page.set_viewport_size(size)
    assert opened.page.evaluate("app.graph.nodes[0].widgets[0].value") == "people/anna.safetensors"


PICKED = """async () => {
    const prompt = (await app.graphToPrompt()).output
    return Object.values(prompt).find((n) => n.class_type === 'LoadSeFiEmbedding').inputs.embedding
}"""


def picked(opened, source):
    """What is queued after a choice in the picker, when `source` (JavaScript) drives the widget."""
    opened.open_workflow(GRAPH)
    opened.page.evaluate(
        """async (source) => {
            const node = app.graph.nodes.find((n) => n.type === 'LoadSeFiEmbedding')
            const made = await new Function('node', `return (async () => { ${source} })()`)(node)
            ;(made ?? node).widgets.find((w) => w.name === 'Browse identities').callback()
        }""",
        source,
    )
    opened.page.get_by_role("button", name="Rex").click()
    return opened.page.evaluate(PICKED)


def test_it_sets_the_primitive_that_drives_the_widget(opened, folder):
    assert (
        picked(
            opened,
            "const p = LiteGraph.createNode('PrimitiveNode'); app.graph.add(p);"
            "p.connect(0, node, node.inputs.findIndex((i) => i.name === 'embedding'));"
            "await new Promise((done) => setTimeout(done, 300))",
        )
        == "rex.safetensors"
    )


def test_it_sets_the_subgraph_that_drives_the_widget(opened, folder):
    assert (
        picked(
            opened,
            "const { subgraph } = app.graph.convertToSubgraph(new Set([node]));"
            "const inner = subgraph.nodes[0];"
            "const slot = inner.inputs.find((i) => i.name === 'embedding');"
            "subgraph.addInput('embedding', 'COMBO').connect(slot, inner);"
            "await new Promise((done) => setTimeout(done, 300)); return inner",
        )
        == "rex.safetensors"
    )


def test_it_says_when_a_link_brings_the_choice(opened, folder):
    before = picked(
        opened,
        "const p = LiteGraph.createNode('LoadSeFiEmbedding'); app.graph.add(p);"
        "p.addOutput('name', 'COMBO');"
        "p.connect(1, node, node.inputs.findIndex((i) => i.name === 'embedding'))",
    )
    assert "comes by a link" in opened.page.locator(".sefi-picker .sefi-message").inner_text()
    opened.page.keyboard.press("Escape")
    assert before != "rex.safetensors"
