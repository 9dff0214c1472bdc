"""The contract that shared workflows depend on, and the files that nodes read and write."""

import inspect
import json
from dataclasses import make_dataclass

import folder_paths
import pytest
import safetensors.torch
import torch
from comfy_api.v0_0_2 import io
from sefi_pack.nodes import NODES, newer
from sefi_pack.nodes.host import folders
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.identities import saving
from sefi_pack.nodes.host.identities.saving import save_new_identity
from sefi_pack.sefi_core.errors import IdentityFileError, SettingsError
from sefi_pack.sefi_core.identity.file_format import load_identity

# For ever: an input may be added at the end of the optional ones, nothing else may change.
CONTRACT = {
    "TrainSeFiID": (
        "model clip vae image class_word steps learning_rate preset attention_loss_weight "
        "train_seed",
        "mask stages attention_loss batch_size resolution dtype preview_every checkpoint_every "
        "resume name gradient_checkpointing caption training_prompts tokens",
        "SEFI_IDENTITY LOSS_MAP IMAGE",
    ),
    "TrainSeFiCast": (
        "model clip vae folder class_word steps learning_rate preset attention_loss_weight "
        "train_seed",
        "images names stages attention_loss batch_size resolution dtype preview_every "
        "checkpoint_every gradient_checkpointing training_prompts tokens at_once",
        "SEFI_IDENTITY IMAGE",
    ),
    "SaveSeFiEmbedding": (
        "identity filename_prefix",
        "thumbnail title author notes include_source_hash",
        "SEFI_IDENTITY",
    ),
    "LoadSeFiEmbedding": ("embedding", "", "SEFI_IDENTITY"),
    "ApplySeFiConditioning": (
        "model clip identity text",
        "strength key_strength value_strength start_percent end_percent placeholder width height",
        "MODEL CONDITIONING",
    ),
    "CombineSeFiIdentities": (
        "identity_1 identity_2 name_1 name_2",
        "identity_3 identity_4 name_3 name_4",
        "SEFI_IDENTITY",
    ),
    "BlendSeFiIdentities": (
        "identity_1 identity_2 key_weight_1 value_weight_1 key_weight_2 value_weight_2",
        "identity_3 identity_4 key_weight_3 value_weight_3 key_weight_4 value_weight_4",
        "SEFI_IDENTITY",
    ),
    "EditSeFiIdentity": ("identity keys values stages", "second_identity", "SEFI_IDENTITY"),
    "ExportSeFiAsTextualInversion": ("identity filename_prefix", "tokens", "STRING"),
    "SeFiAttentionMap": ("model", "stages", "MODEL SEFI_ATTENTION"),
    "DrawSeFiAttentionMap": (
        "recording samples image clip text words",
        "identity mask opacity prompt_number placeholder",
        "IMAGE IMAGE MASK FLOAT STRING",
    ),
    "EvaluateSeFiID": (
        "images reference text",
        "face_images clip_vision clip identity threshold recogniser placeholder",
        "IMAGE STRING FLOAT FLOAT FLOAT FLOAT FLOAT INT",
    ),
}
DEFAULTS = {
    "class_word": "person", "steps": 1000, "preset": "default", "attention_loss_weight": 0.001,
    "train_seed": 0, "stages": 5, "attention_loss": "prompt tokens", "batch_size": 1,
    "resolution": 0, "dtype": "auto", "preview_every": 100, "checkpoint_every": 250,
    "resume": "[none]", "name": "identity", "gradient_checkpointing": False,
    "filename_prefix": "my_identity", "include_source_hash": True,
    "text": "a photo of V*", "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0,
    "placeholder": "", "name_1": "<a>", "name_2": "<b>", "name_3": "<c>", "name_4": "<d>",
    "caption": "", "training_prompts": "", ("TrainSeFiID", "tokens"): 1,
    ("TrainSeFiCast", "tokens"): 1, "folder": "", "names": "",
    ("TrainSeFiCast", "preview_every"): 250, "at_once": 0, "width": 0, "height": 0,
    "keys": "keep", "values": "keep", "tokens": "values", ("EditSeFiIdentity", "stages"): "all",
    **{f"{kind}_weight_{i}": 1.0 for kind in ("key", "value") for i in range(1, 5)},
    "words": "V*", "opacity": 0.6, "prompt_number": 1,
    "threshold": 0.23, "recogniser": "auto",
}  # fmt: skip


