"""What is refused when a prompt is queued, asked as the host asks it."""

import asyncio

import execution
import folder_paths
import pytest
from sefi_pack.nodes import NODES
from sefi_pack.nodes.host import folders
from sefi_pack.nodes.host.identities.saving import save_new_identity
from sefi_pack.nodes.host.page.routes import note
from sefi_pack.nodes.host.queued import FARTHEST, require_choice
from sefi_pack.sefi_core.errors import SettingsError
from sefi_pack.sefi_core.identity.group import combine

import nodes


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    for node in NODES:
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node.GET_SCHEMA().node_id, node)
    (tmp_path / "m").mkdir()
    for name in ("sefi", "embeddings"):
        extensions = folder_paths.folder_names_and_paths[name][1]
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, name, ([str(tmp_path / "m")], extensions)
        )


def graph(**changed):
    """Checkpoint 1, picture 2, Train 3, Save 4, Apply 5, Sampler 6; `Node=inputs` changes one."""
    source, latent = ["1", 0], {"width": 64, "height": 64, "batch_size": 1}
    nodes_of = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": "x.safetensors"}),
        "2": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 1, "color": 0}),
        "3": ("TrainSeFiID", {
            "model": source, "clip": ["1", 1], "vae": ["1", 2], "image": ["2", 0],
            "class_word": "person", "steps": 2, "learning_rate": 0.001, "preset": "default",
            "attention_loss_weight": 0.001, "train_seed": 0,
        }),
        "4": ("SaveSeFiEmbedding", {"identity": ["3", 0], "filename_prefix": "anna"}),
        "5": ("ApplySeFiConditioning", {
            "model": source, "clip": ["1", 1], "identity": ["4", 0], "text": "a photo of V*",
        }),
        "6": ("KSampler", {
            "model": ["5", 0], "positive": ["5", 1], "negative": ["5", 1], "latent_image": ["7", 0],
            "seed": 0, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal",
            "denoise": 1.0,
        }),
        "7": ("EmptyLatentImage", latent),
        "8": ("VAEDecode", {"samples": ["6", 0], "vae": ["1", 2]}),
        "9": ("PreviewImage", {"images": ["8", 0]}),
    }  # fmt: skip
    made = {id: {"class_type": kind, "inputs": inputs} for id, (kind, inputs) in nodes_of.items()}
    for id, inputs in changed.items():
        if "class_type" in inputs:
            made[id.removeprefix("n")] = inputs
        else:
            made[id.removeprefix("n")]["inputs"].update(inputs)
    return made


def validated(prompt, monkeypatch, server=True):
    """Returns whether the prompt is queued, the outputs that run, and the sentences by node."""
    monkeypatch.setattr(folder_paths, "get_filename_list", keeping("x.safetensors"))
    note({"prompt": prompt} if server else {})
    valid, _, outputs, errors = asyncio.run(execution.validate_prompt("p", prompt, None))
    note({})
    told = {
        id: [e["details"] for e in error["errors"] if "custom" in e["type"]]
        for id, error in errors.items()
    }
    return valid, sorted(outputs), {id: details for id, details in told.items() if details}


def keeping(name):
    listed = folder_paths.get_filename_list
    return lambda kind: [name] if kind == "checkpoints" else listed(kind)


def test_a_sound_prompt_is_queued(monkeypatch):
    assert validated(graph(), monkeypatch) == (True, ["3", "4", "9"], {})


