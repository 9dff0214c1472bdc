"""The miniature world's pack in a genuine server: its MODEL, CLIP and VAE serve our nodes."""

import json

import pytest
from comfy_server import ROOT, changed, node_of, with_miniature
from PIL import Image
from safetensors.torch import load_file

MINIATURE = ROOT / "benchmarks/world/miniature.safetensors"
PICTURE = "example.png"

pytestmark = pytest.mark.skipif(not MINIATURE.is_file(), reason="there is no miniature")


@pytest.fixture
def server(miniature_server):
    return miniature_server


def test_train_save_apply_and_sample_on_the_miniature(server):
    graph = json.loads((ROOT / "workflows/api/train_and_apply.json").read_text())
    graph = changed(
        with_miniature(graph),
        LoadImage={"image": PICTURE},
        TrainSeFiID={"steps": 2, "resolution": 64, "preview_every": 2},
        EmptyLatentImage={"width": 128, "height": 128},
        KSampler={"steps": 2},
    )
    run = server.run(graph)
    assert (run.status, run.error) == ("success", "")
    (saved,) = run.outputs[node_of(graph, "SaveImage")]["images"]
    with Image.open(server.folder / "output" / saved["subfolder"] / saved["filename"]) as picture:
        assert picture.size == (64, 64)
    identity = max((server.folder / "models/sefi").glob("my_identity_*.safetensors"))
    assert load_file(identity)["pairs.clip_l"].shape[:3] == (5, 2, 1)
