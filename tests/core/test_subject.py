"""Where a subject is found when nobody has painted a mask."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sefi_pack.sefi_core.picture.subject_mask import above, find_subject, seen_by_class_word
from sefi_pack.sefi_core.protocols import Prediction
from sefi_pack.sefi_core.samples import LatentPool, spread_samples
from sefi_pack.sefi_core.training.config import TrainingConfig

SIDES = [(8, 8), (16, 16)]
SLOT, LENGTH = 3, 6


class Encoder:
    """A prompt whose class word is in the fourth of six columns."""

    class_tokens = {"clip_l": torch.zeros(4)}
    count = lines = 1

    def encode(self, tokens, prompts):
        return torch.zeros(len(tokens["clip_l"]), LENGTH, 4)

    def token_mask(self, scope):
        assert scope == "placeholder only"
        return torch.tensor([float(i == SLOT) for i in range(LENGTH)])


class Backbone:
    """Attends to one column within a region (8, 8), and to the first elsewhere; notes timesteps."""

    def __init__(self, region, column):
        self.region, self.column, self.timesteps = region, column, []

    def nearest(self, timesteps):
        return timesteps

    def predict(self, samples, keys, values, with_maps):
        latents = samples.latents
        assert with_maps and samples.noise.shape == latents.shape and keys.equal(values)
        self.timesteps += samples.timesteps.tolist()
        maps = []
        for height, width in SIDES:
            fine = self.region.repeat_interleave(height // 8, 0).repeat_interleave(width // 8, 1)
            layer = torch.full((1, 2, height * width, LENGTH), 0.02)
            layer[..., self.column] += 0.8 * fine.flatten()
            layer[..., 0] += 0.8 * (1 - fine.flatten())
            layer = layer.expand(len(latents), -1, -1, -1)
            maps.append((layer, layer))
        return Prediction(latents, latents, maps, SIDES, torch.ones(len(latents)))


def found(region, column):
    backbone = Backbone(region, column)
    return find_subject(backbone, Encoder(), torch.zeros(1, 4, 8, 8), seed=0), backbone


def test_the_subject_is_where_the_class_word_or_the_prompts_end_is_looked_at():
    region = torch.zeros(8, 8)
    region[2:6, 1:5] = 1.0
    for column in (SLOT, SLOT + 1):
        mask, backbone = found(region, column)
        assert mask.shape == (1, 1, 32, 32) and set(mask.unique().tolist()) == {0.0, 1.0}
        inside = mask[0, 0, 10:22, 6:18]
        assert inside.min() == 1.0 and mask.sum() < 1.4 * 16 * 16
        assert min(backbone.timesteps) >= 400 and len(backbone.timesteps) == 20


def test_what_is_seen_everywhere_alike_is_learned_whole():
    assert found(torch.ones(8, 8), SLOT)[0].min() == 1.0
    assert found(torch.eye(8), SLOT + 2)[0].min() == 1.0  # another word's place tells nothing
    assert above(torch.full((4, 4), math.nan)).min() == 1.0


@pytest.mark.parametrize(("side", "sizes"), [(8, [20]), (64, [4] * 5), (128, [1] * 20)])
def test_as_many_are_asked_about_at_once_as_their_size_allows(side, sizes):
    pool = LatentPool(torch.zeros(1, 4, side, side), torch.ones(1, 1, side, side))
    samples = spread_samples(pool, count=20, low=0, seed=0)
    asked = seen_by_class_word(Backbone(torch.zeros(8, 8), SLOT), Encoder(), samples)
    assert [len(found.output) for found in asked] == sizes


def test_a_peak_of_the_attention_is_no_subject():
    region = torch.zeros(8, 8)
    region[3, 3] = 1.0
    assert found(region, SLOT)[0].min() == 1.0
    region[2:4, 2:4] = 1.0
    assert found(region, SLOT)[0].mean() < 0.2


@given(
    st.lists(st.booleans(), min_size=4, max_size=200).filter(lambda on: 0 < sum(on) < len(on)),
    st.floats(0.01, 1.0),
    st.floats(1.3, 100.0),
)
def test_two_levels_are_told_apart_whatever_their_shares(on, low, ratio):
    mask = torch.tensor(on, dtype=torch.float32)
    assert above(low * (1 + (ratio - 1) * mask)).equal(mask)


def test_a_training_without_a_found_mask_is_known_by_its_former_name():
    assert "find_subject" not in TrainingConfig().fingerprint()
    assert TrainingConfig(find_subject=True).fingerprint()["find_subject"]
