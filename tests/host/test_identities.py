"""Several identities in the genuine host: in one prompt, side by side, edited, exported."""

import itertools
from dataclasses import replace

import folder_paths
import pytest
import seeded
import torch
from sefi_pack.nodes import NODES
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.identities.saving import save_new_embedding, save_new_identity
from sefi_pack.nodes.host.text.encoder import text_encoders, token_widths, word_tokens
from sefi_pack.nodes.host.text.encoding import encode_staged
from sefi_pack.nodes.host.text.slots import SlottedPrompt
from sefi_pack.sefi_core.errors import MismatchError, PromptError, SettingsError
from sefi_pack.sefi_core.identity.edit import blend, edit
from sefi_pack.sefi_core.identity.file_format import load_identity
from sefi_pack.sefi_core.identity.group import combine
from sefi_pack.sefi_core.identity.identity import Identity

import nodes

NEGATIVE = "blurry, low quality"
ONE_CLASS_WORD = "a photo of person"
TWO = "a photo of <a> and <b> in the garden"


def sample(model, conditioning, clip, steps=4, batch=1):
    latent = nodes.EmptyLatentImage().generate(64, 64, batch)[0]
    positive, negative = conditioning, encode(clip, NEGATIVE)
    args = (model, 3, steps, 7.5, "euler", "normal", positive, negative, latent)
    return nodes.KSampler().sample(*args)[0]["samples"]


def encode(clip, text):
    return nodes.CLIPTextEncode().encode(clip, text)[0]


def some(clip, seed, stages=5, tokens=1, **fields):
    generator = torch.Generator().manual_seed(seed)
    return Identity(
        {
            name: torch.randn(stages, 2, tokens, width, generator=generator) * 0.3
            for name, width in token_widths(clip).items()
        },
        **fields,
    )


def staged(model, clip, identity, text, **inputs):
    return apply_identity(model, clip, identity, text, **inputs)[1][0][1]["sefi"]


def same(one, other):
    return (
        torch.equal(one.keys, other.keys)
        and torch.equal(one.values, other.values)
        and torch.equal(one.reference, other.reference)
        and one.edges == other.edges
    )


@pytest.fixture
def pair(clip):
    """Two identities of unlike stages, tokens and class words under <a> and <b>."""
    first = some(clip, 1, stages=5)
    return combine([first, some(clip, 2, stages=3, tokens=2, class_word="dog")], ["<a>", "<b>"])


@pytest.fixture
def models(tmp_path, monkeypatch):
    """models/sefi and models/embeddings of this test's own."""
    for name in ("sefi", "embeddings"):
        (tmp_path / name).mkdir()
        paths = ([str(tmp_path / name)], folder_paths.folder_names_and_paths[name][1])
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, paths)
    folder_paths.filename_list_cache.clear()
    return tmp_path


# --- several in one prompt --------------------------------------------------------------------


def test_two_identities_take_one_text_encoder_call_of_two_per_common_stage(
    model, clip, pair, monkeypatch
):
    calls = []
    (encoder,) = text_encoders(clip).values()
    monkeypatch.setattr(
        encoder, "encode", lambda t, e=encoder.encode: (calls.append(len(t)), e(t))[1]
    )
    contexts = staged(model, clip, pair, TWO)
    assert contexts.edges == (1000, 800, 667, 600, 400, 334, 200, 0)
    assert contexts.keys.shape == contexts.values.shape == (7, 77, 64)
    assert calls == [1, 14]  # the reference prompt; seven common stages of keys and values


def test_every_common_stage_is_the_prompt_with_both_tokens_of_that_time(model, clip, pair):
    """Against the host's own encoder, one prompt at a time."""
    contexts = staged(model, clip, pair, TWO)
    prompt = SlottedPrompt.read(clip, TWO, {"<a>": "person", "<b>": "dog"})
    for t, axis in itertools.product((999, 700, 650, 399, 0), (0, 1)):
        tokens = {}
        for member in pair.members:
            stage = sum(t < edge for edge in member.edges[1:-1])
            tokens[member.placeholder] = member.pairs["clip_l"][stage, axis]
        expected = clip.encode_from_tokens(prompt.filled({"clip_l": [tokens]}))
        found = contexts.at(torch.tensor([t]))[axis]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("class_words", [("person", "person"), ("person", "dog")])
