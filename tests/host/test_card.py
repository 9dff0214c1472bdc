"""The card's benchmark, on a CPU: all that it is to measure is measured, and what it says is so."""

import json
from pathlib import Path

import pytest
import torch
from sefi_pack.benchmarks import card, card_measures

SIZE = "tiny sd"
COMMITTED = Path(card.__file__).with_name("results") / "card-cpu.json"


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    results = tmp_path_factory.mktemp("card") / "card.json"
    with torch.inference_mode(False):  # by itself, not in an executor
        card.main(["--sizes", SIZE, "--whole", "1", "--minutes", "60", "--results", str(results)])
    assert "| machine; card | none: no card was to be had" in results.with_suffix(".md").read_text()
    return json.loads(results.read_text())


def keys_of(value):
    """Returns the nested keys; a number that is not to be had has its reason."""
    assert value is not None
    if not isinstance(value, dict) or set(value) == {"value", "reason"}:
        assert not isinstance(value, dict) or (value["value"] is None and value["reason"])
        return None
    return {key: keys_of(inner) for key, inner in value.items()}


def test_every_key_is_filled_or_says_why_not(record):
    committed = json.loads(COMMITTED.read_text())
    for whole in (record, committed):
        assert whole["machine"]["card"]["reason"].startswith("no card was to be had")
    assert keys_of(record["sizes"][SIZE]) == keys_of(committed["sizes"][SIZE])
    assert set(committed["sizes"]) == {"tiny sd", "tiny sdxl"}
    keys_of(committed)


def test_what_it_finds_holds(record):
    found = record["sizes"][SIZE]
    assert set(found["neutral identity, largest difference"].values()) == {0.0}
    assert found["training lowers the loss"]["lowered"] and found["resume"]["bit for bit"]
    assert found["whole training"]["seconds, finished before"] < found["whole training"]["seconds"]
    steps = [part for name, part in found.items() if name.startswith("steps, ")]
    assert len(steps) == 6
    for part in steps:  # what tensors take at most, beside what the test of the gradients took
        assert 1.0 < part["peak / forecast"] < 3.0


def test_the_most_bytes_are_those_that_are_there_at_once():
    def work():
        one = torch.ones(1000)  # 4000 bytes
        two = one * 2.0
        del one
        view = two[:500]
        return (view + 1.0).sum()

    assert card_measures.most_bytes(work, torch.device("cpu")) == 8000


def test_what_no_kernel_covers_is_idle():
    assert card_measures.idle([(0.0, 1.0), (0.5, 2.0), (3.0, 4.0)]) == pytest.approx(0.25)


def test_no_part_begins_when_the_time_is_over():
    clock = card.Clock(0.0)
    assert "0 minutes" in clock.measured("any", lambda: pytest.fail("begun"))["reason"]
    failing = card.Clock(1.0).measured("any", lambda: torch.ones(2) @ torch.ones(3))
    assert failing["value"] is None and "size" in failing["reason"]