@pytest.fixture
def models(tmp_path, monkeypatch):
    """models/sefi and models/embeddings of this test's own."""
    for name in ("sefi", "embeddings"):
        (tmp_path / name).mkdir()
        paths = ([str(tmp_path / name)], folder_paths.folder_names_and_paths[name][1])
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, paths)
    folder_paths.filename_list_cache.clear()
    return tmp_path


def test_ids_inputs_and_outputs_are_as_they_will_stay():
    assert {node.GET_SCHEMA().node_id for node in NODES} == set(CONTRACT)
    for node in NODES:
        schema = node.GET_SCHEMA()
        required, optional, outputs = CONTRACT[schema.node_id]
        assert [i.id for i in schema.inputs if not i.optional] == required.split()
        assert [i.id for i in schema.inputs if i.optional] == optional.split()
        assert [o.get_io_type() for o in schema.outputs] == outputs.split()
        assert schema.category == "SeFi ID" and schema.description


def test_every_input_and_output_has_a_tooltip_and_its_default():
    for node in NODES:
        schema = node.GET_SCHEMA()
        for part in (*schema.inputs, *schema.outputs):
            assert part.tooltip and part.tooltip.endswith("."), part.id
        for part in schema.inputs:
            default = DEFAULTS.get((schema.node_id, part.id), DEFAULTS.get(part.id))
            if default is not None:
                assert part.default == default, part.id


def test_choices_are_as_they_will_stay():
    (edit,) = [node.GET_SCHEMA() for node in NODES if node.__name__ == "EditSeFiIdentity"]
    options = {part.id: part.options for part in edit.inputs if hasattr(part, "options")}
    assert options == {
        "keys": ["keep", "values", "class word", "second identity"],
        "values": ["keep", "keys", "class word", "second identity"],
    }


def test_numbers_keep_the_precision_an_artist_types():
    """The page rounds to the step: a learning rate needs a small one."""
    (train,) = [node.GET_SCHEMA() for node in NODES if node.__name__ == "TrainSeFiID"]
    inputs = {i.id: i for i in train.inputs}
    assert inputs["learning_rate"].step == 1e-6
    assert "seed" not in inputs and "noise_seed" not in inputs  # the page would randomise them
    assert (inputs["steps"].min, inputs["steps"].max) == (1, 100000)


def test_a_save_never_overwrites_and_reads_back(models, learned):
    lines = [save_new_identity(learned, "people/anna", title="Anna") for _ in range(3)]
    files = sorted((models / "sefi/people").iterdir())
    assert [f.name for f in files] == [f"anna_{i:05}_.safetensors" for i in (1, 2, 3)]
    assert all(str(f) in line and "KB" in line for f, line in zip(files, lines, strict=True))
    assert torch.equal(load_identity(files[0]).pairs["clip_l"], learned.pairs["clip_l"])
    assert "people/anna_00003_.safetensors" in folders.identity_names()


def test_names_as_long_as_may_be_fit_every_file_made_of_them(models, learned, tmp_path):
    save_new_identity(learned, "\u4e2d" * 60 + "/" + "x" * 80)
    longest = folders.running_path("\u4e2d" * 60, "0" * 32)
    (tmp_path / folders.partial_path(longest).name).touch()
    with pytest.raises(SettingsError, match="filename_prefix: it names 8 sub-folders; use at most"):
        save_new_identity(learned, "/".join("abcdefghi"))


def test_numbers_go_on_after_a_deleted_file_and_beside_longer_names(models, learned):
    for name in ("anna_00007_.safetensors", "anna_b_00050_.safetensors"):
        (models / "sefi" / name).touch()
    assert folders.new_identity_path("anna").name == "anna_00008_.safetensors"


@pytest.mark.parametrize(
    "prefix",
    [
        "\u4e2d" * 70,
        "a\nb",
        "\u202ea",
        "\ud800",
        "a/" * 3 + "/b",
        "",
        "../x",
        "/etc/x",
        "a/../b",
        "a\\..\\b",
        "C:x",
        ".x",
        "a\0b",
        "x" * 300,
    ],
)
def test_a_prefix_stays_in_its_folder(models, learned, prefix):
    with pytest.raises(SettingsError, match=r"filename_prefix: .* is no plain name"):
        save_new_identity(learned, prefix)
    assert not list(models.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "name", ["none.safetensors", "../../etc/passwd", "a\0b", "", "textual inversion/../sefi/x"]
)
def test_a_name_that_is_not_there_is_one_sentence(models, name):
    with pytest.raises(IdentityFileError, match=r"embedding: .* is not in models/"):
        folders.identity_path(name)


