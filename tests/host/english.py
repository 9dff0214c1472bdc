"""The English texts of locales/en, read off the nodes' schemas and web/texts.mjs.

Run as a program, it writes the files anew.
"""

__all__ = ["FOLDER", "main_texts", "node_texts"]

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "locales/en"
PRINT_ENGLISH = "import(process.argv[1]).then((m) => console.log(JSON.stringify(m.ENGLISH)))"


def node_texts(nodes: list[type]) -> dict[str, Any]:
    """Returns what nodeDefs.json holds."""
    return {schema.node_id: texts_of(schema) for schema in (node.GET_SCHEMA() for node in nodes)}


def texts_of(schema: Any) -> dict[str, Any]:
    inputs = {
        part.id: {"name": part.display_name or part.id, "tooltip": part.tooltip}
        for part in schema.inputs
    }
    outputs = {
        str(place): {"name": part.display_name, "tooltip": part.tooltip}
        for place, part in enumerate(schema.outputs)
    }
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": inputs,
        "outputs": outputs,
    }


def main_texts(nodes: list[type]) -> dict[str, Any]:
    """Returns what main.json holds: the category, and the words of the page."""
    command = ["node", "-e", PRINT_ENGLISH, str(ROOT / "web/texts.mjs")]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    categories = sorted({node.GET_SCHEMA().category for node in nodes})
    return {"nodeCategories": {name: name for name in categories}, "sefi": json.loads(words)}


def main() -> None:
    """Writes both files."""
    pack = types.ModuleType("sefi_pack")  # as tests/conftest.py makes it
    pack.__path__ = [str(ROOT)]
    sys.modules["sefi_pack"] = pack
    sys.path.append(str(ROOT / "tests"))
    import conftest  # noqa: F401 - the host in this process
    from sefi_pack.nodes import NODES

    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, texts in (("nodeDefs", node_texts(NODES)), ("main", main_texts(NODES))):
        path = FOLDER / f"{name}.json"
        path.write_text(json.dumps(texts, indent=2, ensure_ascii=False) + "\n")
        print(path)


if __name__ == "__main__":
    main()
