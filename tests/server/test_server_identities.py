"""Several identities, edits and exports, queued over HTTP as the page would."""

import copy

import numpy as np
import pytest
import torch
from comfy_server import node_of
from PIL import Image
from safetensors.torch import load_file
from sefi_pack.sefi_core.identity.file_format import save_identity
from sefi_pack.sefi_core.identity.identity import Identity

ANNA, BOB = "anna.safetensors", "bob.safetensors"


@pytest.fixture(scope="module")
def people(server):
    """Two identities in models/sefi, of unlike stages."""
    for seed, (name, stages) in enumerate({ANNA: 5, BOB: 3}.items()):
        generator = torch.Generator().manual_seed(seed)
        pairs = torch.randn(stages, 2, 1, 768, generator=generator) * 0.2
        save_identity(Identity({"clip_l": pairs}), server.folder / "models/sefi" / name)


@pytest.fixture
def small(graphs, people):
    """The API twins with our two people, small and short; the page's random seeds held still."""

    def of(name):
        graph = copy.deepcopy(graphs[name])
        files = iter((ANNA, BOB))
        for node in graph.values():
            if node["class_type"] == "LoadSeFiEmbedding":
                node["inputs"]["embedding"] = next(files)
            if node["class_type"] == "EmptyLatentImage":
                node["inputs"] |= {"width": 96, "height": 64}
            if node["class_type"] == "KSampler":
                node["inputs"]["steps"] = 2
        return graph

    return of


def pictures(server, graph):
    """Runs a graph; returns the pixels that its SaveImage nodes saved, by their prefix."""
    run = server.run(graph)
    assert (run.status, run.error) == ("success", "")
    found = {}
    for number, node in graph.items():
        if node["class_type"] == "SaveImage":
            (saved,) = run.outputs[number]["images"]
            path = server.folder / "output" / saved["subfolder"] / saved["filename"]
            found[node["inputs"]["filename_prefix"]] = np.asarray(Image.open(path))
    return found


def applied(graph, title):
    """Returns the inputs of the Apply node with a title."""
    (found,) = (
        node["inputs"]
        for node in graph.values()
        if node["class_type"] == "ApplySeFiConditioning" and node["_meta"]["title"] == title
    )
    return found


def test_two_people_in_one_prompt(server, small):
    graph = small("two_people")
    text = graph[node_of(graph, "ApplySeFiConditioning")]["inputs"]
    picture = pictures(server, graph)["SeFi"]
    assert picture.shape == (64, 96, 3)
    text["text"] = text["text"].replace("<a>", "<x>").replace("<b>", "<a>").replace("<x>", "<b>")
    exchanged = pictures(server, graph)["SeFi"]
    names = graph[node_of(graph, "CombineSeFiIdentities")]["inputs"]
    names |= {"name_1": "<b>", "name_2": "<a>"}
    assert not np.array_equal(exchanged, picture)
    assert np.array_equal(pictures(server, graph)["SeFi"], picture)
    text["strength"] = 0.0
    plain = pictures(server, graph)["SeFi"]
    text |= {"strength": 1.0, "text": "a photo of a wall"}
    run = server.run(graph)
    assert run.error.startswith('text: none of the placeholders "<b>", "<a>" stands in "a photo of')
    assert not np.array_equal(plain, picture)


def test_two_people_each_in_a_place_of_their_own(server, small):
    graph = small("regional_two_people")
    picture = pictures(server, graph)["SeFi"]
    for title in ("Left", "Right"):
        one_plain = copy.deepcopy(graph)
        applied(one_plain, title)["strength"] = 0.0
        assert not np.array_equal(pictures(server, one_plain)["SeFi"], picture)
    assert np.array_equal(pictures(server, small("regional_two_people"))["SeFi"], picture)


