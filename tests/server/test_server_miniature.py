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


def test_a_cast_over_http(server):
    """Two people of a folder, one of whom cannot be read; then a third, who alone is trained."""
    folder = server.folder / "input/town"
    folder.mkdir()
    for i, name in enumerate(("anna.png", "bob.jpg")):
        Image.new("RGB", (64 + i, 64), (90, 60 + 90 * i, 0)).save(folder / name)
    (folder / "x.heic").write_bytes(b"no picture")
    loader = {"class_type": "LoadMiniatureWorld", "inputs": {"checkpoint": "miniature.safetensors"}}
    inputs = {
        "folder": "town", "class_word": "person", "steps": 2, "learning_rate": 0.005,
        "preset": "paper", "attention_loss_weight": 0.001, "train_seed": 0, "resolution": 64,
        "preview_every": 2, "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2],
    }  # fmt: skip
    sheet = {"class_type": "PreviewImage", "inputs": {"images": ["2", 1]}}
    apply = {
        "class_type": "ApplySeFiConditioning",
        "inputs": {"model": ["1", 0], "clip": ["1", 1], "identity": ["2", 0], "text": "a V*"},
    }
    graph = {
        "1": loader, "2": {"class_type": "TrainSeFiCast", "inputs": inputs}, "3": sheet, "4": apply,
    }  # fmt: skip
    run = server.run(graph)
    assert (run.status, run.error) == ("success", "")
    (shown,) = run.outputs["2"]["sefi_training"]
    told = {person["name"]: person["state"] for person in shown["people"]}
    assert told == {"anna": "finished", "bob": "finished", "x": "failed"}
    assert "x.heic: this Python reads no HEIC" in shown["note"]
    saved = sorted((server.folder / "models/sefi/town").iterdir())
    assert [path.name for path in saved] == ["anna_00001_.safetensors", "bob_00001_.safetensors"]
    picture = server.fetch(f"sefi/picture?prompt={run.prompt}&node=2&of=preview&person=1")
    assert picture.content.startswith(b"\xff\xd8")

    (folder / "x.heic").unlink()
    Image.new("RGB", (64, 64), (0, 90, 60)).save(folder / "carl.png")
    again = server.run(graph)
    (shown,) = again.outputs["2"]["sefi_training"]
    assert [person["note"] == "Finished before." for person in shown["people"]] == [
        True,
        True,
        False,
    ]
    assert server.run(graph).cached() >= {"2"}  # nothing has changed
    refused = server.run({**graph, "2": {**graph["2"], "inputs": {**inputs, "folder": "../x"}}})
    assert refused.status == "refused" and 'there is no folder "../x" in input/' in refused.error
