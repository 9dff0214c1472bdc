"""One genuine server for all tests, with the seeded checkpoint and a portrait in its folders."""

import json
import sys

import pytest
import skimage.data
from comfy_server import ROOT, ComfyServer, link
from PIL import Image
from seeded_extras import write_control_net, write_lora

sys.path.append(str(ROOT / "benchmarks"))
from seeded_checkpoint import write

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"  # the workflows' own choice
CONTROL_NET = "control_v11p_sd15_canny_fp16.safetensors"
LORA = "blindbox_v1_mix.safetensors"
PICTURE = "example.png"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comfyui")
    seeded = write(ROOT / ".host/seeded-sd15.safetensors")
    link(seeded, folder / "models/checkpoints" / CHECKPOINT)
    write_control_net(folder / "models/controlnet" / CONTROL_NET)
    write_lora(folder / "models/loras" / LORA)
    (folder / "input").mkdir()
    Image.fromarray(skimage.data.astronaut()[:320, 70:390]).save(folder / "input" / PICTURE)
    with ComfyServer(folder, packs=[ROOT / "tests/server/seeded_families"]) as server:
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
