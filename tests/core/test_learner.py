"""The mean of the pairs that a training keeps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sefi_pack.sefi_core.losses import LossTerms
from sefi_pack.sefi_core.training.config import TrainingConfig
from sefi_pack.sefi_core.training.learner import Learner
from sefi_pack.sefi_core.training.loop import update

WORD = torch.linspace(-1, 1, 8)


def walk(steps, ema):
    """Goes down a slope; returns the learner and its pairs after every step, the start first."""
    learner = Learner({"clip_l": WORD}, TrainingConfig(steps=steps, learning_rate=1e-2, ema=ema))
    walked = [learner()["clip_l"].detach().clone()]
    for _ in range(steps):
        loss = learner()["clip_l"].sum()
        update([learner], [LossTerms(loss, torch.zeros(()), loss)])
        walked.append(learner()["clip_l"].detach().clone())
    return learner, torch.stack(walked)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.floats(0.01, 0.999))
def test_it_is_within_the_pairs_that_were_and_has_left_the_start_behind(steps, ema):
    learner, walked = walk(steps, ema)
    kept = learner.pairs()["clip_l"]
    assert (kept <= walked[0] + 1e-6).all() and (kept >= walked[-1] - 1e-6).all()
    assert (walked[0] - kept > 0.75 * (walked[0] - walked[-1])).all()


def test_before_the_first_step_it_is_the_class_word():
    learner = Learner({"clip_l": WORD}, TrainingConfig())
    assert learner.pairs()["clip_l"].equal(WORD.expand(5, 2, 1, -1))


def test_without_a_mean_the_last_pairs_are_kept():
    learner, walked = walk(9, 0.0)
    assert learner.pairs()["clip_l"].equal(walked[-1])


def test_what_was_given_out_does_not_change_with_later_steps():
    learner, _ = walk(3, 0.9)
    before = learner.pairs()["clip_l"]
    kept = before.clone()
    learner.update_ema()
    assert before.equal(kept)


@pytest.mark.parametrize("ema", [0.0, 0.995])
def test_the_pairs_to_keep_are_free_of_the_training(ema):
    learner = Learner({"clip_l": WORD}, TrainingConfig(ema=ema))
    assert not any(pairs.requires_grad for pairs in learner.pairs().values())