def test_the_same_seed_as_learned_and_edited(server, small):
    graph = small("edit_stages")
    found = pictures(server, graph)
    assert not np.array_equal(found["SeFi_as_learned"], found["SeFi_edited"])
    graph[node_of(graph, "EditSeFiIdentity")]["inputs"]["stages"] = "all"
    applied(graph, "As learned")["strength"] = 0.0
    plain = pictures(server, graph)
    assert np.array_equal(plain["SeFi_as_learned"], plain["SeFi_edited"])
    # A bypassed edit passes its identity on: the page then queues this link.
    bypassed = small("edit_stages")
    (loader,) = (n for n, node in bypassed.items() if node["class_type"] == "LoadSeFiEmbedding")
    applied(bypassed, "Edited")["identity"] = [loader, 0]
    del bypassed[node_of(bypassed, "EditSeFiIdentity")]
    same = pictures(server, bypassed)
    assert np.array_equal(same["SeFi_as_learned"], same["SeFi_edited"])
    assert np.array_equal(same["SeFi_as_learned"], found["SeFi_as_learned"])


def test_two_branches_of_one_checkpoint_and_none_between(server, small):
    """The branches of edit_stages with a person each; then one muted, or without any identity."""
    both = small("edit_stages")
    both["90"] = {
        "class_type": "LoadSeFiEmbedding",
        "inputs": {"embedding": BOB},
        "_meta": {"title": ""},
    }
    applied(both, "Edited")["identity"] = ["90", 0]
    first = pictures(server, both)
    assert not np.array_equal(first["SeFi_as_learned"], first["SeFi_edited"])
    saves = {
        node["inputs"]["filename_prefix"]: number
        for number, node in both.items()
        if node["class_type"] == "SaveImage"
    }
    plain = copy.deepcopy(both)
    for title in ("As learned", "Edited"):
        applied(plain, title)["strength"] = 0.0
    for prefix, muted in (("SeFi_as_learned", "SeFi_edited"), ("SeFi_edited", "SeFi_as_learned")):
        pictures(server, plain)
        alone = {number: node for number, node in both.items() if number != saves[muted]}
        assert np.array_equal(pictures(server, alone)[prefix], first[prefix])


def test_a_combined_and_a_blended_identity_are_saved_and_an_export_is_read_by_the_host(
    server, small
):
    graph = small("two_people")
    loaders = [n for n, node in graph.items() if node["class_type"] == "LoadSeFiEmbedding"]
    combine = node_of(graph, "CombineSeFiIdentities")
    together = pictures(server, graph)["SeFi"]
    inputs = {"identity": [combine, 0], "filename_prefix": "couple"}
    graph["90"] = {"class_type": "SaveSeFiEmbedding", "inputs": inputs}
    mixed = {f"identity_{i}": [number, 0] for i, number in enumerate(loaders, 1)}
    shares = {f"{kind}_weight_{i}": 1.0 for kind in ("key", "value") for i in (1, 2)}
    graph["91"] = {"class_type": "BlendSeFiIdentities", "inputs": {**mixed, **shares}}
    inputs = {"identity": ["91", 0], "filename_prefix": "between"}
    graph["92"] = {"class_type": "ExportSeFiAsTextualInversion", "inputs": inputs}
    run = server.run(graph)
    assert (run.status, run.error) == ("success", "")
    assert run.outputs["92"]["text"][0].endswith("write embedding:between in a prompt")
    vectors = load_file(server.folder / "models/embeddings/between.safetensors")
    assert list(vectors) == ["clip_l"] and vectors["clip_l"].shape == (1, 768)

    again = small("two_people")
    again[loaders[0]]["inputs"]["embedding"] = "couple_00001_.safetensors"
    apply = again[node_of(again, "ApplySeFiConditioning")]["inputs"]
    apply["identity"] = [loaders[0], 0]
    del again[combine], again[loaders[1]]
    assert np.array_equal(pictures(server, again)["SeFi"], together)
    apply |= {"placeholder": "V*", "text": "a photo of V*"}
    assert server.run(again).error.startswith("placeholder: the identity holds 2 with names")

    plain = small("two_people")
    number = node_of(plain, "ApplySeFiConditioning")
    inputs = plain[number]["inputs"]
    words = {"text": "a photo of embedding:between", "clip": inputs["clip"]}
    plain[number] = {"class_type": "CLIPTextEncode", "inputs": words, "_meta": {"title": "plain"}}
    sampler = plain[node_of(plain, "KSampler")]["inputs"]
    sampler |= {"model": inputs["model"], "positive": [number, 0]}
    exported = pictures(server, plain)["SeFi"]
    words["text"] = "a photo of person"
    assert not np.array_equal(pictures(server, plain)["SeFi"], exported)
    assert "embedding:between does not exist" not in server.log.read_text()
