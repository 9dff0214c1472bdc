"""Other families over HTTP: train, save, load, apply, sample; and the plain picture at strength 0.

SD 1.x goes this way from a checkpoint in test_server_workflows.py; SD 2.x differs from SD 2.x v in
what it predicts alone, which the host's own tests ask (tests/host/test_families.py).
"""

import copy

import numpy as np
import pytest
from comfy_server import changed, node_of
from PIL import Image
from safetensors import safe_open

STEPS = 2
SMALL = {"EmptyLatentImage": {"width": 64, "height": 64}, "KSampler": {"steps": 3}}
WIDTHS = {
    "SD 2.x v": {"clip_h": 1024},
    "SDXL": {"clip_l": 768, "clip_g": 1280},
}
# The graphs of train_and_apply and of sdxl, with words of their own.
TEMPLATES = {"SD 2.x v": "pet_or_thing", "SDXL": "sdxl_tags"}


def of_family(graph, family):
    """The graph with the family's models in place of the checkpoint's."""
    graph = copy.deepcopy(graph)
    if family != "SD 1.x":
        loader = graph[node_of(graph, "CheckpointLoaderSimple")]
        loader.update(class_type="LoadSeededFamily", inputs={"family": family})
    return graph


def sampled(server, graph):
    """The pixels that the graph saves."""
    run = server.run(graph)
    assert (run.status, run.error) == ("success", "")
    (saved,) = run.outputs[node_of(graph, "SaveImage")]["images"]
    return np.asarray(Image.open(server.folder / "output" / saved["subfolder"] / saved["filename"]))


@pytest.mark.parametrize("family", WIDTHS)
def test_train_save_load_apply_and_sample(server, graphs, family):
    prefix = f"family/{family.replace(' ', '_')}"
    training = changed(
        of_family(graphs[TEMPLATES[family]], family),
        TrainSeFiID={"steps": STEPS, "resolution": 64, "preview_every": STEPS, "preset": "paper"},
        SaveSeFiEmbedding={"filename_prefix": prefix},
        **SMALL,
    )
    trained = sampled(server, training)

    name = f"{prefix}_00001_.safetensors"
    with safe_open(server.folder / "models/sefi" / name, framework="pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    assert shapes == {
        **{f"pairs.{encoder}": (5, 2, 1, width) for encoder, width in WIDTHS[family].items()},
        **{encoder: (1, width) for encoder, width in WIDTHS[family].items()},
    }

    apply = node_of(training, "ApplySeFiConditioning")
    loading = copy.deepcopy(training)
    loading[apply]["inputs"]["identity"] = ["90", 0]
    loading["90"] = {"class_type": "LoadSeFiEmbedding", "inputs": {"embedding": name}}
    for node in ("TrainSeFiID", "SaveSeFiEmbedding", "PreviewImage", "LossGraphNode", "LoadImage"):
        del loading[node_of(loading, node)]
    assert np.array_equal(sampled(server, loading), trained)

    plain = copy.deepcopy(loading)
    inputs = plain[apply]["inputs"]
    word = training[node_of(training, "TrainSeFiID")]["inputs"]["class_word"]
    text = {"text": inputs["text"].replace("V*", word), "clip": inputs["clip"]}
    plain[apply] = {"class_type": "CLIPTextEncode", "inputs": text}
    sampler = plain[node_of(plain, "KSampler")]
    sampler["inputs"] |= {"model": inputs["model"], "positive": [apply, 0]}
    del plain["90"]
    person = sampled(server, plain)
    assert not np.array_equal(trained, person)
    neutral = changed(loading, ApplySeFiConditioning={"strength": 0.0})
    assert np.array_equal(sampled(server, neutral), person)


def test_models_of_different_families_are_told_before_any_work(server, graphs):
    graph = of_family(graphs["train_and_apply"], "SD 1.x")
    graph["91"] = {"class_type": "LoadSeededFamily", "inputs": {"family": "SDXL"}}
    graph = changed(graph, TrainSeFiID={"clip": ["91", 1]})
    run = server.run(graph)
    assert run.status == "error"
    assert run.error == (
        "clip: it is of SDXL (clip_g 1280 + clip_l 768), the model is SD 1.x (context 768); take "
        "MODEL and CLIP from the same checkpoint."
    )
