"""Texts and pictures that the page shows about the nodes: they follow the schemas."""

import json
import re
import shutil

import pytest
from english import FOLDER, ROOT, main_texts, node_texts
from PIL import Image
from sefi_pack.nodes import NODES

AGAIN = "run .venv/bin/python tests/host/english.py"
IDS = [node.GET_SCHEMA().node_id for node in NODES]


def test_english_is_what_the_schemas_and_the_page_say():
    assert json.loads((FOLDER / "nodeDefs.json").read_text()) == node_texts(NODES), AGAIN
    if shutil.which("node") is None:
        pytest.skip("there is no node")
    assert json.loads((FOLDER / "main.json").read_text()) == main_texts(NODES), AGAIN


@pytest.mark.parametrize("node", IDS)
def test_help_page_has_its_picture_and_every_input(node):
    page = (ROOT / f"web/docs/{node}.md").read_text()
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page)
    assert pictures
    for name in pictures:
        with Image.open(ROOT / "web/docs" / name) as picture:
            assert min(picture.size) >= 80
        assert (ROOT / "web/docs" / name).stat().st_size < 120_000
    (schema,) = [n.GET_SCHEMA() for n in NODES if n.GET_SCHEMA().node_id == node]
    for part in schema.inputs:
        assert f"`{part.id}`" in page, part.id
