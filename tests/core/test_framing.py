"""Into which frame a picture is brought, and how."""

import math
from dataclasses import astuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sefi_pack.sefi_core.picture.alignment import TRIALS, Frame, expected_frame, in_frame
from sefi_pack.sefi_core.training.config import TrainingConfig

SIDE = 64


def blob(right=0.0, down=0.0, size=0.15):
    """A soft round spot, (1, 1, SIDE, SIDE)."""
    x = (torch.arange(SIDE) + 0.5) / SIDE - 0.5
    distance = (x - right).square()[None, :] + (x - down).square()[:, None]
    return (-distance / size**2).exp()[None, None]


def middle(picture):
    """Where the weight of a picture lies, right and down, and how wide it is spread."""
    x = (torch.arange(SIDE) + 0.5) / SIDE - 0.5
    weight = picture[0, 0] / picture.sum()
    right, down = (weight.sum(0) * x).sum(), (weight.sum(1) * x).sum()
    return float(right), float(down), float((weight.sum(0) * (x - right).square()).sum().sqrt())


def losses_of(best, bend=100.0):
    """Losses of the trials that are least in the frame `best`."""
    return [
        1.0 + bend * sum((a - b) ** 2 for a, b in zip(astuple(trial), astuple(best), strict=True))
        for trial in TRIALS
    ]


@given(st.floats(-0.1, 0.1), st.floats(-0.04, 0.04), st.floats(0.1, 100.0))
def test_a_picture_goes_where_the_loss_is_less(zoom, down, scale):
    losses = losses_of(Frame(zoom, 0.0, down))
    found = expected_frame(losses)
    assert found.right == pytest.approx(0.0, abs=1e-9)
    for move, best in ((found.zoom, zoom), (found.down, down)):
        assert move * best > 0.0 or abs(best) < 1e-3
    rescaled = expected_frame([scale * loss for loss in losses])
    assert astuple(rescaled) == pytest.approx(astuple(found))


@given(st.lists(st.floats(1e-6, 1e6), min_size=len(TRIALS), max_size=len(TRIALS)))
def test_no_frame_is_beyond_what_was_tried(losses):
    found = expected_frame(losses)
    assert abs(found.zoom) < 0.1501 and max(abs(found.right), abs(found.down)) < 0.0601


def test_a_plain_answer_is_followed_nearly_to_the_end():
    losses = [1.0 if trial == TRIALS[3] else 3.0 for trial in TRIALS]
    found = expected_frame(losses)
    assert found.zoom == pytest.approx(TRIALS[3].zoom, rel=1e-2)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_what_tells_nothing_moves_nothing(loss):
    assert astuple(expected_frame([2.0] * len(TRIALS))) == pytest.approx((0.0, 0.0, 0.0))
    losses = losses_of(Frame(0.05, 0.02, 0.02))
    found = expected_frame([loss, *losses[1:]])
    assert found.zoom == 0.0 and found.down > 0.0


def test_a_picture_moves_by_shares_of_its_side_and_grows_about_its_middle():
    assert in_frame(blob(), Frame()).sub(blob()).abs().max() < 1e-5
    right, down, spread = middle(in_frame(blob(0.05, -0.1), Frame(0.1, 0.03, 0.06)))
    assert right == pytest.approx(0.05 * math.exp(0.1) + 0.03, abs=2e-3)
    assert down == pytest.approx(-0.1 * math.exp(0.1) + 0.06, abs=2e-3)
    assert spread == pytest.approx(middle(blob())[2] * math.exp(0.1), rel=0.02)


def test_what_comes_in_is_the_mirror_image_or_nothing():
    white = torch.ones(2, 3, SIDE, SIDE)
    smaller = Frame(-0.2, 0.0, 0.0)
    assert in_frame(white, smaller).min() > 0.999
    mask = in_frame(white, smaller, "zeros")
    assert mask[..., 0].max() == 0.0 and mask[..., SIDE // 2, SIDE // 2].min() > 0.999


def test_what_was_moved_by_accident_is_put_back():
    photo = in_frame(blob(), Frame(0.06, 0.02, -0.03))
    losses = [float((in_frame(photo, trial) - blob()).square().mean()) for trial in TRIALS]
    found = expected_frame(losses)
    before, after = ((one - blob()).square().mean() for one in (photo, in_frame(photo, found)))
    assert after < 0.5 * before


def test_a_training_that_takes_the_picture_as_it_is_is_known_by_its_former_name():
    assert not {"framing", "find_subject"} & TrainingConfig().fingerprint().keys()
    assert TrainingConfig(framing=True).fingerprint()["framing"]