def test_swapped_names_swap_the_tokens_and_nothing_else(class_words, model, clip, monkeypatch):
    members = [some(clip, i, class_word=word) for i, word in enumerate(class_words)]
    group = combine(members, ["<a>", "<b>"])
    encoded = []
    original = clip.encode_from_tokens_scheduled
    monkeypatch.setattr(
        clip, "encode_from_tokens_scheduled", lambda t: (encoded.append(t["l"]), original(t))[1]
    )
    there = staged(model, clip, group, "<a> and <b>, smiling")
    back = staged(model, clip, group, "<b> and <a>, smiling")
    plain, swapped_plain = encoded[0][0], encoded[2][0]
    for i, entries in enumerate(zip(plain, swapped_plain, strict=True)):
        assert (entries[0] == entries[1]) == (i not in (1, 3) or class_words[0] == class_words[1])
    for one, other in zip(encoded[1], encoded[3], strict=True):
        for i, ((token, weight), (swapped, swapped_weight)) in enumerate(
            zip(one, other, strict=True)
        ):
            opposite = other[{1: 3, 3: 1}.get(i, i)][0]
            assert weight == swapped_weight and torch.is_tensor(token) == (i in (1, 3))
            if torch.is_tensor(token):
                assert torch.equal(token, opposite) and not torch.equal(token, swapped)
            else:
                assert token == swapped
    renamed = combine(members, ["<b>", "<a>"])
    assert same(back, staged(model, clip, renamed, "<a> and <b>, smiling"))
    assert not torch.equal(there.keys, back.keys)
    assert torch.equal(there.keys[:, :1], back.keys[:, :1])  # the start token comes before both


def test_one_of_two_names_is_that_identity_alone(model, clip, pair):
    alone = pair.members[1]
    found = staged(model, clip, pair, "a photo of (<b>:1.2) in the snow")
    assert same(found, staged(model, clip, alone, "a photo of (<b>:1.2) in the snow"))
    with pytest.raises(PromptError, match='none of the placeholders "<a>", "<b>" stands'):
        apply_identity(model, clip, pair, "a photo of V*")


@pytest.mark.parametrize("text", [TWO, "<a>, <a> and (<b>:1.3)", "<b>" + ", one more word" * 40])
def test_neutral_identities_sample_the_plain_picture(text, model, clip):
    def neutral(word, stages):
        tokens = word_tokens(clip, word)
        pairs = {name: token.clone().expand(stages, 2, 1, -1) for name, token in tokens.items()}
        return Identity(pairs, class_word=word)

    group = combine([neutral("person", 5), neutral("dog", 3)], ["<a>", "<b>"])
    plain = sample(model, encode(clip, text.replace("<a>", "person").replace("<b>", "dog")), clip)
    assert torch.equal(sample(*apply_identity(model, clip, group, text), clip), plain)


def test_strengths_and_percents_act_on_all_of_them(model, clip, pair):
    plain = encode(clip, TWO.replace("<a>", "person").replace("<b>", "dog"))
    picture = sample(model, plain, clip)
    off = sample(*apply_identity(model, clip, pair, TWO, strength=0.0), clip)
    assert torch.equal(off, picture)
    contexts = staged(model, clip, pair, TWO, start_percent=0.3005, key_strength=0.0)
    assert torch.equal(contexts.keys, plain[0][0].expand_as(contexts.keys))
    starts = contexts.edges[1:]
    for start, value in zip(starts, contexts.values, strict=True):
        assert torch.equal(value, plain[0][0][0]) == (start >= 699)


