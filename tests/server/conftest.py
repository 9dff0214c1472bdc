"""One genuine server for all tests, with what the example workflows need in its folders."""

import json

import numpy as np
import pytest
from comfy_server import ROOT, ComfyServer
from furnished import PICTURE, furnish
from PIL import Image


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comfyui")
    furnish(folder)
    with ComfyServer(folder, packs=[ROOT / "tests/server/seeded_families"]) as server:
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
