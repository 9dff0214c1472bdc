"""Several identities, edits and blends: against what they mean at every timestep."""

import itertools
import re

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sefi_pack.sefi_core.errors import MismatchError, PromptError, SettingsError
from sefi_pack.sefi_core.identity.edit import SOURCES, blend, edit, stage_mean
from sefi_pack.sefi_core.identity.group import IdentityGroup, combine, joined
from sefi_pack.sefi_core.identity.identity import Identity, aligned
from sefi_pack.sefi_core.prompts import placeholders_in, replace_placeholders
from sefi_pack.sefi_core.stages import chosen_stages, stage_of, union_edges

TIMES = sorted({0, 999, *range(0, 1000, 53)})


def learned(edges=(1000, 800, 600, 400, 200, 0), seed=0, tokens=1, width=4, **fields):
    generator = torch.Generator().manual_seed(seed)
    pairs = {"clip_l": torch.randn(len(edges) - 1, 2, tokens, width, generator=generator)}
    return Identity(pairs, edges=tuple(edges), **fields)


def at(identity, t, axis):
    """Returns (strength, token) of K or V at a timestep, by counting edges."""
    stage = sum(t < edge for edge in identity.edges[1:-1])
    return identity.strengths[stage][axis], identity.pairs["clip_l"][stage, axis]


def same(one, other):
    return (
        torch.equal(one.pairs["clip_l"], other.pairs["clip_l"])
        and (one.edges, one.strengths) == (other.edges, other.strengths)
        and (one.class_word, one.placeholder) == (other.class_word, other.placeholder)
    )


inner_edges = st.lists(st.integers(1, 999), max_size=6, unique=True).map(
    lambda cuts: (1000, *sorted(cuts, reverse=True), 0)
)
strength = st.sampled_from([0.0, 0.25, 1.0])


@st.composite
def identities(draw, **fields):
    edges = draw(inner_edges)
    strengths = tuple(draw(st.tuples(strength, strength)) for _ in edges[1:])
    return learned(edges, draw(st.integers(0, 99)), strengths=strengths, **fields)


# --- stages -----------------------------------------------------------------------------------


@given(inner_edges, inner_edges)
def test_a_union_of_edges_has_all_of_them_and_no_other(one, other):
    union = union_edges(one, other)
    assert set(union) == {*one, *other} and list(union) == sorted(union, reverse=True)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("all", [1, 2, 3, 4, 5]), (" ALL ", [1, 2, 3, 4, 5]), ("1", [1]), ("5", [5]),
        ("1-2", [1, 2]), ("1, 4 - 5", [1, 4, 5]), ("2,2,2-3", [2, 3]),
    ],
)  # fmt: skip
def test_stages_are_chosen_as_written(text, chosen):
    assert [i + 1 for i, is_chosen in enumerate(chosen_stages(text, 5)) if is_chosen] == chosen


@pytest.mark.parametrize("text", ["", "0", "6", "1-6", "3-2", "1;2", "one", "-1", "1,", "1e0", "٣"])
def test_stages_that_are_not_there_are_one_sentence(text):
    with pytest.raises(SettingsError, match=r"stages: .* are 1 to 5; write for example") as error:
        chosen_stages(text, 5)
    assert "\n" not in str(error.value)


@given(identities(), identities())
def test_aligned_identities_mean_the_same_at_every_timestep(one, other):
    for before, after in zip((one, other), aligned([one, other]), strict=True):
        assert after.edges == union_edges(one.edges, other.edges)
        for t, axis in itertools.product(TIMES, (0, 1)):
            (strength, token), (kept_strength, kept) = at(before, t, axis), at(after, t, axis)
            assert strength == kept_strength and torch.equal(token, kept)


# --- names ------------------------------------------------------------------------------------


name = st.text(alphabet="ab<>*._", min_size=1, max_size=4)


def allowed(names):
    try:
        IdentityGroup(tuple(learned(placeholder=each) for each in names))
    except PromptError:
        return False
    return True


@settings(max_examples=200)
@given(st.lists(name, min_size=2, max_size=3, unique=True), st.text("ab<>*._ ,", max_size=20))
def test_allowed_names_mean_the_same_in_any_order(names, text):
    assume(allowed(names))
    words = {name: f"word{i}" for i, name in enumerate(names)}
    backward = dict(reversed(words.items()))
    assert replace_placeholders(text, words) == replace_placeholders(text, backward)


@given(st.lists(name, min_size=2, max_size=3, unique=True))
def test_each_allowed_name_is_found_where_it_is_written_and_no_other(names):
    assume(allowed(names))
    text = " and ".join(names)
    words = {name: f"W{i}W" for i, name in enumerate(names)}
    assert placeholders_in(text, names) == names
    assert replace_placeholders(text, words) == " and ".join(words.values())


