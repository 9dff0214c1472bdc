"""Scores against tables worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sefi_pack.sefi_core.analysis.evaluation import (
    Scores,
    gradient_likeness,
    mean_cosine,
    near_copies,
    summarise,
)

NAN = math.nan


def scores(identity=None, prompt=None):
    return Scores(*(None if x is None else torch.tensor(x) for x in (identity, prompt)))


def test_a_table_worked_out_by_hand():
    """Five pictures: alike, alike but off the prompt, no face, a stranger, on the threshold."""
    pictures = scores([0.8, 0.6, NAN, -0.1, 0.4], [0.30, 0.20, 0.31, 0.25, 0.23])
    found = summarise(pictures, scores([0.9, NAN]), threshold=0.23)
    by_hand = {
        "ID": (0.8 + 0.6 + 0 - 0.1 + 0.4) / 5,
        "ID(F)": (0.9 + 0) / 2,
        "Detect": 4 / 5,
        "Detect(F)": 1 / 2,
        "Prompt": (0.30 + 0.20 + 0.31 + 0.25 + 0.23) / 5,
        "ID(P)": (0.8 + 0 + 0 - 0.1 + 0.4) / 5,
    }
    assert list(found) == list(by_hand)
    for name, value in by_hand.items():
        assert found[name].value == pytest.approx(value, abs=1e-7), name
        assert found[name].count == (2 if "(F)" in name else 5)


def test_overfitting_wins_id_and_loses_id_p():
    """What ID(P) is for: copies of the photo that ignore the prompt."""
    copies, obedient = scores([0.9] * 4, [0.15] * 4), scores([0.6] * 4, [0.28] * 4)
    first, second = (summarise(s, scores(), 0.23) for s in (copies, obedient))
    assert first["ID"].value > second["ID"].value
    assert first["ID(P)"].value == 0.0 and second["ID(P)"].value == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("known", "unknown"),
    [
        (scores(prompt=[0.2, 0.3]), {"ID", "ID(F)", "Detect", "Detect(F)", "ID(P)"}),
        (scores(identity=[0.2, 0.3]), {"ID(F)", "Detect(F)", "Prompt", "ID(P)"}),
        (scores(), {"ID", "ID(F)", "Detect", "Detect(F)", "Prompt", "ID(P)"}),
    ],
)
def test_what_was_not_measured_is_nan_and_nothing_else(known, unknown):
    found = summarise(known, scores(), 0.23)
    assert {name for name, e in found.items() if math.isnan(e.value)} == unknown
    assert all(found[name].count == 0 for name in unknown)


def test_the_interval_is_that_of_a_slow_bootstrap():
    values = torch.tensor([0.1, 0.2, 0.2, 0.5, 0.9, 0.4, 0.3, 0.8])
    found = summarise(scores(prompt=values.tolist()), scores(), 0.23)["Prompt"]
    generator = torch.Generator().manual_seed(77)
    means = sorted(
        float(values[torch.randint(8, (8,), generator=generator)].mean()) for _ in range(4000)
    )
    assert found.low == pytest.approx(means[100], abs=0.02)
    assert found.high == pytest.approx(means[3899], abs=0.02)
    assert found.low < found.value < found.high
    assert summarise(scores(prompt=values.tolist()), scores(), 0.23)["Prompt"] == found


def test_one_picture_has_no_interval_and_equal_pictures_a_narrow_one():
    one = summarise(scores([0.5], [0.3]), scores(), 0.23)["ID(P)"]
    assert one.value == 0.5 and math.isnan(one.low) and math.isnan(one.high)
    same = summarise(scores([0.5] * 9), scores(), 0.23)["ID"]
    assert (same.low, same.high) == pytest.approx((0.5, 0.5))


@given(
    st.lists(
        st.tuples(st.one_of(st.just(NAN), st.floats(-1, 1)), st.floats(-1, 1)),
        min_size=1,
        max_size=20,
    ),
    st.floats(-1, 1),
)
def test_id_p_is_the_loop_of_the_definition(table, threshold):
    identity, prompt = (torch.tensor(x, dtype=torch.float64) for x in zip(*table, strict=True))
    found = summarise(Scores(identity, prompt), scores(), threshold)
    total = 0.0
    for cosine, score in table:
        total += cosine if score >= threshold and not math.isnan(cosine) else 0.0
    assert found["ID(P)"].value == pytest.approx(total / len(table), abs=1e-9)
    # A threshold below every score changes nothing.
    assert summarise(Scores(identity, prompt), scores(), -2.0)["ID(P)"].value == found["ID"].value


def test_cosines_to_several_references_are_averaged():
    embeddings = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    references = torch.tensor([[5.0, 0.0], [0.0, 0.1]])
    torch.testing.assert_close(mean_cosine(embeddings, references), torch.tensor([0.5, 0.5**0.5]))


def test_a_picture_is_alike_to_itself_dimmed_shrunk_or_mirrored_and_to_no_other():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 16, 16, generator=generator)
    one, other = coarse.repeat_interleave(8, -1).repeat_interleave(8, -2)
    assert gradient_likeness(one, one) == pytest.approx(1.0)
    assert gradient_likeness(0.5 * one + 0.2, one) == pytest.approx(1.0)
    assert gradient_likeness(one.flip(-1), one) == pytest.approx(1.0)
    assert gradient_likeness(one[:, ::2, ::2], one) == pytest.approx(1.0)
    assert abs(gradient_likeness(one, other)) < 0.3
    assert gradient_likeness(torch.full((3, 32, 32), 0.5), one) == 0.0  # a flat picture


def test_either_sign_makes_a_near_copy():
    cosines = torch.tensor([0.95, 0.5, NAN, NAN])
    likeness = torch.tensor([0.1, 0.8, 0.9, 0.2])
    assert near_copies(cosines, likeness).tolist() == [True, True, True, False]
    assert near_copies(None, likeness).tolist() == [False, True, True, False]