def test_both_text_encoders_get_both_identities():
    clip = seeded.tiny_clip_lg()
    group = combine([some(clip, 1), some(clip, 2, tokens=2)], ["<a>", "<b>"])
    (entry,) = encode_staged(clip, group, TWO, (1.0, 1.0), (0, 1000))
    assert entry[1]["sefi"].keys.shape == (5, 77, 160)
    ((_, plain),) = encode(clip, TWO.replace("<a>", "person").replace("<b>", "person"))
    assert torch.equal(entry[1]["pooled_output"], plain["pooled_output"])


def test_a_group_takes_no_other_placeholder(model, clip, pair):
    with pytest.raises(PromptError, match=r"placeholder: .* \(<a>, <b>\); leave it empty"):
        apply_identity(model, clip, pair, TWO, placeholder="V*")


def test_long_class_words_may_need_a_chunk_more(model, clip):
    """The reference prompt takes three chunks, the identity's two, which are repeated whole."""
    long = some(clip, 1, class_word="golden retriever puppy dog")
    text = ", ".join(["a word"] * 24) + ", V* here and there, V*"
    text += ", a word" * 22 + " V*"
    model, conditioning = apply_identity(model, clip, long, text)
    lengths = {conditioning[0][1]["sefi"].keys.shape[1], conditioning[0][0].shape[1]}
    chunks = [len(clip.tokenize(text.replace("V*", w))["l"]) for w in ("sks", long.class_word)]
    assert chunks == [2, 3] and lengths == {6 * 77, 3 * 77}
    longer = nodes.ConditioningConcat().concat(conditioning, encode(clip, "a hat"))[0]
    assert torch.isfinite(sample(model, longer, clip)).all()
    assert not torch.equal(sample(model, longer, clip), sample(model, conditioning, clip))


@pytest.mark.parametrize("text", ["word " * 74 + "V*", "V* " + "word " * 74])
def test_tokens_that_do_not_fit_are_counted(model, clip, text):
    three = some(clip, 1, tokens=3)
    with pytest.raises(
        PromptError, match=r"text: an identity of 3 tokens does not fit .* take out 2 words or more"
    ):
        apply_identity(model, clip, three, text)


# --- side by side -----------------------------------------------------------------------------


def test_two_identities_on_two_branches_of_one_checkpoint_do_not_meet(model, clip):
    first, second = some(clip, 1), some(clip, 2)
    alone = [sample(*apply_identity(model, clip, i, "V* smiling"), clip) for i in (first, second)]
    plain = sample(model, encode(clip, "person smiling"), clip)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations([*alone, plain], 2))
    branches = [apply_identity(model, clip, i, "V* smiling") for i in (first, second)]
    for i in (1, 0, 0, 1):
        assert torch.equal(sample(*branches[i], clip), alone[i])
        assert torch.equal(sample(model, encode(clip, "person smiling"), clip), plain)


def test_with_one_without_with_it_again(model, clip):
    first, second = some(clip, 1), some(clip, 2)

    def pictured(identity):
        if identity is None:
            return sample(model, encode(clip, "a photo of person"), clip)
        return sample(*apply_identity(model, clip, identity, "a photo of V*"), clip)

    order = [first, None, second, first, None, second, None]
    pictures = [pictured(identity) for identity in order]
    for (a, one), (b, other) in itertools.combinations(zip(order, pictures, strict=True), 2):
        assert torch.equal(one, other) == (a is b)


def test_a_node_switched_off_leaves_no_trace(model, clip):
    """What the page does with a bypassed edit (its input passes) and with a muted branch."""
    identity = some(clip, 1)
    before = sample(*apply_identity(model, clip, identity, "V*"), clip)
    edited = edit(identity, "class word", "keep", "1-2")
    assert not torch.equal(sample(*apply_identity(model, clip, edited, "V*"), clip), before)
    assert torch.equal(sample(*apply_identity(model, clip, identity, "V*"), clip), before)
    assert torch.equal(
        sample(model, encode(clip, "person"), clip),
        sample(apply_identity(model, clip, identity, "V*")[0], encode(clip, "person"), clip),
    )


