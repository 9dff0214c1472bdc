"""What the page asks the server for: our nodes, their help, the example workflows."""

import json

import pytest
import requests
from comfy_server import PACK_NAME
from ui_graph import WORKFLOWS, as_api, widget_values

NODES = [
    "ApplySeFiConditioning",
    "BlendSeFiIdentities",
    "CombineSeFiIdentities",
    "DrawSeFiAttentionMap",
    "EditSeFiIdentity",
    "EvaluateSeFiID",
    "ExportSeFiAsTextualInversion",
    "LoadSeFiEmbedding",
    "SaveSeFiEmbedding",
    "SeFiAttentionMap",
    "TrainSeFiCast",
    "TrainSeFiID",
]
HIDDEN = {"unique_id", "prompt", "extra_pnginfo"}
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))


@pytest.fixture(scope="module")
def definitions(server):
    return server.get("object_info")


@pytest.mark.parametrize("node", NODES)
def test_every_input_has_a_tooltip(definitions, node):
    definition = definitions[node]
    assert definition["category"] == "SeFi ID"
    assert definition["description"]
    for kind in ("required", "optional"):
        for name, (_, options) in definition["input"].get(kind, {}).items():
            assert len(options["tooltip"]) > 10, f"{name} has no tooltip"


def test_no_input_of_the_training_changes_by_itself(definitions):
    for _, *options in definitions["TrainSeFiID"]["input"]["required"].values():
        assert not options[0].get("control_after_generate")


@pytest.mark.parametrize("node", NODES)
def test_help_page_is_served(server, node):
    page = server.fetch(f"extensions/{PACK_NAME}/docs/{node}.md").text
    assert page.startswith("# ")


def test_workflows_are_listed_and_served(server):
    assert sorted(server.get("workflow_templates")[PACK_NAME]) == NAMES
    for name in NAMES:
        served = server.get(f"api/workflow_templates/{PACK_NAME}/{name}.json")
        assert served == json.loads((WORKFLOWS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_api_twin_is_the_conversion(definitions, name):
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text())
    twin = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    converted = as_api(workflow, definitions)
    # Hosts rename their own nodes now and then; what runs is the same.
    for graph in (twin, converted):
        for node in graph.values():
            if node["class_type"] not in NODES:
                del node["_meta"]
    assert twin == converted, "run .venv/bin/python tests/server/ui_graph.py"


# What a template is there to show.
TAUGHT = {
    "pet_or_thing": ("class_word", "caption"),
    "sdxl_tags": ("class_word", "training_prompts"),
}


@pytest.mark.parametrize("name", NAMES)
def test_workflow_leaves_the_training_at_its_defaults(definitions, name):
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text())
    definition = definitions["TrainSeFiID"]
    inputs = definition["input"]["required"] | definition["input"]["optional"]
    for node in (node for node in workflow["nodes"] if node["type"] == "TrainSeFiID"):
        for widget, value in widget_values(node, definition).items():
            if widget not in TAUGHT.get(name, ()):
                assert value == inputs[widget][1]["default"], widget


@pytest.mark.parametrize("name", NAMES)
def test_sockets_of_a_workflow_are_those_of_the_nodes(definitions, name):
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text())
    for node in (node for node in workflow["nodes"] if node["type"] in NODES):
        definition = definitions[node["type"]]
        outputs = [(socket["name"], socket["type"]) for socket in node["outputs"]]
        assert outputs == list(zip(definition["output_name"], definition["output"], strict=True))
        inputs = [name for names in definition["input_order"].values() for name in names]
        assert {socket["name"] for socket in node["inputs"]} == set(inputs) - HIDDEN


@pytest.mark.parametrize("name", ["../../etc/passwd", "..%2Fcheckpoints%2Fx", "%00", "", "none"])
def test_covers_come_from_the_folders_of_identities_alone(server, name):
    with pytest.raises(requests.HTTPError, match="404"):
        server.fetch(f"sefi/cover?name={name}")


def test_translations_reach_the_page(server):
    assert "Stop and keep" in server.get("i18n")["en"]["sefi"]["keep"]
