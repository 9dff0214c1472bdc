"""Reads hostile identity files, one after the other: `python -m benchmarks.fuzz --inputs 200000`.

Every one must be refused by a sentence, or be an identity in order. Prints how many were read of
each kind, what else came out, the memory that the hungriest took and the time of the slowest.
"""

__all__ = ["Tally", "fuzz"]

import argparse
import sys
import tempfile
import time
import types
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import torch

from .fuzz_inputs import hostile

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES, MAX_SECONDS = 64e6, 1.0


@dataclass
class Tally:
    """What came out; `crashes` are inputs that ended in neither a sentence nor an identity."""

    refused: Counter = field(default_factory=Counter)
    taken: Counter = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    slowest: float = 0.0
    grown: int = 0

    def good(self) -> bool:
        return not self.crashes and self.grown < MAX_BYTES and self.slowest < MAX_SECONDS


def fuzz(inputs: int, seed: int, folder: Path) -> Tally:
    """Reads `inputs` files of a seed; the folder is left empty."""
    from sefi_pack.sefi_core.errors import SefiError
    from sefi_pack.sefi_core.identity.file_format import load_identity

    tally, random = Tally(), Random(seed)
    for number in range(inputs):
        kind, path = hostile(random, folder)
        forget_peak()
        before, start = memory("VmRSS"), time.process_time()
        try:
            identity = load_identity(path)
        except SefiError as error:
            tally.refused[kind] += 1
            fault = fault_of_sentence(str(error))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            fault = f"{type(error).__name__}: {error}"[:200]
        else:
            tally.taken[kind] += 1
            fault = "" if all(map(finite, identity.pairs.values())) else "not finite"
        tally.slowest = max(tally.slowest, time.process_time() - start)
        tally.grown = max(tally.grown, memory("VmHWM") - before)
        if fault:
            tally.crashes.append(f"seed {seed}, input {number} ({kind}): {fault}")
        path.unlink()
    return tally


def finite(pairs: torch.Tensor) -> bool:
    return pairs.ndim == 4 and pairs.dtype == torch.float32 and bool(pairs.isfinite().all())


def fault_of_sentence(said: str) -> str:
    """Returns what is wrong with an error's text; nothing if it is one sentence."""
    whole = said.startswith("embedding: ") and said.endswith(".") and len(said) < 1000
    return "" if whole and said.isprintable() else f"no sentence: {said[:200]!r}"


def forget_peak() -> None:
    """Makes the kernel count this process's peak memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(name: str) -> int:
    """Returns what this process holds ("VmRSS"), or held at its peak ("VmHWM"), in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) * 1024


def main() -> None:
    """Reads the command line, fuzzes, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if "sefi_pack" not in sys.modules:
        sys.modules["sefi_pack"] = pack = types.ModuleType("sefi_pack")
        pack.__path__ = [str(ROOT)]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        fuzz(100, options.seed + 1, Path(folder))  # what the first use of a library takes
        tally = fuzz(options.inputs, options.seed, Path(folder))
    print("| kind | refused | an identity |\n| --- | ---: | ---: |")
    for kind in sorted(tally.refused | tally.taken):
        print(f"| {kind} | {tally.refused[kind]} | {tally.taken[kind]} |")
    print(f"| all {options.inputs} | {tally.refused.total()} | {tally.taken.total()} |\n")
    print(f"crashes {len(tally.crashes)}; most memory {tally.grown / 1e6:.1f} MB; slowest ", end="")
    print(f"{tally.slowest:.3f} s")
    print(*tally.crashes[:20], sep="\n")
    sys.exit(not tally.good())


if __name__ == "__main__":
    main()
