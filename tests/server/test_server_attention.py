"""The workflow of maps and scores over HTTP, with a genuine recogniser; its pictures are kept."""

import shutil

import pytest
import torch
from comfy_server import ROOT, changed, link, node_of
from face_photos import recogniser_files
from PIL import Image
from safetensors.torch import save_file

SHOTS = ROOT / "tests/server/shots"
BATCH, SIDE = 2, 128


@pytest.fixture(scope="module")
def graph(server, graphs):
    """The workflow, small, with a textual-inversion embedding as the identity."""
    folder = server.folder / "models/embeddings"
    folder.mkdir(exist_ok=True)
    save_file({"emb_params": torch.full((1, 768), 0.01)}, folder / "plain.safetensors")
    return changed(
        graphs["attention_and_scores"],
        LoadSeFiEmbedding={"embedding": "textual inversion/plain.safetensors"},
        EmptyLatentImage={"width": SIDE, "height": SIDE, "batch_size": BATCH},
        KSampler={"steps": 2, "seed": 0},
    )


@pytest.fixture(scope="module")
def recogniser(server):
    for file in recogniser_files():
        link(file, server.folder / "models/sefi_face" / file.name)


def shown(server, run, graph, kind, name):
    """The pictures that a node shows; the first is kept under a name."""
    paths = [
        server.folder / picture["type"] / picture["subfolder"] / picture["filename"]
        for picture in run.outputs[node_of(graph, kind)]["images"]
    ]
    SHOTS.mkdir(exist_ok=True)
    shutil.copyfile(paths[0], SHOTS / name)
    return [Image.open(path) for path in paths]


def test_without_a_recogniser_it_runs_and_says_so(server, graph):
    """First, before another test gives the server one."""
    run = server.run(graph)
    assert (run.status, run.error) == ("success", "")
    (report,) = run.outputs[node_of(graph, "PreviewAny")]["text"]
    assert "No faces were compared, because there is no face recogniser; put " in report
    assert "| ID | not measured |" in report
    shown(server, run, graph, "EvaluateSeFiID", "table_without_recogniser.png")


def test_a_recogniser_that_was_added_is_used_at_once(server, graph, recogniser):
    run = server.run(graph)  # the very graph that ran without
    assert node_of(graph, "KSampler") in run.cached()
    (report,) = run.outputs[node_of(graph, "PreviewAny")]["text"]
    assert "Faces: OpenCV (YuNet and SFace)." in report


def test_maps_and_scores(server, graph, recogniser):
    """On noise that nobody would call a face: the weights come from a seed."""
    run = server.run(changed(graph, KSampler={"seed": 1}))
    assert (run.status, run.error) == ("success", "")
    overlays = shown(server, run, graph, "DrawSeFiAttentionMap", "overlay.png")
    assert [picture.size for picture in overlays] == [(SIDE, SIDE)] * 2 * BATCH  # two words
    assert len(shown(server, run, graph, "PreviewImage", "sheet.png")) == BATCH
    (report,) = run.outputs[node_of(graph, "PreviewAny")]["text"]
    assert "Faces: OpenCV (YuNet and SFace)." in report and "| Detect | 0.000 |" in report
    shown(server, run, graph, "EvaluateSeFiID", "table.png")


def test_other_words_need_no_new_sampling(server, graph, recogniser):
    server.run(changed(graph, KSampler={"seed": 1}))
    again = changed(graph, KSampler={"seed": 1}, DrawSeFiAttentionMap={"words": "photo"})
    run = server.run(again)
    assert (run.status, run.error) == ("success", "")
    assert node_of(graph, "KSampler") in run.cached()
    assert len(shown(server, run, graph, "DrawSeFiAttentionMap", "photo.png")) == BATCH


def test_the_reference_itself_is_a_near_copy_of_the_same_person(server, graph, recogniser):
    reference = graph[node_of(graph, "EvaluateSeFiID")]["inputs"]["reference"]
    run = server.run(changed(graph, EvaluateSeFiID={"images": reference}))
    (report,) = run.outputs[node_of(graph, "PreviewAny")]["text"]
    assert "| ID | 1.000 |" in report and "| 1 | 1.000 | not measured | near copy |" in report
    shown(server, run, graph, "EvaluateSeFiID", "table_of_the_reference.png")


def test_a_latent_from_elsewhere_is_one_sentence(server, graph):
    latent = [node_of(graph, "EmptyLatentImage"), 0]
    run = server.run(changed(graph, DrawSeFiAttentionMap={"samples": latent}))
    assert run.status == "error"
    assert run.error.startswith("samples: this latent does not come from a sampler that used ")
