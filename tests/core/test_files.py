"""The identity file: round trips, equal bytes, and every way a file can be wrong."""

import json
import os
import pickle

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sefi_pack.sefi_core.errors import IdentityFileError, MismatchError
from sefi_pack.sefi_core.families import family_name
from sefi_pack.sefi_core.identity.container import save_tensors
from sefi_pack.sefi_core.identity.file_format import load_identity, save_identity
from sefi_pack.sefi_core.identity.group import IdentityGroup, combine
from sefi_pack.sefi_core.identity.identity import Identity

EDGES = "[1000, 800, 600, 400, 200, 0]"


def identity_of(stages=5, tokens=1, widths=(("clip_l", 768),), seed=0, **fields):
    generator = torch.Generator().manual_seed(stages + 100 * seed)
    pairs = {n: torch.randn(stages, 2, tokens, width, generator=generator) for n, width in widths}
    return Identity(pairs, **fields)


@settings(max_examples=30)
@given(
    st.integers(1, 12),
    st.integers(1, 3),
    st.sampled_from([("clip_l",), ("clip_h",), ("clip_l", "clip_g")]),
    st.text(max_size=40),
    st.dictionaries(
        st.text(min_size=1, max_size=8).map("modelspec.{}".format), st.text(max_size=20)
    ),
)
def test_what_is_written_is_read_back(tmp_path_factory, stages, tokens, names, placeholder, extra):
    path = tmp_path_factory.mktemp("identities") / "a.safetensors"
    widths = tuple((name, 8 + i) for i, name in enumerate(names))
    reserved = {"trigger_phrase", "sai_model_spec", "architecture", "implementation", "hash_sha256"}
    extra = {k: v for k, v in extra.items() if k.split(".", 1)[1] not in reserved}
    identity = identity_of(
        stages, tokens, widths, class_word="dog", placeholder=placeholder or "V*"
    )
    save_identity(identity, path, extra)
    loaded = load_identity(path)
    assert loaded.pairs.keys() == identity.pairs.keys()
    assert all(torch.equal(loaded.pairs[n], identity.pairs[n]) for n in names)
    assert (loaded.class_word, loaded.placeholder) == ("dog", placeholder or "V*")
    assert loaded.edges == identity.edges and extra.items() <= loaded.metadata.items()


def test_equal_identities_are_equal_bytes(tmp_path):
    files = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for path in files:
        save_identity(identity_of(), path, {f"modelspec.{k}": k for k in "abcdef"})
    assert len({path.read_bytes() for path in files}) == 1
    assert files[0].stat().st_size < 60_000
    assert not list(tmp_path.glob(".*"))  # no partial file is left


def test_the_fallback_keys_are_the_mean_value_tokens(tmp_path):
    identity = identity_of(widths=(("clip_l", 768), ("clip_g", 1280)))
    save_identity(identity, tmp_path / "a.safetensors")
    stored = safetensors.torch.load_file(tmp_path / "a.safetensors")
    for name, pairs in identity.pairs.items():
        assert torch.equal(stored[name], pairs[:, 1].mean(dim=0))
        assert stored[name].shape == (1, pairs.shape[-1])


@pytest.mark.parametrize("key", ["emb_params", "clip_l"])
@pytest.mark.parametrize("vectors", [1, 4])
def test_a_textual_inversion_embedding_is_an_identity_of_one_stage(tmp_path, key, vectors):
    embedding = torch.randn(vectors, 768)
    safetensors.torch.save_file({key: embedding}, tmp_path / "a.safetensors")
    identity = load_identity(tmp_path / "a.safetensors")
    assert identity.stages == 1 and identity.tokens == vectors and identity.edges == (1000, 0)
    assert torch.equal(identity.pairs["clip_l"][0, 0], embedding)
    assert torch.equal(identity.pairs["clip_l"][0, 1], embedding)


