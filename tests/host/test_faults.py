"""Each fault a few times; `python -m benchmarks.faults` does it often and prints the table."""

import os
import sys
from pathlib import Path
from random import Random

import folder_paths
import pytest
import torch
from sefi_pack.sefi_core.training.config import PRESETS

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))
try:
    from benchmarks import faults
finally:
    sys.path.remove(str(ROOT))

TIMES = {
    "kill -9 while training": 2,
    "kill -9 while saving identities": 5,
    "stopped at every stage": 2,
}
MOUNTS = ("disk full", "read-only folder")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    before, threads = folder_paths.get_output_directory(), torch.get_num_threads()
    torch.set_num_threads(1)
    yield faults.Bench(tmp_path_factory.mktemp("faults"))
    torch.set_num_threads(threads)
    PRESETS.pop("quick")
    folder_paths.set_output_directory(before)


def may_mount():
    return sys.platform == "linux" and os.geteuid() == 0


@pytest.mark.parametrize("name", faults.FAULTS)
def test_nothing_is_lost_leaked_or_wrong(bench, name):
    fault, _ = faults.FAULTS[name]
    if name in MOUNTS and not may_mount():
        pytest.skip("needs a file system of its own")
    row = fault(bench, TIMES.get(name, 1), Random(0))
    assert row.tried >= 1
    assert (row.lost, row.leaked, row.wrong) == (0, 0, 0)


def test_the_bench_sees_what_is_wrong(bench):
    row = faults.Row()
    bench.train(steps=4)
    weight = bench.model.model.diffusion_model.out[2].bias
    weight.data.add_(1.0)
    (bench.output / "broken.safetensors").write_bytes(b"half of it")
    (bench.output / ".left.tmp").touch()
    bench.judge(row, expected_steps=faults.STEPS + 1)
    weight.data.sub_(1.0)
    assert row.lost == 1 and row.leaked == 2 and row.wrong == 3
