"""One genuine server for all tests, with the seeded checkpoint and a portrait in its folders."""

import json
import sys

import numpy as np
import pytest
import skimage.data
from comfy_server import ROOT, ComfyServer, link
from PIL import Image

sys.path.append(str(ROOT / "benchmarks"))
from seeded_checkpoint import write

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"  # the workflows' own choice
PICTURE = "example.png"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comfyui")
    seeded = write(ROOT / ".host/seeded-sd15.safetensors")
    link(seeded, folder / "models/checkpoints" / CHECKPOINT)
    (folder / "input").mkdir()
    Image.fromarray(skimage.data.astronaut()[:320, 70:390]).save(folder / "input" / PICTURE)
    with ComfyServer(folder) as server:
        yield server


@pytest.fixture(scope="session")
def miniature_server(tmp_path_factory):
    """A server whose models are the miniature's: quick. Its audit.log tells what it opens."""
    folder = tmp_path_factory.mktemp("miniature")
    packs = [ROOT / "benchmarks/world/comfyui_node", ROOT / "tests/server/audit_pack"]
    with ComfyServer(folder, packs=packs) as server:
        pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "input" / PICTURE)
        yield server


@pytest.fixture(scope="session")
def graphs():
    """The API twins of the workflows, by name."""
    twins = (ROOT / "workflows/api").glob("*.json")
    return {path.stem: json.loads(path.read_text()) for path in twins}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    server = getattr(item, "funcargs", {}).get("server")
    if report.failed and isinstance(server, ComfyServer):
        report.sections.append(("ComfyUI", server.log_tail()))
    return report