def header_of(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3)), min_size=2, max_size=4),
    st.sampled_from([("clip_l",), ("clip_l", "clip_g")]),
    st.data(),
)
def test_several_identities_are_one_file(tmp_path_factory, shapes, names, data):
    path = tmp_path_factory.mktemp("identities") / "a.safetensors"
    widths = tuple((name, 8 + i) for i, name in enumerate(names))
    strength = st.sampled_from([0.0, 0.1, 1.0])
    members = [
        identity_of(
            stages,
            tokens,
            widths,
            class_word=f"dog {i}",
            metadata={"sefi.source_hash": str(i), "modelspec.author": "é"},
            strengths=data.draw(st.tuples(*[st.tuples(strength, strength)] * stages)),
        )
        for i, (stages, tokens) in enumerate(shapes)
    ]
    group = combine(members, [f"<{i}>" for i in range(len(members))])
    save_identity(group, path, {"modelspec.title": "couple"})
    loaded = load_identity(path)
    assert isinstance(loaded, IdentityGroup) and loaded.metadata == {"modelspec.title": "couple"}
    for before, after in zip(group.members, loaded.members, strict=True):
        assert before.pairs.keys() == after.pairs.keys()
        assert all(torch.equal(after.pairs[name], before.pairs[name]) for name in names)
        for field in ("class_word", "placeholder", "edges", "strengths", "metadata"):
            assert getattr(before, field) == getattr(after, field)
    save_identity(loaded, path.with_name("again.safetensors"))
    assert path.with_name("again.safetensors").read_bytes() == path.read_bytes()
    kept = loaded.without("sefi.source_hash")
    assert [m.metadata for m in kept.members] == [{"modelspec.author": "é"}] * len(members)


def test_a_file_is_of_the_lowest_version_that_says_what_it_means(tmp_path):
    path = tmp_path / "a.safetensors"
    part = identity_of(strengths=((0.0, 1.0), *[(1.0, 1.0)] * 4))
    for identity, version in (
        (identity_of(), "1"),
        (part, "2"),
        (combine([identity_of(), identity_of()], ["<a>", "<b>"]), "2"),
    ):
        save_identity(identity, path)
        assert header_of(path)["format_version"] == version
    save_identity(part, path)
    assert load_identity(path).strengths == part.strengths
    whole = Identity(load_identity(path).pairs, metadata=load_identity(path).metadata)
    save_identity(whole, path)
    assert header_of(path)["format_version"] == "1" and "sefi.strengths" not in header_of(path)


def test_the_fallback_leaves_out_what_does_not_act(tmp_path):
    path = tmp_path / "a.safetensors"
    part = identity_of(strengths=((1.0, 0.0), *[(0.0, 1.0)] * 4))
    none = identity_of(strengths=((1.0, 0.0),) * 5, seed=1)
    save_identity(part, path)
    mean = part.pairs["clip_l"][1:, 1].mean(dim=0)
    assert torch.equal(safetensors.torch.load_file(path)["clip_l"], mean)
    save_identity(none, path)
    assert list(safetensors.torch.load_file(path)) == ["pairs.clip_l"]
    save_identity(combine([part, none, identity_of(tokens=2)], ["<a>", "<b>", "<c>"]), path)
    vectors = safetensors.torch.load_file(path)["clip_l"]
    whole = identity_of(tokens=2).pairs["clip_l"][:, 1].mean(dim=0)
    assert torch.equal(vectors, torch.cat([mean, whole]))


def good_metadata(**changed):
    return {"format": "sefi-id", "format_version": "1", "sefi.stage_edges": EDGES, **changed}


def write(path, tensors, metadata):
    safetensors.torch.save_file(tensors, path, metadata)


PAIRS = {"pairs.clip_l": torch.zeros(5, 2, 1, 8)}


def listed(*texts):
    """Metadata of a file with several identities."""
    whole = {"sefi.stage_edges": EDGES, "modelspec.trigger_phrase": "<a>"}
    return {"sefi.identities": json.dumps([{**whole, **text} for text in texts])}


