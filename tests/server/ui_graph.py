"""From the graph that the editor saves to the one that the server takes, as the editor does it.

Run as a program, it writes workflows/api anew from workflows.
"""

__all__ = ["WORKFLOWS", "as_api", "widget_values"]

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from comfy_server import ROOT, ComfyServer, Graph

WORKFLOWS = ROOT / "workflows"
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def as_api(workflow: dict[str, Any], definitions: dict[str, Any]) -> Graph:
    """Returns a workflow in API format.

    Arguments:
        definitions: The server's `/object_info`. Nodes that are not in it, such as notes, live in
            the page alone.
    """
    origins = {number: [str(node), slot] for number, node, slot, *_ in workflow["links"]}
    graph = {}
    for node in sorted(workflow["nodes"], key=lambda node: node["id"]):
        if node["type"] not in definitions:
            continue
        definition = definitions[node["type"]]
        inputs = widget_values(node, definition)
        inputs |= {
            socket["name"]: origins[socket["link"]]
            for socket in node["inputs"]
            if socket["link"] is not None
        }
        title = node.get("title") or definition["display_name"]
        graph[str(node["id"])] = {
            "inputs": inputs,
            "class_type": node["type"],
            "_meta": {"title": title},
        }
    return graph


def widget_values(node: dict[str, Any], definition: dict[str, Any]) -> dict[str, Any]:
    """Returns a node's widget values by input name.

    The page's own widgets have values too: what becomes of a seed, the upload button.
    """
    names: list[str | None] = []
    for kind in ("required", "optional"):
        for name in definition["input_order"].get(kind, []):
            type_, *options = definition["input"][kind][name]
            if not isinstance(type_, list) and type_ not in WIDGET_TYPES:
                continue
            names.append(name)
            if options and (options[0].get("control_after_generate") or name == "seed"):
                names.append(None)
            if options and options[0].get("image_upload"):
                names.append(None)
    values = node["widgets_values"]
    assert len(names) == len(values), f"{node['type']}: {len(values)} values for widgets {names}"
    return {name: value for name, value in zip(names, values, strict=True) if name is not None}


def main() -> None:
    """Writes the API twin of every workflow."""
    with tempfile.TemporaryDirectory() as folder, ComfyServer(Path(folder)) as server:
        definitions = server.get("object_info")
    for path in sorted(WORKFLOWS.glob("*.json")):
        twin = path.parent / "api" / path.name
        graph = as_api(json.loads(path.read_text()), definitions)
        twin.write_text(json.dumps(graph, indent=2) + "\n")
        print(twin)


if __name__ == "__main__":
    main()