@pytest.mark.parametrize(
    ("names", "fits"),
    [
        (("<a>", "<b>"), True), (("V*", "W*"), True), (("anna", "anna2"), True),
        (("<a>", "<a>b"), True), (("anna", "bob"), True),
        (("<a>", "<a>"), False), (("V*", "V**"), False), (("a", "<a>"), False),
        (("", "<b>"), False), (("a b", "<b>"), False), (("(a)", "<b>"), False),
        (("{a|b}", "c"), False), (("x" * 41, "c"), False), (("a\\", "c"), False),
    ],
)  # fmt: skip
def test_names_that_could_be_taken_for_one_another_are_refused(names, fits):
    assert allowed(names) == fits


def test_swapped_names_are_swapped_at_once():
    """One replacement never sees the outcome of the other."""
    words = {"person": "dog", "dog": "person"}
    assert replace_placeholders("a person and a dog", words) == "a dog and a person"


def test_a_text_needs_one_of_several_names():
    assert placeholders_in("a photo of <b>", ["<a>", "<b>"]) == ["<b>"]
    with pytest.raises(
        PromptError, match=r'none of the placeholders "<a>", "<b>" stands in "a photo"; write one'
    ):
        placeholders_in("a photo", ["<a>", "<b>"])


# --- combine ----------------------------------------------------------------------------------


def test_combined_identities_take_their_inputs_names():
    a, b = learned(seed=1, class_word="dog"), learned(seed=2, edges=(1000, 500, 0))
    group = combine([a, None, b], ["<a>", "", " <c> "])
    assert [member.placeholder for member in group.members] == ["<a>", "<c>"]
    assert [member.class_word for member in group.members] == ["dog", "person"]
    assert all(m.pairs is i.pairs for m, i in zip(group.members, (a, b), strict=True))
    assert a.placeholder == b.placeholder == "V*"


def test_what_cannot_be_combined_is_one_sentence():
    group = combine([learned(), learned()], ["<a>", "<b>"])
    with pytest.raises(MismatchError, match=r"identity_2: it holds 2 identities \(<a>, <b>\)"):
        combine([learned(), group], ["<c>", "<d>"])
    with pytest.raises(MismatchError, match=r'"<a>" was trained for SD 1.x .*, "<b>" for SD 2.x'):
        wide = Identity({"clip_h": torch.zeros(5, 2, 1, 1024)})
        combine([learned(width=768), wide], ["<a>", "<b>"])
    with pytest.raises(PromptError, match=r"placeholder: the identity holds 2 .* leave it empty"):
        group.named("V*")
    assert group.named("") is group
    for takes_one in (
        lambda: edit(group, "keep", "keep", "all"),
        lambda: blend([learned(), group], [1, 1], [1, 1]),
    ):
        with pytest.raises(MismatchError, match=r"it holds 2 identities .* takes a single one"):
            takes_one()


def test_one_identity_joins_to_itself():
    identity = learned()
    assert joined([identity], {}) is identity and identity.members == (identity,)


# --- edit -------------------------------------------------------------------------------------


@given(identities())
def test_swapping_keys_and_values_twice_is_the_identity(identity):
    swapped = edit(identity, "values", "keys", "all")
    assert torch.equal(swapped.pairs["clip_l"], identity.pairs["clip_l"].flip(1))
    assert same(edit(swapped, "values", "keys", "all"), identity)


@settings(max_examples=60)
@given(
    identities(),
    identities(),
    st.sampled_from(SOURCES["keys"]),
    st.sampled_from(SOURCES["values"]),
    st.data(),
)
def test_an_edit_means_what_it_says_at_every_timestep(first, second, keys, values, data):
    numbers = data.draw(st.sets(st.integers(1, first.stages), min_size=1))
    before = first.pairs["clip_l"].clone()
    edited = edit(first, keys, values, ",".join(map(str, numbers)), second)
    for t, (axis, source) in itertools.product(TIMES, enumerate((keys, values))):
        chosen = sum(t < edge for edge in first.edges[1:-1]) + 1 in numbers
        expected = {
            "keep": at(first, t, axis),
            "keys": at(first, t, 0),
            "values": at(first, t, 1),
            "class word": (0.0, torch.zeros(1, 4)),
            "second identity": at(second, t, axis),
        }[source if chosen else "keep"]
        strength, token = at(edited, t, axis)
        assert strength == expected[0] and torch.equal(token, expected[1])
    assert torch.equal(first.pairs["clip_l"], before)
    uses_second = "second identity" in (keys, values)
    assert edited.edges == (union_edges(first.edges, second.edges) if uses_second else first.edges)


