"""The stop button in the middle of a training, and going on from there."""

import shutil

import pytest
from comfy_server import changed, node_of, with_miniature
from furnished import PICTURE
from safetensors.torch import load_file

STEPS = 60  # long enough to be stopped in the middle
SHORT = {
    "steps": STEPS,
    "resolution": 64,
    "preview_every": 0,
    "checkpoint_every": 0,
    "train_seed": 2,
    "name": "stopped",
    "preset": "paper",  # stops inside a selection: tests/host/test_training.py
}


@pytest.fixture
def server(miniature_server):
    return miniature_server


def test_stopped_training_resumes_to_the_same_identity(server, graphs):
    graph = changed(
        with_miniature(graphs["train_identity"]),
        LoadImage={"image": PICTURE},
        TrainSeFiID=SHORT,
        SaveSeFiEmbedding={"filename_prefix": "whole"},
    )
    node = node_of(graph, "TrainSeFiID")
    files = server.folder / "output/sefi"

    def stop(event):
        if event.kind == "progress" and event.data["node"] == node:
            server.interrupt()

    stopped = server.run(graph, watch=stop)
    assert stopped.status == "interrupted"
    assert 1 <= stopped.steps(node)[-1] < STEPS
    assert not list((server.folder / "models/sefi").glob("whole*"))
    (checkpoint,) = files.glob("stopped_*.checkpoint.safetensors")
    (so_far,) = files.glob("stopped_*.identity_so_far.safetensors")
    assert str(so_far) in stopped.texts(node)[-1]
    done = len(load_file(checkpoint)["losses"])
    assert stopped.steps(node)[-1] <= done < STEPS
    assert load_file(so_far)["pairs.clip_l"].shape == (5, 2, 1, 128)
    offered = server.get("object_info/TrainSeFiID")["TrainSeFiID"]["input"]["optional"]["resume"]
    assert checkpoint.name in offered[1]["options"]

    resumed = server.run(changed(graph, TrainSeFiID={"resume": checkpoint.name}))
    assert (resumed.status, resumed.error) == ("success", "")
    assert min(resumed.steps(node)) > done and max(resumed.steps(node)) == STEPS
    assert not list(files.glob("stopped_*"))  # what only a running training needs is gone

    shutil.rmtree(files / "finished")  # or the same training would be answered from there
    uninterrupted = server.run(graph)
    assert uninterrupted.status == "success" and max(uninterrupted.steps(node)) == STEPS
    pairs = [
        load_file(server.folder / f"models/sefi/whole_0000{i}_.safetensors")["pairs.clip_l"]
        for i in (1, 2)
    ]
    assert pairs[0].equal(pairs[1])
