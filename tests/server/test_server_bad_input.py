"""Mistakes over HTTP: each is told in one sentence, and the server goes on."""

import pytest
import torch
from comfy_server import changed
from PIL import Image
from safetensors.torch import save_file

SMALL = {"EmptyLatentImage": {"width": 64, "height": 64}, "KSampler": {"steps": 1}}
EMBEDDING = "plain.safetensors"


@pytest.fixture(scope="module")
def sampling(server, graphs):
    """A graph that works: with a plain textual-inversion embedding as the identity."""
    folder = server.folder / "models/embeddings"
    folder.mkdir(exist_ok=True)
    save_file({"emb_params": torch.full((1, 768), 0.01)}, folder / EMBEDDING)
    loader = {"embedding": f"textual inversion/{EMBEDDING}"}
    return changed(graphs["apply_identity"], LoadSeFiEmbedding=loader, **SMALL)


def sentence_of(server, graph):
    """The one sentence that a graph fails with."""
    run = server.run(graph)
    # A newer host checks combos before it queues.
    assert run.status in ("error", "refused")
    assert server.get("system_stats")
    assert "\n" not in run.error and len(run.error) > 20
    return run.error


def test_graph_works_without_mistakes(server, sampling):
    assert server.run(sampling).status == "success"


def test_text_without_the_placeholder(server, sampling):
    apply = {"text": "a photo of a dog"}
    sentence = sentence_of(server, changed(sampling, ApplySeFiConditioning=apply))
    assert sentence.startswith('text: the placeholder "V*" ') and '"a photo of a dog"' in sentence


@pytest.mark.parametrize(
    "name", ["nothing.safetensors", "../../checkpoints/x.safetensors", "../x", "/etc/passwd", ""]
)
def test_embedding_that_is_no_file_in_the_folders(server, sampling, name):
    sentence = sentence_of(server, changed(sampling, LoadSeFiEmbedding={"embedding": name}))
    assert sentence.startswith(f'embedding: "{name}" is not in ')
    assert "root:" not in sentence


def test_picture_of_8_by_8_pixels(server, graphs):
    Image.new("RGB", (8, 8)).save(server.folder / "input/tiny.png")
    graph = changed(graphs["train_identity"], LoadImage={"image": "tiny.png"})
    sentence = sentence_of(server, graph)
    assert sentence.startswith("image: it is 8 x 8 pixels; a face needs ")


@pytest.mark.parametrize("name", ["../escape", "/tmp/escape", "a/../../escape"])
def test_prefix_that_leaves_its_folder(server, sampling, name):
    save = {
        "class_type": "SaveSeFiEmbedding",
        "inputs": {"identity": ["2", 0], "filename_prefix": name},
    }
    assert sampling["2"]["class_type"] == "LoadSeFiEmbedding"
    sentence = sentence_of(server, {"2": sampling["2"], "9": save})
    assert sentence.startswith("filename_prefix: ")
    assert not list(server.folder.rglob("*escape*"))


def test_graph_still_works_after_them(server, sampling):
    again = changed(sampling, KSampler={"seed": 1})
    assert server.run(again).status == "success"
