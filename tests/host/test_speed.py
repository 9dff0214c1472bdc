"""The speed benchmark: what it measures once it does not measure again, and what it says of it."""

import json

import pytest
import torch
from sefi_pack.benchmarks import speed, speed_profile

SHORT = ["--size", "small", "--rounds", "1", "--steps", "1"]


def test_a_run_leaves_results_a_table_and_a_picture_and_goes_on_where_it_was(
    tmp_path, monkeypatch, capsys
):
    place = ["--results", str(tmp_path / "speed.json")]
    speed.main([*SHORT, *place, "--parts", "floor,together 2"])
    records = json.loads((tmp_path / "speed.json").read_text())
    assert list(records) == ["small | floor | 1", "small | together 2 | 1"]
    for record in records.values():
        assert len(record["above"]) == len(record["below"]) == 1
        assert record["ratio"] == pytest.approx(record["above"][0] / record["below"][0])
    assert (tmp_path / "speed.png").stat().st_size > 1000
    rows = (tmp_path / "speed.md").read_text().splitlines()[2:]
    assert "bare forward and backward" in rows[0] and "2 at once" in rows[1]

    measured = []
    monkeypatch.setattr(speed, "record_of", lambda part, *_: measured.append(part) or missing())
    capsys.readouterr()
    speed.main([*SHORT, *place, "--parts", "floor,inversion"])
    assert measured == ["inversion"]  # the other is there already
    assert "left out: not installed" in capsys.readouterr().out
    assert json.loads((tmp_path / "speed.json").read_text()) == records


def missing():
    raise speed.Missing("not installed")


def test_targets_are_met_on_the_right_side(tmp_path):
    timed = {"above": [2.0], "below": [1.0], "range": [2.0, 2.0]}
    peaks = {"loaded": 2**29, "floor": 2**30, "ours": 2 * 2**30, "checkpointed": 2**30}
    records = {
        "sd15 | floor | 5": {**timed, "ratio": 1.12},
        "sd15 | floor | 1": {**timed, "ratio": 1.12},
        "sd15 | literal | 1": {**timed, "ratio": 1.9},
        "sd15 | memory | 1": {"bytes": peaks, "ratio": 2.0, "checkpointed ratio": 0.5},
    }
    text = speed.write_report(records, tmp_path / "speed.json")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    met = {(row[1][:30], row[2]): row[6] for row in rows}
    assert met == {
        ("step / bare forward and backwa", "1"): "yes",
        ("step / bare forward and backwa", "5"): "**no**",
        ("the paper's loop as it reads /", "1"): "**no**",
        ("peak memory: step / bare forwa", "1"): "**no**",
        ("peak memory: with / without ch", "1"): "yes",
    }


def test_a_record_says_what_kind_of_operations_a_step_has():
    def contestant(scene, steps):
        # Its first product ever, or a busy machine, must not outweigh what more steps cost more.
        for _ in range(steps**5):
            torch.randn(300, 300) @ torch.randn(300, 300)
        return []

    contestant(None, 1)
    spent = speed_profile.of_one_step(contestant, None)
    assert spent["products of matrices"] > 0
    assert spent["convolutions"] == spent["resizes"] == 0


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("aten::mkldnn_convolution", "convolutions"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::addmm", "products of matrices"),
        ("aten::native_layer_norm", "norms"),
        ("aten::copy_", "copies and views"),
        ("aten::embedding", speed_profile.OTHER),
    ],
)
def test_operations_are_told_by_their_names(operation, kind):
    assert speed_profile.kind_of(operation) == kind
