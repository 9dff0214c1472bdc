"""The quality benchmark's records: what is found again, what is passed over."""

from dataclasses import fields, replace

import pytest
from sefi_pack.benchmarks.methods import METHODS
from sefi_pack.benchmarks.records import append, found, read
from sefi_pack.sefi_core.training.config import TrainingConfig

HEADING = {
    "row": "alone",
    "subject": "ella",
    "seed": 0,
    "world": {"scale": 1, "latent": 16},
    "recipe": {"steps": 1000, "views": [64, 1.0, 1.0]},
    "conditions": "df6b495a077a",
}
ON = TrainingConfig(candidates=5)  # what belongs to candidates acts
OTHER = {"attention_loss": "off", "generator": "literal", "max_scale": 2.0, "unseen": 0.5}


def test_a_line_is_found_again_and_the_later_of_two_counts(tmp_path):
    path = tmp_path / "records" / "test.jsonl"
    assert read(path) == []
    for seed, seconds in ((1, 5.0), (0, 6.0), (1, 7.0)):
        append(path, {**HEADING, "seed": seed, "seconds": seconds})
    records, others = found(read(path), HEADING)
    assert [(seed, r["seconds"]) for seed, r in records.items()] == [(0, 6.0), (1, 7.0)]
    assert others == 0


@pytest.mark.parametrize(
    ("name", "value", "others"),
    [
        ("row", "default", 0),
        ("subject", "max", 0),
        ("world", {"scale": 4, "latent": 16}, 0),
        ("recipe", {"steps": 480, "views": [64, 1.0, 1.0]}, 1),
        ("conditions", "e8b57ce14e70", 1),
    ],
)
def test_a_line_that_differs_is_not_taken_and_told_only_if_its_row_changed(name, value, others):
    assert found([{**HEADING, name: value}], HEADING) == ({}, others)


@pytest.mark.parametrize("setting", [f.name for f in fields(TrainingConfig) if f.name != "seed"])
def test_every_setting_is_in_the_recipe(setting):
    config = TrainingConfig() if setting == "generator" else ON
    value = getattr(config, setting)
    if setting in OTHER:
        other = OTHER[setting]
    else:
        other = value / 2 if isinstance(value, float) else value + 1
    row = replace(METHODS["alone"], config=config)
    assert replace(row, config=replace(config, **{setting: other})).recipe() != row.recipe()


def test_seed_and_what_is_off_are_not_in_the_recipe():
    row = METHODS["default"]
    assert row.seeded(7).recipe() == row.recipe()
    idle = replace(row.config, attention_loss="off")
    other = replace(idle, attention_loss_weight=0.5)
    assert replace(row, config=idle).recipe() == replace(row, config=other).recipe()
