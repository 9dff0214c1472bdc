"""Steps that are not finite: skipped exactly, whichever Adam runs; and when there are too many."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sefi_pack.sefi_core.errors import TrainingError
from sefi_pack.sefi_core.losses import LossTerms
from sefi_pack.sefi_core.training import learner as learner_module
from sefi_pack.sefi_core.training.config import TrainingConfig
from sefi_pack.sefi_core.training.learner import Learner
from sefi_pack.sefi_core.training.loop import update
from sefi_pack.sefi_core.training.nonfinite import PATIENCE, SCALE_HALVINGS

RATE = 1e-2
BAD = ("loss", "attention", "gradient", "huge gradient")


def new_learner(steps, fused=False, scaled=False):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner_module, "FUSED_DEVICES", ("cpu",) if fused else ())
        config = TrainingConfig(steps=steps, learning_rate=RATE, ema=0.0)
        return Learner({"clip_l": torch.linspace(-1, 1, 8)}, config, scaled)


def loss_of(pairs, step):
    return (pairs - torch.sin(torch.arange(pairs.numel()) * (step + 1.0)).view_as(pairs)).square()


def take(learner, fault=None):
    pairs = learner()["clip_l"]
    denoising = loss_of(pairs, learner.step).mean()
    attention = torch.tensor(torch.nan if fault == "attention" else 0.0)
    if fault == "loss":
        denoising = denoising * torch.nan
    factor = {"gradient": torch.inf, "huge gradient": 1e30}.get(fault, 1.0)  # 1e60 is not finite
    hook = pairs.register_hook(lambda gradient: gradient * factor)
    update([learner], [LossTerms(denoising, attention, denoising + attention)])
    hook.remove()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from((None, None, *BAD)), min_size=1, max_size=12), st.booleans())
def test_a_bad_step_is_as_if_it_had_not_been_but_for_the_halved_rate(faults, fused):
    learner = new_learner(len(faults), fused)
    pairs = torch.nn.Parameter(learner.pairs()["clip_l"])
    adam = torch.optim.Adam([pairs], lr=RATE)
    rate = RATE
    for step, fault in enumerate(faults):
        take(learner, fault)
        if fault is not None:
            rate /= 2
            continue
        adam.zero_grad()
        loss_of(pairs, step).mean().backward()
        adam.param_groups[0]["lr"] = rate
        adam.step()
    close = {"rtol": 1e-5, "atol": 1e-7} if fused else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(learner.pairs()["clip_l"], pairs.detach(), **close)
    assert learner.losses.isfinite().all()
    assert learner.guard.halvings() == sum(fault is not None for fault in faults)


@pytest.mark.parametrize("fused", [False, True])
def test_the_whole_state_is_saved_and_restored(fused):
    whole, first = (new_learner(8, fused) for _ in range(2))
    faults = [None, "loss", None, "gradient", None, None, "loss", None]
    for fault in faults:
        take(whole, fault)
    for fault in faults[:4]:
        take(first, fault)
    second = new_learner(8, fused)
    second.restore(first.state())
    for fault in faults[4:]:
        take(second, fault)
    assert torch.equal(whole.pairs()["clip_l"], second.pairs()["clip_l"])
    assert torch.equal(whole.losses, second.losses)
    state = second.state()
    assert all(torch.equal(value, state[name]) for name, value in whole.state().items())


def test_too_many_in_a_row_are_hopeless():
    learner = new_learner(40)
    take(learner)
    for _ in range(PATIENCE - 1):
        take(learner, "loss")
        learner.guard.raise_if_diverged(learner.step, 99)
    take(learner, "loss")
    with pytest.raises(TrainingError, match=r"blew up near step 6 .* rate halved 5 times"):
        learner.guard.raise_if_diverged(learner.step, 99)


def test_too_many_in_all_are_hopeless():
    learner = new_learner(40)
    for _ in range(10):
        take(learner, "loss")
        take(learner)
        learner.guard.raise_if_diverged(learner.step, 99)
    take(learner, "loss")
    with pytest.raises(TrainingError, match="blew up"):
        learner.guard.raise_if_diverged(learner.step, 99)


def test_a_training_of_bad_steps_alone_is_hopeless_however_short():
    learner = new_learner(1)
    take(learner, "loss")
    with pytest.raises(TrainingError, match="blew up near step 1"):
        learner.guard.raise_if_diverged(1, 1)


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_of_the_scaled_loss_costs_scale_and_no_learning_rate(fused):
    learner = new_learner(40, fused, scaled=True)
    for step in range(SCALE_HALVINGS):
        take(learner, "gradient")
        assert learner.scaler.get_scale() == 2.0 ** (15 - step)
        learner.guard.raise_if_diverged(learner.step, 99)
    assert learner.guard.halvings() == 0
    take(learner)
    assert learner.guard.in_a_row == 0
    for _ in range(PATIENCE + SCALE_HALVINGS):
        take(learner, "gradient")
    with pytest.raises(TrainingError, match="even with the loss scaled down"):
        learner.guard.raise_if_diverged(learner.step, 99)
