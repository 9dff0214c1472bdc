"""One server, many trainings, pictures and interrupts: `python -m benchmarks.endurance`.

Each cycle trains the miniature with a new seed, draws a picture with the identity, and stops
another training half way. Memory and open files of the server must not grow with the cycles; the
first tenth does not count. The table goes to docs/reliability.md.
"""

__all__ = ["Sample", "endure"]

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from .faults_server import PACKS, ComfyServer, Graph, furnish, training

MAX_BYTES, MAX_FILES = 50e6, 4  # of growth


@dataclass(frozen=True)
class Sample:
    """What the server held after a cycle."""

    cycle: int
    bytes: int
    files: int


def graph_of(seed: int) -> Graph:
    """Returns a small training of the miniature with two previews, and a picture with it."""
    return training(seed, "endured", steps=8, preview_every=4, checkpoint_every=250)


def endure(server: ComfyServer, cycles: int) -> list[Sample]:
    """Goes through the cycles; returns what the server held after each.

    Raises:
        RuntimeError: A run did not end as it should.
    """
    furnish(server.folder)
    process, samples = psutil.Process(server.process.pid), []
    for cycle in range(cycles):
        run = server.run(graph_of(2 * cycle))
        if run.status != "success":
            raise RuntimeError(f"cycle {cycle}: {run.error}")
        stopped = server.run(
            graph_of(2 * cycle + 1),
            watch=lambda event: event.kind == "progress" and server.interrupt(),
        )
        if stopped.status != "interrupted":
            raise RuntimeError(f"cycle {cycle}: a stopped training was {stopped.status}")
        for path in (server.folder / "output/sefi").rglob("*.safetensors"):
            path.unlink()
        samples.append(Sample(cycle, process.memory_info().rss, process.num_fds()))
    return samples


def main() -> None:
    """Reads the command line, endures, prints what was held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with ComfyServer(Path(folder), PACKS) as server:
            samples = endure(server, options.cycles)
    warm = samples[len(samples) // 10 :]
    print("| after cycle | memory, MB | open files |\n| ---: | ---: | ---: |")
    for sample in [*warm[:: max(1, len(warm) // 8)], warm[-1]]:
        print(f"| {sample.cycle + 1} | {sample.bytes / 1e6:.0f} | {sample.files} |")
    grown = warm[-1].bytes - warm[0].bytes, warm[-1].files - warm[0].files
    print(f"\ngrown by {grown[0] / 1e6:.1f} MB and {grown[1]} files")
    sys.exit(grown[0] > MAX_BYTES or grown[1] > MAX_FILES)


if __name__ == "__main__":
    main()