def test_an_edited_identity_keeps_only_what_is_true_of_all_it_is_made_of():
    one = learned(metadata={"sefi.source_hash": "a", "sefi.encoder_hash": "e"}, class_word="dog")
    two = learned(metadata={"sefi.source_hash": "b", "sefi.encoder_hash": "e"}, seed=1)
    assert edit(one, "class word", "keep", "1").metadata == one.metadata
    mixed = edit(one, "second identity", "keep", "1", two)
    assert mixed.metadata == {"sefi.encoder_hash": "e"} and mixed.class_word == "dog"
    assert blend([one, two], [1, 1], [1, 1]).metadata == {"sefi.encoder_hash": "e"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(keys="second identity"), "second_identity: .* nothing is connected; connect"),
        (dict(keys="else"), 'keys: "else" is unknown; choose keep, values, class word'),
        (dict(values="values"), 'values: "values" is unknown; choose keep, keys, class word'),
        (dict(stages="7"), "stages: "),
        (
            dict(keys="second identity", second_identity=learned(tokens=2)),
            "second_identity: it takes 2 tokens in a prompt, identity takes 1",
        ),
        (
            dict(keys="second identity", second_identity=learned(width=768)),
            "second_identity: it was trained for SD 1.x .*, identity for a model with",
        ),
    ],
)
def test_an_edit_that_cannot_be_is_one_sentence(change, sentence):
    wanted = {"keys": "keep", "values": "keep", "stages": "all", **change}
    with pytest.raises((SettingsError, MismatchError), match=sentence) as error:
        edit(learned(), **wanted)
    assert re.fullmatch(r"[^\n]+\.", str(error.value))


# --- blend ------------------------------------------------------------------------------------


@given(identities(), identities(), st.sampled_from([0.05, 0.3, 1.0, 7.0]))
def test_a_blend_of_one_identity_is_that_identity(one, other, weight):
    for blended in (
        blend([one, other], [weight, 0.0], [weight, 0.0]),
        blend([one, None, None, None], [weight, 1, 1, 1], [weight, 1, 1, 1]),
        blend([None, other, one], [1, 0, weight], [1, 0, weight]),
    ):
        assert torch.equal(blended.pairs["clip_l"], meant(one)) and blended.edges == one.edges
        assert blended.strengths == one.strengths


def meant(identity):
    """Returns its pairs, zero where they mean nothing."""
    acts = torch.tensor(identity.strengths) > 0.0
    return identity.pairs["clip_l"] * acts[..., None, None]


@settings(max_examples=60)
@given(
    st.lists(identities(), min_size=2, max_size=4),
    st.lists(st.sampled_from([0.0, 0.05, 1.0, 2.5]), min_size=8, max_size=8),
)
def test_a_blend_is_the_weighted_mean_of_what_is_put_into_the_prompt(members, weights):
    key_weights, value_weights = weights[: len(members)], weights[4 : 4 + len(members)]
    assume(sum(key_weights) > 0 and sum(value_weights) > 0)
    blended = blend(members, key_weights, value_weights)
    class_token = torch.tensor([0.3, -1.0, 2.0, 0.5])
    for t, (axis, shares) in itertools.product(TIMES, enumerate((key_weights, value_weights))):
        expected = torch.zeros(1, 4)
        for member, share in zip(members, shares, strict=True):
            strength, token = at(member, t, axis)
            expected += share / sum(shares) * (class_token + strength * (token - class_token))
        strength, token = at(blended, t, axis)
        found = class_token + strength * (token - class_token)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_blend_of_neutral_identities_is_neutral_to_the_last_bit():
    one = learned()
    for weights in ([0.3, 0.7, 0.1], [1, 3, 7], [0.1, 0.0, 0.2]):
        blended = blend([one, one, one], weights, weights)
        assert torch.equal(blended.pairs["clip_l"], one.pairs["clip_l"])


def test_a_plain_blend_is_of_version_1():
    """Blending whole identities leaves the strengths exactly 1, whatever the weights."""
    members = [learned(seed=i) for i in range(4)]
    for weights in itertools.product([0.1, 0.7, 3.0], repeat=4):
        assert set(blend(members, weights, weights).strengths) == {(1.0, 1.0)}


@pytest.mark.parametrize("weights", [([0, 0], [1, 1]), ([1, 1], [0, 0]), ([-1, 2], [1, 1])])
def test_weights_of_nothing_are_one_sentence(weights):
    with pytest.raises(SettingsError, match="key_weight_1, value_weight_1 and so on: "):
        blend([learned(), learned()], *weights)


def test_unlike_identities_are_not_blended():
    with pytest.raises(MismatchError, match="identity_3: it takes 2 tokens"):
        blend([learned(), None, learned(tokens=2)], [1, 1, 1], [1, 1, 1])


# --- export -----------------------------------------------------------------------------------


@given(identities(), st.sampled_from([0, 1]))
def test_the_exported_token_is_the_mean_of_the_stages_that_act(identity, axis):
    rows = [
        identity.pairs["clip_l"][stage, axis]
        for stage in range(identity.stages)
        if identity.strengths[stage][axis]
    ]
    mean = stage_mean(identity, axis)
    assert bool(mean) == bool(rows)
    if rows:
        torch.testing.assert_close(mean["clip_l"], sum(rows) / len(rows))


def test_stages_outside_a_range_are_the_class_word():
    cut = learned().within(300, 700)
    assert cut.edges == (1000, 800, 700, 600, 400, 300, 200, 0)
    acts = [t for t in range(1000) if at(cut, t, 0)[0]]
    assert acts == list(range(300, 700))
    assert stage_of(torch.tensor([650]), cut.edges).item() == 2