TWO = {f"pairs.{n}.clip_l": torch.zeros(5, 2, 1, 8) for n in range(2)}
WIDE = {"pairs.0.clip_l": torch.zeros(5, 2, 1, 8), "pairs.1.clip_h": torch.zeros(5, 2, 1, 9)}
B = {"modelspec.trigger_phrase": "<b>"}
WRONG = {
    "strengths no list": (PAIRS, good_metadata(**{"sefi.strengths": "1"}), "strengths are not a"),
    "strengths no pairs": (PAIRS, good_metadata(**{"sefi.strengths": "[1, 1]"}), "strengths are"),
    "strengths too few": (PAIRS, good_metadata(**{"sefi.strengths": "[[1, 1]]"}), "of 5 stages"),
    "strengths too large": (
        PAIRS,
        good_metadata(**{"sefi.strengths": json.dumps([[1, 1.01]] * 5)}),
        "from 0 to 1 for each",
    ),
    "strengths no numbers": (
        PAIRS,
        good_metadata(**{"sefi.strengths": "[" + "[NaN, 1]," * 4 + "[1, 1]]"}),
        "from 0 to 1 for each",
    ),
    "a list of one": (PAIRS, good_metadata(**listed({})), "list of identities"),
    "a list of no texts": (PAIRS, good_metadata(**listed({}, {"x": 1})), "list of identities"),
    "no list": (TWO, good_metadata(**{"sefi.identities": '{"a": 1, "b": 2}'}), "list of identit"),
    "a deep list": (TWO, good_metadata(**{"sefi.identities": "[" * 9000}), "list of identities"),
    "one unlisted": (TWO, good_metadata(), r"does not have \(pairs.0.clip_l, pairs.1"),
    "one missing": (TWO, good_metadata(**listed({}, B, B)), "holds no token pairs"),
    "names alike": (TWO, good_metadata(**listed({}, {})), '"<a>" would also be found in "<a>"'),
    "a name of two words": (
        TWO,
        good_metadata(**listed({}, {"modelspec.trigger_phrase": "a b"})),
        'name: "a b" cannot stand in a prompt',
    ),
    "two families": (WIDE, good_metadata(**listed({}, B)), '"<a>" was trained for .*, "<b>" for'),
    "too many": (
        {f"pairs.{n}.clip_l": torch.zeros(5, 2, 1, 8) for n in range(5)},
        good_metadata(**listed(*({"modelspec.trigger_phrase": f"<{n}>"} for n in range(5)))),
        "holds 5 identities, one prompt takes 2 to 4",
    ),
    "from the future": (PAIRS, good_metadata(format_version="3"), "format version 3, .* update"),
    "version no number": (PAIRS, good_metadata(format_version="one"), "version is not a number"),
    "no edges": (PAIRS, {k: v for k, v in good_metadata().items() if "edges" not in k}, "edges"),
    "edges no list": (PAIRS, good_metadata(**{"sefi.stage_edges": "{}"}), "edges"),
    "edges rise": (PAIRS, good_metadata(**{"sefi.stage_edges": "[0,1,2,3,4,1000]"}), "edges"),
    "edges too few": (PAIRS, good_metadata(**{"sefi.stage_edges": "[1000, 0]"}), "edges"),
    "edges deep": (PAIRS, good_metadata(**{"sefi.stage_edges": "[" * 9000}), "edges"),
    "no pairs": ({}, good_metadata(), "no token pairs"),
    "unknown tensor": (PAIRS | {"x": torch.zeros(1)}, good_metadata(), r"does not have \(x\)"),
    "wrong shape": ({"pairs.clip_l": torch.zeros(5, 3, 1, 8)}, good_metadata(), "not a K and a V"),
    "no stage": ({"pairs.clip_l": torch.zeros(0, 2, 1, 8)}, good_metadata(), "not a K and a V"),
    "integers": (
        {"pairs.clip_l": torch.zeros(5, 2, 1, 8).int()},
        good_metadata(),
        "not float16 or",
    ),
    "not finite": (
        {"pairs.clip_l": torch.full((5, 2, 1, 8), torch.inf)},
        good_metadata(),
        "finite",
    ),
    "a model": ({"model.weight": torch.zeros(3)}, {}, "it is no SeFi identity"),
    "scalar embedding": ({"emb_params": torch.tensor(1.0)}, {}, "empty or no list of tokens"),
    "empty embedding": ({"clip_l": torch.zeros(2, 0)}, {}, "empty or no list of tokens"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_sentence(tmp_path, case):
    tensors, metadata, sentence = WRONG[case]
    write(tmp_path / "a.safetensors", tensors, metadata)
    with pytest.raises(IdentityFileError, match=sentence) as caught:
        load_identity(tmp_path / "a.safetensors")
    said = str(caught.value)
    assert said.startswith("embedding: a.safetensors: ") and said.endswith(".") and "\n" not in said


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.pt", pickle.dumps({}), "only .safetensors and .sft files are read"),
        ("a.safetensors", pickle.dumps({"a": 1}), "damaged or cut off|not a safetensors file"),
        ("a.safetensors", b"", "damaged or cut off"),
        ("a.safetensors", (2**63).to_bytes(8, "little"), "damaged or cut off"),
        ("a.safetensors", (2**21).to_bytes(8, "little") + b" " * 2**21, "header takes 2048 KiB"),
        ("a.safetensors", (2).to_bytes(8, "little") + b"[]", "not a safetensors file"),
        ("a.safetensors", (4).to_bytes(8, "little") + b"\xff\xfe{}", "not a safetensors file"),
    ],
)
def test_a_file_of_another_kind_is_refused_before_its_tensors(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(IdentityFileError, match=sentence):
        load_identity(tmp_path / name)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(IdentityFileError, match="it cannot be read"):
        load_identity(tmp_path / "none.safetensors")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_gets_past_with_another_error(tmp_path, data):
    path = tmp_path / "a.safetensors"
    one = identity_of(stages=2, widths=(("clip_l", 4),), strengths=((0.0, 1.0), (0.5, 1.0)))
    several = combine([one, one], ["<a>", "<b>"])
    save_identity(data.draw(st.sampled_from([one, several])), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        identity = load_identity(path)
    except IdentityFileError as error:
        assert len(str(error)) < 1000
    else:
        pairs = [pairs for member in identity.members for pairs in member.pairs.values()]
        assert all(torch.isfinite(each).all() for each in pairs)


def test_texts_too_large_for_a_reader_are_not_written(tmp_path):
    with pytest.raises(IdentityFileError, match=r"texts and cover take .* at most 1024 KiB fit"):
        save_identity(
            identity_of(), tmp_path / "a.safetensors", {"modelspec.description": "x" * 2**20}
        )
    assert not list(tmp_path.iterdir())


def test_a_save_that_fails_leaves_the_file_before_it(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_identity(identity_of(), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    sentence = r"a.safetensors: it cannot be written to .* \(No space left on device\); make room"
    with pytest.raises(IdentityFileError, match=sentence):
        save_tensors({"x": torch.zeros(4)}, path, {})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_swept_up(tmp_path):
    old, young, foreign = (
        tmp_path / name for name in (f".{'a' * 32}.tmp", f".{'b' * 32}.tmp", ".x.tmp")
    )
    for path in (old, young, foreign):
        path.touch()
    os.utime(old, (0, 0))
    os.utime(foreign, (0, 0))
    save_identity(identity_of(), tmp_path / "a.safetensors")
    assert sorted(tmp_path.glob(".*")) == sorted([young, foreign])


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_never_takes_the_place_of_another(tmp_path, monkeypatch, links):
    path = tmp_path / "a.safetensors"
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(1, "no links")))
    save_identity(identity_of(), path, anew=True)
    before = path.read_bytes()
    with pytest.raises(IdentityFileError, match=r"cannot be written to .* \(File exists\)"):
        save_identity(identity_of(stages=3), path, anew=True)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    save_identity(identity_of(stages=3), path)
    assert load_identity(path).stages == 3 and list(tmp_path.iterdir()) == [path]


def test_families_are_named_as_artists_name_them():
    assert family_name({"clip_l": 768}) == "SD 1.x (clip_l 768)"
    assert family_name({"clip_h": 1024}) == "SD 2.x (clip_h 1024)"
    assert family_name({"clip_l": 768, "clip_g": 1280}) == "SDXL (clip_g 1280 + clip_l 768)"
    with pytest.raises(MismatchError, match=r"trained for SD 1\.x .* the CLIP is SDXL"):
        identity_of().require_family({"clip_l": 768, "clip_g": 1280})


def test_the_header_is_where_the_host_looks(tmp_path):
    """The host shows `__metadata__` of any registered folder while the header is below 1 MiB."""
    path = tmp_path / "a.safetensors"
    save_identity(identity_of(), path, {"modelspec.title": "Anna"})
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    assert metadata["modelspec.title"] == "Anna" and metadata["modelspec.trigger_phrase"] == "V*"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/sefi-identity"
