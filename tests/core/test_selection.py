"""The selection of a start: who learns, who is eliminated, what is kept, how it is resumed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sefi_pack.sefi_core.errors import SettingsError
from sefi_pack.sefi_core.protocols import Prediction
from sefi_pack.sefi_core.samples import LatentPool
from sefi_pack.sefi_core.training.config import PRESETS, TrainingConfig
from sefi_pack.sefi_core.training.learner import Learner
from sefi_pack.sefi_core.training.loop import train
from sefi_pack.sefi_core.training.phases import PerStage, Selection
from sefi_pack.sefi_core.training.selection import (
    eliminate,
    is_due,
    ranked,
    selection_samples,
)

WORD = torch.linspace(-1, 1, 8)
POOL = LatentPool(torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2))


class Encoder:
    """A prompt of one token: the placeholder itself."""

    class_tokens = {"clip_l": WORD}
    count = lines = 1

    def encode(self, tokens, prompts):
        return tokens["clip_l"]

    def token_mask(self, scope, prompt=0):
        return torch.zeros(1)


class Backbone:
    """The nearer a pair is to the goal, the lower is its loss; notes the timesteps of steps."""

    def __init__(self, goal):
        self.goal, self.timesteps = goal, []

    def nearest(self, timesteps):
        return timesteps

    def near_the_end(self, timesteps):
        return timesteps >= 930

    def predict(self, samples, keys, values, with_maps):
        if torch.is_grad_enabled():
            self.timesteps += samples.timesteps.tolist()
        output = (keys + values).view(len(samples), 1, 2, 4)
        target = (2 * self.goal).view(1, 1, 2, 4).expand_as(output)
        return Prediction(output, target, [], [], torch.ones(len(samples)))


def learner_of(**settings):
    own = {"steps": 60, "candidates": 3, "elimination_every": 10, "learning_rate": 1e-2}
    return Learner({"clip_l": WORD}, TrainingConfig(attention_loss="off", **{**own, **settings}))


def take(learner, steps, backbone=None):
    backbone = backbone or Backbone(WORD + 1.0)
    reports = train(backbone, Encoder(), POOL, learner)
    for _ in range(steps):
        next(reports)
    eliminate(backbone, Encoder(), learner, selection_samples(backbone, POOL, learner.config))
    return backbone


def test_one_falls_out_at_each_look_until_every_stage_has_the_winner():
    learner = learner_of()
    left = []
    for _ in range(40):
        take(learner, 1)
        left.append(len(learner.left))
    assert left == [3] * 9 + [2] * 10 + [1] * 21
    learner = learner_of()
    take(learner, 19)
    best = learner.kept()["clip_l"][list(learner.left)]
    take(learner, 1)
    assert isinstance(learner.phase, PerStage)
    pairs = learner.pairs()["clip_l"]
    assert pairs.shape == (5, 2, 1, 8) and all(pair.equal(pairs[0]) for pair in pairs)
    nearest = (best - pairs[0]).abs().amax(dim=(1, 2, 3)).min()
    assert nearest < 0.02 and not pairs[0].equal(WORD.expand(2, 1, 8))


def test_candidates_learn_noisy_timesteps_and_they_alone():
    learner = learner_of(selection_from=700)
    backbone = take(learner, 20)
    assert min(backbone.timesteps) >= 700
    take(learner, 40, backbone)
    assert min(backbone.timesteps[20:]) < 200
    learner = learner_of(candidates=2, elimination_every=30)
    take(learner, 29)
    moved = [not row.equal(WORD.expand(2, 1, 8)) for row in learner()["clip_l"]]
    assert moved == [True, True]


def test_the_candidate_that_explains_the_samples_worst_is_eliminated():
    learner = learner_of()
    goal = WORD + 1.0
    with torch.no_grad():
        for row, share in enumerate((0.2, 0.9, 0.5)):
            table = torch.lerp(WORD, goal, share).expand(2, 1, 8)
            learner.generators["clip_l"].pairs[row] = table
            learner.ema["clip_l"][row] = table
    learner.config = TrainingConfig(**{**vars(learner.config), "learning_rate": 0.0})
    take(learner, 10, Backbone(goal))
    assert learner.left == (1, 2)
    kept = learner.pairs()["clip_l"]
    torch.testing.assert_close(kept, torch.lerp(WORD, goal, 0.9).expand(5, 2, 1, 8))


@pytest.mark.parametrize(("masked", "winner"), [(True, 0), (False, 1)])
def test_pairs_are_ranked_where_the_loss_looks(masked, winner):
    mask = torch.zeros(4, 1, 2, 4)
    mask[:, :, 0] = 1.0
    learner = learner_of(candidates=2, masked_loss=masked, learning_rate=0.0)
    goal = WORD + 1.0
    right_within, right_without = goal.clone(), goal.clone()
    right_within[4:] -= 3.0
    right_without[:4] -= 0.5
    with torch.no_grad():
        for row, token in enumerate((right_within, right_without)):
            for table in (learner.generators["clip_l"].pairs, learner.ema["clip_l"]):
                table[row] = token.expand(2, 1, 8)
    reports = train(Backbone(goal), Encoder(), LatentPool(torch.zeros(4, 1, 2, 4), mask), learner)
    for _ in range(11):  # the look is made between the tenth and the next
        next(reports)
    right = (right_within, right_without)[winner]
    torch.testing.assert_close(learner.pairs()["clip_l"], right.expand(5, 2, 1, 8))


@pytest.mark.parametrize(
    ("scale", "candidates", "moves"), [(0.0, 3, False), (0.5, 3, True), (0.0, 1, True)]
)
def test_steps_are_smaller_once_the_stages_learn(scale, candidates, moves):
    learner = learner_of(lr_after_selection=scale, candidates=candidates, ema=0.0)
    take(learner, 20)
    before = learner()["clip_l"].detach().clone()
    take(learner, 20)
    moved = (learner()["clip_l"].detach() - before).abs().amax(dim=(1, 2, 3))
    torch.testing.assert_close(moved > 0, torch.full((5,), moves))


def test_what_is_kept_early_is_the_best_one_for_every_stage():
    learner = learner_of()
    take(learner, 12)
    kept, table = learner.pairs()["clip_l"], learner.kept()["clip_l"]
    assert kept.shape == (5, 2, 1, 8) and kept.equal(table[learner.left[0]].expand_as(kept))


@pytest.mark.parametrize("at", [4, 10, 15, 20, 33])
def test_stopped_and_resumed_is_as_never_stopped(at):
    whole = learner_of()
    take(whole, 60)
    first = learner_of()
    take(first, at)
    second = learner_of()
    second.restore(first.state())
    take(second, 60 - at)
    assert second.phase == whole.phase
    assert second.pairs()["clip_l"].equal(whole.pairs()["clip_l"])


def test_a_look_that_was_cut_short_is_made_when_the_training_goes_on():
    class Interrupted(Backbone):
        def predict(self, *arguments, **more):
            if not torch.is_grad_enabled():
                raise KeyboardInterrupt
            return super().predict(*arguments, **more)

    whole, cut = learner_of(), learner_of()
    take(whole, 60)
    with pytest.raises(KeyboardInterrupt):
        take(cut, 60, Interrupted(WORD + 1.0))
    assert cut.step == 10 and len(cut.left) == 3 and is_due(cut)
    resumed = learner_of()
    resumed.restore(cut.state())
    take(resumed, 50)
    assert resumed.pairs()["clip_l"].equal(whole.pairs()["clip_l"])


@given(st.lists(st.one_of(st.floats(0, 9), st.just(math.nan)), min_size=1, max_size=9))
def test_the_ranking_is_by_loss_and_what_is_no_number_comes_last(losses):
    order = ranked(dict(enumerate(losses)))
    assert sorted(order) == list(range(len(losses)))
    found = [losses[row] for row in order]
    numbers = [loss for loss in found if not math.isnan(loss)]
    assert found[: len(numbers)] == sorted(numbers)


def test_candidates_are_compared_on_their_own_timesteps_alone():
    backbone = Backbone(WORD)
    samples = selection_samples(backbone, POOL, TrainingConfig(candidates=5, selection_from=600))
    assert len(samples) == 20 and samples.timesteps.min() >= 600 and samples.seen.all()
    assert selection_samples(backbone, POOL, TrainingConfig()) is None
    samples = selection_samples(backbone, POOL, TrainingConfig(candidates=5, unseen=1.0))
    assert (samples.seen == 0).equal(samples.timesteps >= 930)


@pytest.mark.parametrize("stages", [1, 2, 5, 10])
def test_candidates_are_as_many_as_asked_for_whatever_the_stages(stages):
    learner = learner_of(stages=stages)
    assert learner.left == (0, 1, 2) and isinstance(learner.phase, Selection)
    take(learner, 60)
    assert learner.pairs()["clip_l"].shape == (stages, 2, 1, 8)


def test_a_generator_without_rows_of_its_own_has_no_candidates():
    with pytest.raises(SettingsError, match=r"candidates: it is 5, but the generator \"literal\""):
        TrainingConfig(candidates=5, generator="literal")


def test_a_selection_is_told_by_the_names_that_files_have_for_it():
    assert not any(n.startswith(("race", "starts")) for n in TrainingConfig().fingerprint())
    assert PRESETS["paper"].candidates == 1
    assert TrainingConfig(candidates=2).fingerprint()["race_from"] == 600


@given(steps=st.integers(1, 100_000), candidates=st.integers(1, 50))
def test_a_selection_leaves_the_stages_their_share_of_a_training(steps, candidates):
    config = TrainingConfig(steps=steps, candidates=candidates).with_fair_selection()
    length = config.elimination_every * (candidates - 1)
    assert length <= max(candidates - 1, steps * 12 / 25) and config.elimination_every <= 120
    assert config.with_fair_selection() == config


def test_the_default_is_the_papers_method():
    default = PRESETS["default"]
    assert default.velocity_loss and default.unseen == 0.5
    assert (default.stages, default.steps, default.attention_loss) == (5, 1000, "prompt tokens")
    assert default.with_fair_selection() == default and default.elimination_every * 4 == 480
    short = TrainingConfig(steps=200, candidates=5)
    assert short.with_fair_selection().elimination_every == 24
