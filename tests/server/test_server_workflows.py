"""Pictures to identities to pictures, queued over HTTP as the page would."""

import copy
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from comfy_server import changed, node_of
from PIL import Image
from safetensors.torch import load_file

STEPS = 4
SHORT = {"steps": STEPS, "resolution": 64, "preview_every": 2, "preset": "paper"}
SMALL = {"EmptyLatentImage": {"width": 64, "height": 64}, "KSampler": {"steps": 3}}
IDENTITY = "my_identity_00001_.safetensors"


def picture(server, run, graph):
    """The pixels that a run's SaveImage saved."""
    (saved,) = run.outputs[node_of(graph, "SaveImage")]["images"]
    return np.asarray(Image.open(server.folder / "output" / saved["subfolder"] / saved["filename"]))


@pytest.fixture(scope="module")
def training(graphs):
    return changed(graphs["train_identity"], TrainSeFiID=SHORT)


@pytest.fixture(scope="module")
def trained(server, training):
    """The run of the training; its identity is IDENTITY."""
    return server.run(training)


@pytest.fixture(scope="module")
def sampling(graphs, trained):
    return changed(graphs["apply_identity"], **SMALL)


def test_training_runs_and_shows_its_progress(trained, training):
    node = node_of(training, "TrainSeFiID")
    assert (trained.status, trained.error) == ("success", "")
    steps = trained.steps(node)
    assert steps == sorted(steps) and steps[-1] == STEPS
    told = [event.data for event in trained.events if event.kind == "sefi.progress"]
    assert {(data["node"], data["prompt"], data["total"]) for data in told} == {
        (node, trained.prompt, STEPS)
    }
    assert told[-1]["state"] == "finished" and told[-1]["preview"] == STEPS
    points = [point for data in told for point in data["points"]]
    assert [step for step, *_ in points] == list(range(1, STEPS + 1))
    assert all(denoising > 0 and 0 <= stage < 5 for _, denoising, _, stage in points)


def test_the_server_remembers_what_a_training_showed(server, trained, training):
    node = node_of(training, "TrainSeFiID")
    queued = f"prompt={trained.prompt}&node={node}"
    (told,) = (
        t
        for t in server.get(f"sefi/trainings?workflow=&client={server.client}")
        if t["prompt"] == trained.prompt
    )
    assert (told["node"], told["state"], len(told["points"])) == (node, "finished", STEPS)
    for of in ("reference", "preview"):
        answer = server.fetch(f"sefi/picture?{queued}&of={of}")
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert Image.open(BytesIO(answer.content)).size == (64, 64)
    assert server.get(f"sefi/trainings?workflow=another&client={server.client}") == []
    assert server.get("sefi/trainings?workflow=") == []  # of nobody in particular
    assert server.get("sefi/trainings?workflow=&client=somebody") == []
    assert server.get(f"sefi/trainings?prompt={trained.prompt}") == [told]
    over = server.post("sefi/keep", {"prompt": trained.prompt, "node": node})
    assert over.json() == {"running": False}


@pytest.mark.parametrize("body", [[], "x", {}, {"prompt": 1}, None])
def test_a_wrong_wish_to_keep_is_refused(server, body):
    assert server.post("sefi/keep", body).status_code == 400


def test_training_shows_previews_and_the_loss_graph(trained, training):
    assert len(trained.outputs[node_of(training, "PreviewImage")]["images"]) == STEPS // 2
    assert len(trained.outputs[node_of(training, "LossGraphNode")]["images"]) == 1


def test_identity_is_saved_and_its_path_shown(server, trained, training):
    (line,) = trained.outputs[node_of(training, "SaveSeFiEmbedding")]["text"]
    path = server.folder / "models/sefi" / IDENTITY
    assert line.startswith(f"Saved {path} (")
    assert load_file(path)["pairs.clip_l"].shape == (5, 2, 1, 768)


def test_loader_lists_the_new_file_without_a_restart(server, trained):
    inputs = server.get("object_info/LoadSeFiEmbedding")["LoadSeFiEmbedding"]["input"]
    assert IDENTITY in inputs["required"]["embedding"][1]["options"]


@pytest.mark.parametrize("name", ["apply_identity", "with_controlnet_and_lora"])
def test_saved_identity_changes_the_picture_and_strength_0_does_not(name, server, graphs, trained):
    sampling = changed(graphs[name], **SMALL)
    person = sampled(server, without_identity(sampling))
    assert not np.array_equal(sampled(server, sampling), person)
    zero = changed(sampling, ApplySeFiConditioning={"strength": 0.0})
    assert np.array_equal(sampled(server, zero), person)


def sampled(server, graph):
    run = server.run(graph)
    assert (run.status, run.error) == ("success", "")
    return picture(server, run, graph)


def without_identity(graph):
    """The graph with the class word in a plain prompt, on the model as it was."""
    graph = copy.deepcopy(graph)
    apply = node_of(graph, "ApplySeFiConditioning")
    given = graph[apply]["inputs"]
    links = {0: given["model"], 1: [apply, 0]}  # Apply's outputs: model, conditioning
    for inputs in (node["inputs"] for node in graph.values()):
        moved = {k: links[v[1]] for k, v in inputs.items() if v in ([apply, 0], [apply, 1])}
        inputs |= moved
    graph[apply]["class_type"] = "CLIPTextEncode"
    graph[apply]["inputs"] = {"text": given["text"].replace("V*", "person"), "clip": given["clip"]}
    return graph


@pytest.mark.parametrize(
    "idle",
    [{"ControlNetApplyAdvanced": {"strength": 0.0}}, {"LoraLoader": {"strength_model": 0.0}}],
)
def test_control_net_and_lora_are_no_bystanders(idle, server, graphs, trained):
    graph = changed(graphs["with_controlnet_and_lora"], **SMALL)
    assert not np.array_equal(sampled(server, changed(graph, **idle)), sampled(server, graph))


def test_train_and_apply_in_one_graph(server, graphs):
    """By the default preset, of which one step is the longest here."""
    short = {**SHORT, "steps": 1, "preview_every": 0, "preset": "default"}
    graph = changed(graphs["train_and_apply"], TrainSeFiID=short, **SMALL)
    run = server.run(graph)
    assert (run.status, run.error) == ("success", "")
    assert run.steps(node_of(graph, "TrainSeFiID"))[-1] == 1
    assert len(run.outputs[node_of(graph, "LossGraphNode")]["images"]) == 1  # of a single loss
    assert picture(server, run, graph).shape == (64, 64, 3)
    # Without previews the samples are the cropped picture.
    assert len(run.outputs[node_of(graph, "PreviewImage")]["images"]) == 1


def test_finished_training_is_answered_from_the_store(server, trained, training, sampling):
    between = server.run(sampling)  # evicts the training from the host's own cache
    assert between.status == "success"
    again = server.run(training)
    node = node_of(training, "TrainSeFiID")
    assert again.status == "success" and node not in again.cached()
    assert not again.steps(node)
    assert "Finished before" in again.texts(node)[-1]
    assert len(again.outputs[node_of(training, "PreviewImage")]["images"]) == STEPS // 2
    (line,) = again.outputs[node_of(training, "SaveSeFiEmbedding")]["text"]
    path = Path(line.removeprefix("Saved ").rsplit(" (", 1)[0])
    first, second = load_file(path.with_name(IDENTITY)), load_file(path)
    assert path.name != IDENTITY and first.keys() == second.keys()
    assert all(value.equal(first[name]) for name, value in second.items())