# --- edited -----------------------------------------------------------------------------------


def test_all_stages_of_the_class_word_are_strength_0(model, clip, learned):
    gone = edit(learned, "class word", "class word", "all")
    edited = sample(*apply_identity(model, clip, gone, "a photo of V*"), clip)
    zero = sample(*apply_identity(model, clip, learned, "a photo of V*", strength=0.0), clip)
    plain = sample(model, encode(clip, ONE_CLASS_WORD), clip)
    assert torch.equal(edited, zero) and torch.equal(edited, plain)


@pytest.mark.parametrize(
    ("field", "strength"), [("keys", "key_strength"), ("values", "value_strength")]
)
def test_keys_or_values_of_the_class_word_are_their_strength_0(
    field, strength, model, clip, learned
):
    sources = {"keys": "keep", "values": "keep", field: "class word"}
    gone = staged(model, clip, edit(learned, **sources, stages="all"), "V* in a hat")
    assert same(gone, staged(model, clip, learned, "V* in a hat", **{strength: 0.0}))


def test_first_stages_of_the_class_word_are_a_later_start(model, clip, learned):
    """Stages 1 and 2 are t >= 600: the host starts there at (999 - 599) / 999."""
    late = edit(learned, "class word", "class word", "1-2")
    started = staged(model, clip, learned, "V*", start_percent=(999 - 599.5) / 999)
    found = staged(model, clip, late, "V*")
    for t in (999, 700, 600, 599, 300, 0):
        for one, other in zip(
            found.at(torch.tensor([t])), started.at(torch.tensor([t])), strict=True
        ):
            assert torch.equal(one, other)


