"""The quality benchmark's rows: each learns what it says, and nothing else of the miniature."""

from dataclasses import replace
from inspect import signature

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from sefi_pack.benchmarks.methods import METHODS, World, learn, value_and_key_weights
from sefi_pack.benchmarks.quality import sampled
from sefi_pack.benchmarks.world.files import miniature
from sefi_pack.benchmarks.world.subjects import split

LUCY, *_ = split("person", "test")


@pytest.fixture(scope="module")
def world():
    return World(miniature(4), 4)


def weights_of(world):
    return [weight.detach().clone() for weight in value_and_key_weights(world.model)]


def same(some, others):
    return [torch.equal(*pair) for pair in zip(some, others, strict=True)]


@pytest.mark.parametrize(
    ("name", "learned"), [("default", False), ("inversion", False), ("custom", True)]
)
def test_a_row_learns_the_weights_it_says_and_gives_them_back(world, name, learned):
    row = METHODS[name]
    row = replace(row, config=replace(row.config, steps=5).with_fair_selection())
    before = weights_of(world)
    with torch.no_grad(), learn(world, [row], LUCY):
        assert same(before, weights_of(world)) == [not learned] * len(before)
    assert all(same(before, weights_of(world)))
    assert not any(weight.requires_grad for weight in value_and_key_weights(world.model))


@pytest.mark.skipif(
    "force_deepcopy" in signature(ModelPatcher.clone).parameters,
    reason="this host's Train LoRA reads its model from a checkpoint's file again; the row is "
    "measured on the host of CI",
)
def test_lora_learns_a_model_of_its_own(world):
    row = replace(METHODS["lora"], config=replace(METHODS["lora"].config, steps=2))
    before = weights_of(world)
    with torch.no_grad(), learn(world, [row], LUCY) as learned:
        ours, plain = (sampled(world, p, "a photo", 1) for p in (learned[row], world.plain("")))
    assert not torch.equal(ours, plain)
    assert all(same(before, weights_of(world)))