BAD = [
    ("4", {"filename_prefix": "CON"}, 'filename_prefix: "CON" is no plain name', ["3"]),
    ("4", {"filename_prefix": "a:b"}, 'filename_prefix: "a:b" is no plain name', ["3"]),
    ("5", {"text": "a photo of a man"}, 'text: the placeholder "V*" does not stand', ["3", "4"]),
    ("5", {"placeholder": "<x>"}, 'text: the placeholder "<x>" does not stand', ["3", "4"]),
    ("5", {"strength": float("nan")}, "strength: it is nan; set a number", ["3", "4"]),
    ("3", {"class_word": "(x:2)"}, 'class_word: "(x:2)" is not a plain noun', []),
    ("3", {"name": "../x"}, 'name: "../x" is no plain name', []),
    ("3", {"resolution": 100}, "resolution: it is 100; set 0 or a multiple", []),
    ("3", {"resume": "gone.checkpoint.safetensors"}, "resume: there is no checkpoint", []),
    ("3", {"learning_rate": float("nan"), "name": "x"}, "learning_rate: it is nan", []),
    ("3", {"training_prompts": "V*\na man"}, 'training_prompts: the line "a man" lacks V*', []),
    ("3", {"training_prompts": "a (V*:1.2)"}, 'training_prompts: "a (V*:1.2)" has weights', []),
    ("3", {"caption": "a Person"}, 'caption: "a Person" has "person", for which', []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("node", "inputs", "sentence", "others"), BAD, ids=[b[2][:30] for b in BAD]
)
def test_a_nodes_own_constants_are_refused_on_the_node_and_the_rest_runs(
    monkeypatch, node, inputs, sentence, others
):
    queued, outputs, told = validated(graph(**{f"n{node}": inputs}), monkeypatch)
    assert queued == bool(others) and outputs == others
    assert list(told) == [node] and all(sentence in details for details in told[node])


def test_what_comes_by_a_link_is_not_judged_before_it_is_there(monkeypatch):
    note({})
    by_id = {node.GET_SCHEMA().node_id: node for node in NODES}
    for name, inputs in (
        ("SaveSeFiEmbedding", ["filename_prefix"]),
        ("ApplySeFiConditioning", ["text", "placeholder"]),
        ("TrainSeFiID", ["class_word", "name", "resume", "resolution"]),
        ("TrainSeFiID", ["caption", "training_prompts"]),
        ("LoadSeFiEmbedding", ["embedding"]), ("EditSeFiIdentity", ["keys", "values", "stages"]),
        ("ExportSeFiAsTextualInversion", ["filename_prefix", "tokens"]),
        ("CombineSeFiIdentities", ["name_1", "name_2"]), ("EvaluateSeFiID", ["recogniser"]),
        ("DrawSeFiAttentionMap", ["words"]),
    ):  # fmt: skip
        assert by_id[name].validate_inputs(**dict.fromkeys(inputs)) is True
        assert by_id[name].validate_inputs() is True


@pytest.mark.parametrize("text", ["<a> and <b>", "<b>", "a dog"])
def test_placeholders_are_followed_to_where_they_come_from(monkeypatch, learned, text):
    save_new_identity(combine([learned, learned], ["<a>", "<b>"]), "pair")
    (file,) = folders.identity_names()[:1]
    load = {"class_type": "LoadSeFiEmbedding", "inputs": {"embedding": file}}
    edit = {
        "class_type": "EditSeFiIdentity",
        "inputs": {"identity": ["20", 0], "keys": "keep", "values": "keep", "stages": "all"},
    }
    both = {
        "class_type": "CombineSeFiIdentities",
        "inputs": {
            "identity_1": ["3", 0],
            "identity_2": ["3", 0],
            "name_1": "<a>",
            "name_2": "<b>",
        },
    }
    for extra in ({"n20": load}, {"n20": load, "n21": edit}, {"n20": both}):
        last = sorted(extra)[-1].removeprefix("n")
        changed = {**extra, "n5": {"text": text, "identity": [last, 0]}}
        _, outputs, told = validated(graph(**changed), monkeypatch)
        assert ("9" in outputs) == ("<" in text) and ("5" in told) == ("<" not in text)


def test_a_choice_that_there_is_not_is_not_queued(monkeypatch):
    """Told by the host, or by the node where the host is older."""
    assert not validated(graph(n3={"attention_loss": "loud"}), monkeypatch)[0]
    with pytest.raises(SettingsError, match='"x" is unknown; choose one of a, b'):
        require_choice("preset", "x", ("a", "b"))


def test_what_comes_from_too_far_is_not_judged(monkeypatch):
    """Through more edits than are followed."""
    inputs = {"keys": "keep", "values": "keep", "stages": "all"}
    chain = {
        f"n{20 + i}": {
            "class_type": "EditSeFiIdentity",
            "inputs": {**inputs, "identity": [str(19 + i) if i else "3", 0]},
        }
        for i in range(FARTHEST + 1)
    }
    near = {**chain, "n5": {"text": "a dog", "identity": ["20", 0]}}
    far = {**chain, "n5": {"text": "a dog", "identity": [str(20 + FARTHEST), 0]}}
    assert "5" in validated(graph(**near), monkeypatch)[2]
    assert "5" not in validated(graph(**far), monkeypatch)[2]


def test_names_of_nothing_connected_are_not_judged(monkeypatch):
    both = {
        "identity_1": ["3", 0],
        "identity_2": ["3", 0],
        "name_1": "<c>",
        "name_2": "<b>",
        "name_3": "<c>",
    }
    node = {"class_type": "CombineSeFiIdentities", "inputs": both}
    changed = {"n20": node, "n5": {"identity": ["20", 0], "text": "<c>"}}
    assert not validated(graph(**changed), monkeypatch)[2]
    both["identity_3"] = ["3", 0]
    assert "would also be found" in str(validated(graph(**changed), monkeypatch)[2]["20"])


def test_a_windows_path_is_taken(monkeypatch, learned):
    save_new_identity(learned, "faces/anna")
    load = {
        "class_type": "LoadSeFiEmbedding",
        "inputs": {"embedding": "faces\\anna_00001_.safetensors"},
    }
    changed = {"n20": load, "n5": {"identity": ["20", 0]}}
    assert validated(graph(**changed), monkeypatch) == (True, ["3", "4", "9"], {})
    load["inputs"]["embedding"] = "faces\\bob.safetensors"
    assert "is not in models/sefi" in str(validated(graph(**changed), monkeypatch)[2]["20"])


def test_resumed_to_its_end_a_workflow_goes_on_working(ask, output, monkeypatch):
    from test_training import interrupt_at, mm

    with monkeypatch.context() as patched:
        interrupt_at(patched, 3)
        with pytest.raises(mm.InterruptProcessingException):
            ask(steps=6)
    (checkpoint,) = folders.checkpoint_names()[1:]
    first = ask(steps=6, resume=checkpoint)
    assert folders.checkpoint_names() == [folders.NO_CHECKPOINT]
    queued, outputs, told = validated(graph(n3={"resume": checkpoint}), monkeypatch)
    assert queued and "3" in outputs and not told
    again = ask(steps=6, resume=checkpoint)
    assert (again[0].pairs["clip_l"] == first[0].pairs["clip_l"]).all()
    with pytest.raises(SettingsError, match="was trained to its end, but with other inputs"):
        ask(steps=6, resume=checkpoint, train_seed=5)