def test_a_class_word_beside_another_identity_is_its_own_tokens(model, clip):
    """One member hands a stage back, the other goes on acting."""
    back = edit(some(clip, 1, class_word="golden retriever"), "class word", "keep", "1")
    group = combine([back, some(clip, 2)], ["<a>", "<b>"])
    keys = staged(model, clip, group, "<a> and <b>").keys
    alone = staged(model, clip, group.members[1], "golden retriever and <b>").keys
    torch.testing.assert_close(keys[0], alone[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(keys[1], alone[1], atol=1e-3)


def test_swapped_and_blended_identities_in_the_encoder(model, clip, learned):
    as_it_is = staged(model, clip, learned, "a photo of V*")
    swapped = edit(learned, "values", "keys", "all")
    found = staged(model, clip, swapped, "a photo of V*")
    assert torch.equal(found.keys, as_it_is.values) and torch.equal(found.values, as_it_is.keys)
    again = edit(swapped, "values", "keys", "all")
    one = blend([learned, some(clip, 9)], [0.7, 0.0], [0.7, 0.0])
    for identity in (again, one):
        assert same(staged(model, clip, identity, "a photo of V*"), as_it_is)


# --- files ------------------------------------------------------------------------------------


def node(name):
    (found,) = [node for node in NODES if node.__name__ == name]
    return found


def test_a_group_is_saved_loaded_and_applied_like_one(models, model, clip, pair):
    save_new_identity(pair, "couple", title="Couple", notes="both agreed")
    (loaded,) = node("LoadSeFiEmbedding").execute("couple_00001_.safetensors").args
    assert loaded.metadata["modelspec.title"] == "Couple"
    assert same(staged(model, clip, pair, TWO), staged(model, clip, loaded, TWO))
    partly = edit(pair.members[0], "class word", "keep", "1")
    save_new_identity(partly, "partly")
    loaded = load_identity(models / "sefi/partly_00001_.safetensors")
    assert same(staged(model, clip, partly, "<a>"), staged(model, clip, loaded, "<a>"))


def test_nobody_can_tell_the_pictures_of_a_shared_group(models, pair):
    members = [replace(m, metadata={"sefi.source_hash": "abc"}) for m in pair.members]
    save_new_identity(combine(members, ["<a>", "<b>"]), "couple", include_source_hash=False)
    assert b"abc" not in (models / "sefi/couple_00001_.safetensors").read_bytes()


def test_the_nodes_give_what_the_core_gives(pair):
    one, two = pair.members
    (combined,) = (
        node("CombineSeFiIdentities")
        .execute(identity_1=one, identity_2=two, name_1="<x>", name_2="<y>", identity_4=one)
        .args
    )
    assert [m.placeholder for m in combined.members] == ["<x>", "<y>", "<d>"]
    weights = dict(key_weight_1=1.0, value_weight_1=0.0, key_weight_2=0.0, value_weight_2=1.0)
    two = replace(one, pairs={"clip_l": one.pairs["clip_l"] + 1})
    (mixed,) = node("BlendSeFiIdentities").execute(identity_1=one, identity_2=two, **weights).args
    (taken,) = (
        node("EditSeFiIdentity")
        .execute(
            identity=one, keys="keep", values="second identity", stages="all", second_identity=two
        )
        .args
    )
    assert torch.equal(mixed.pairs["clip_l"], taken.pairs["clip_l"])
    assert torch.equal(taken.pairs["clip_l"][:, 0], one.pairs["clip_l"][:, 0])
    assert torch.equal(taken.pairs["clip_l"][:, 1], two.pairs["clip_l"][:, 1])


@pytest.mark.parametrize("family", [seeded.tiny_clip, seeded.tiny_clip_h, seeded.tiny_clip_lg])
@pytest.mark.parametrize(("tokens", "axis"), [("values", 1), ("keys", 0)])
def test_an_export_loads_in_the_hosts_prompt_and_is_the_stage_mean(models, family, tokens, axis):
    clip = family()
    for name in clip.tokenize(""):
        getattr(clip.tokenizer, f"clip_{name}").embedding_directory = [str(models / "embeddings")]
    identity = some(clip, 4, tokens=2)
    prompt, line = save_new_embedding(identity, "people/anna", tokens, None)
    assert prompt == "embedding:people/anna" and line.endswith(
        "write embedding:people/anna in a prompt"
    )
    for name, chunks in clip.tokenize(f"a photo of {prompt}, smiling").items():
        found = torch.stack([token for token, _ in chunks[0] if torch.is_tensor(token)])
        expected = identity.pairs[f"clip_{name}"][:, axis].mean(dim=0)
        assert torch.equal(found, expected)
    again = load_identity(models / "embeddings/people/anna.safetensors")
    assert again.widths == identity.widths and again.tokens == 2


def test_an_export_never_overwrites_nor_hides_another(models, clip, learned):
    (models / "embeddings/anna.pt").touch()
    names = [save_new_embedding(learned, "anna", "values", None)[0] for _ in range(2)]
    assert names == ["embedding:anna_2", "embedding:anna_3"]
    assert not (models / "embeddings/anna.safetensors").exists()


@pytest.mark.parametrize(
    ("identity", "prefix", "tokens", "sentence"),
    [
        ("learned", "my anna", "values", 'filename_prefix: "my anna" has a space'),
        ("learned", "../anna", "values", r'filename_prefix: "\.\." is no plain name'),
        ("learned", "anna", "both", 'tokens: "both" is unknown; choose one of keys, values'),
        ("pair", "anna", "values", r"identity: it holds 2 identities \(<a>, <b>\)"),
        ("gone", "anna", "values", "identity: its values are the class word in every stage"),
    ],
)
def test_an_export_that_cannot_be_writes_nothing(
    models, learned, pair, identity, prefix, tokens, sentence
):
    choices = {"learned": learned, "pair": pair, "gone": edit(learned, "keep", "class word", "all")}
    with pytest.raises((SettingsError, MismatchError), match=sentence):
        save_new_embedding(choices[identity], prefix, tokens, None)
    assert not [path for path in models.rglob("*") if path.is_file()]