def test_the_cover_is_where_browsers_look_and_the_source_hash_can_stay_away(models, learned):
    identity = type(learned)(learned.pairs, metadata={"sefi.source_hash": "abc"})
    save_new_identity(identity, "anna", thumbnail=torch.rand(2, 700, 500, 4), author="me")
    save_new_identity(identity, "anna", include_source_hash=False)
    first, second = (load_identity(f) for f in sorted((models / "sefi").iterdir()))
    (cover,) = json.loads(first.metadata["ssmd_cover_images"])
    assert first.metadata["modelspec.thumbnail"] == f"data:image/jpeg;base64,{cover}"
    assert (
        first.metadata["sefi.source_hash"] == "abc" and first.metadata["modelspec.author"] == "me"
    )
    assert "sefi.source_hash" not in second.metadata
    assert "ssmd_cover_images" not in second.metadata  # no picture unless the artist connects one


def test_a_disk_that_writes_something_else_is_told(models, learned, monkeypatch):
    wrong = type(learned)({"clip_l": learned.pairs["clip_l"] + 1.0})
    monkeypatch.setattr(saving, "load_identity", lambda path: wrong)
    with pytest.raises(IdentityFileError, match="what was written does not read back equal"):
        save_new_identity(learned, "anna")


def test_half_a_character_in_a_text_is_no_reason_to_fail(models, learned):
    save_new_identity(learned, "anna", title="\ud800 Anna", notes="\udfff")
    (path,) = (models / "sefi").iterdir()
    assert load_identity(path).metadata["modelspec.title"] == "? Anna"


@pytest.mark.parametrize("name", ["strength", "key_strength", "start_percent", "end_percent"])
def test_a_number_that_is_none_is_refused(model, clip, learned, name):
    """The host's limits let NaN through."""
    with pytest.raises(SettingsError, match=f"^{name}: it is nan; set a number"):
        apply_identity(model, clip, learned, "V*", **{name: float("nan")})


def test_embeddings_of_the_host_are_offered_but_never_pickles(models):
    safetensors.torch.save_file(
        {"emb_params": torch.ones(2, 768)}, models / "embeddings/old.safetensors"
    )
    (models / "embeddings/evil.pt").write_bytes(b"")
    (models / "sefi/notes.txt").touch()
    assert folders.identity_names() == ["textual inversion/old.safetensors"]
    identity = load_identity(folders.identity_path("textual inversion/old.safetensors"))
    assert identity.tokens == 2 and identity.stages == 1


def test_a_changed_file_is_loaded_anew(models, learned):
    (load,) = [node for node in NODES if node.__name__ == "LoadSeFiEmbedding"]
    save_new_identity(learned, "anna")
    name = "anna_00001_.safetensors"
    before = load.fingerprint_inputs(embedding=name)
    assert before == load.fingerprint_inputs(embedding=name) != ()
    (models / "sefi" / name).write_bytes(b"something else")
    assert load.fingerprint_inputs(embedding=name) != before
    assert load.fingerprint_inputs(embedding="gone.safetensors") == ()


def test_what_newer_hosts_offer_is_given_where_they_take_it():
    schemas = {node.__name__: node.GET_SCHEMA() for node in NODES}
    takes = "advanced" in inspect.signature(io.Int.Input).parameters
    folded = {i.id for i in schemas["TrainSeFiID"].inputs if getattr(i, "advanced", None)}
    seldom = "stages attention_loss batch_size resolution dtype checkpoint_every name tokens"
    assert folded == ({*seldom.split(), "gradient_checkpointing"} if takes else set())
    known = inspect.signature(io.Schema).parameters
    for name, schema in schemas.items():
        assert getattr(schema, "search_aliases", None) or "search_aliases" not in known, name
    essential = {n for n, s in schemas.items() if getattr(s, "essentials_category", None)}
    first = {"TrainSeFiID", "ApplySeFiConditioning", "SaveSeFiEmbedding", "LoadSeFiEmbedding"}
    assert essential == (first if "essentials_category" in known else set())


@pytest.mark.parametrize("known", [(), ("search_aliases",), ("essentials_category",)])
def test_an_older_schema_is_given_what_it_knows_alone(known, monkeypatch):
    options = dict.fromkeys(("node_id", *known))
    older = make_dataclass("Schema", options)
    monkeypatch.setattr(newer.io, "Schema", older)
    given = newer.found_by("face", essentials="SeFi ID")
    assert set(given) == set(known) and older(node_id="X", **given)
