"""The workflow files by themselves: what the editor would complain about, or silently repair."""

import json

import pytest
from PIL import Image
from ui_graph import WORKFLOWS

NAMES = [
    "apply_identity",
    "attention_and_scores",
    "detailer_and_upscale",
    "edit_stages",
    "pet_or_thing",
    "regional_two_people",
    "sdxl",
    "sdxl_tags",
    "train_and_apply",
    "train_identity",
    "two_people",
    "with_controlnet_and_lora",
]


@pytest.fixture(params=NAMES)
def workflow(request):
    return json.loads((WORKFLOWS / f"{request.param}.json").read_text())


def test_all_of_them_are_checked():
    assert sorted(path.stem for path in WORKFLOWS.glob("*.json")) == NAMES


def test_every_link_is_known_to_both_its_ends_and_to_nothing_else(workflow):
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {number: rest for number, *rest in workflow["links"]}
    assert len(links) == len(workflow["links"])
    for number, (origin, out, target, into, kind) in links.items():
        source, sink = nodes[origin]["outputs"][out], nodes[target]["inputs"][into]
        assert number in source["links"] and number == sink["link"]
        assert source["type"] == kind and sink["type"] in (kind, "*")
    named_out = [
        n for node in nodes.values() for out in node["outputs"] for n in out["links"] or ()
    ]
    named_in = [s["link"] for node in nodes.values() for s in node["inputs"] if s["link"]]
    assert sorted(named_out) == sorted(named_in) == sorted(links)


def test_numbers_are_unique_and_below_the_counters(workflow):
    for kind, numbers in (
        ("node", [node["id"] for node in workflow["nodes"]]),
        ("link", [link[0] for link in workflow["links"]]),
    ):
        assert len(set(numbers)) == len(numbers)
        assert max(numbers) <= workflow[f"last_{kind}_id"]
    assert sorted(node["order"] for node in workflow["nodes"]) == list(
        range(len(workflow["nodes"]))
    )


def test_nodes_run_after_those_they_need(workflow):
    order = {node["id"]: node["order"] for node in workflow["nodes"]}
    assert all(order[origin] < order[target] for _, origin, _, target, *_ in workflow["links"])


def test_nodes_do_not_overlap_and_notes_explain(workflow):
    title = 30  # pixels of a node's title bar, above its position
    boxes = [
        (x, y - title, x + width, y + height)
        for (x, y), (width, height) in ((n["pos"], n["size"]) for n in workflow["nodes"])
    ]
    for i, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[i + 1 :]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart, f"{workflow['nodes'][i]['type']} covers another node"
    (note,) = [node for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    lines = [line for line in note["widgets_values"][0].splitlines() if line]
    assert 3 <= len(lines) <= 5


def test_the_training_s_panel_is_shown_when_it_opens(workflow):
    """Newer pages hide panels below a zoom of about 0.57, and open a workflow at three quarters of
    the window.
    """
    nodes = workflow["nodes"]
    if not any(node["type"] == "TrainSeFiID" for node in nodes):
        pytest.skip("nothing is trained")
    lows = [min(node["pos"][axis] for node in nodes) for axis in (0, 1)]
    highs = [max(node["pos"][axis] + node["size"][axis] for node in nodes) for axis in (0, 1)]
    width, height = (high - low for low, high in zip(lows, highs, strict=True))
    assert min(0.75 * 1500 / width, 0.75 * 960 / height) > 0.58


def test_the_path_that_a_saving_shows_has_room(workflow):
    """The node grows by a line of text then, in Vue by more."""
    nodes = workflow["nodes"]
    for saving in (node for node in nodes if node["type"] == "SaveSeFiEmbedding"):
        (left, top), (width, height) = saving["pos"], saving["size"]
        titles = [group["bounding"] for group in workflow["groups"]]
        boxes = [[*node["pos"], *node["size"]] for node in nodes if node is not saving]
        for x, y, other_width, _ in boxes + titles:
            beside = x >= left + width or x + other_width <= left
            assert beside or y <= top or y >= top + height + 150


def test_it_is_what_the_editor_saves_but_for_an_id(workflow):
    """By the id a page knows its trainings: every opened copy is to get one of its own."""
    assert workflow["version"] == 0.4
    assert {"revision", "groups", "config", "extra"} <= set(workflow)
    assert "id" not in workflow


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_picture_in_the_template_browser(name):
    with Image.open(WORKFLOWS / f"{name}.jpg") as picture:
        assert picture.format == "JPEG" and min(picture.size) >= 360
    assert (WORKFLOWS / f"{name}.jpg").stat().st_size < 80_000
