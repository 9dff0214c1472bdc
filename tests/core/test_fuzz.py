"""A few hundred hostile files; `python -m benchmarks.fuzz` reads many more."""

import os
import sys
from pathlib import Path
from random import Random

import pytest
from sefi_pack.sefi_core.errors import IdentityFileError, one_line
from sefi_pack.sefi_core.identity.file_format import MAX_IDENTITY, load_identity, save_identity
from sefi_pack.sefi_core.identity.identity import Identity

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def fuzz():
    """The module; its package needs the pack's root on the path, where nothing else may find it."""
    sys.path.append(str(ROOT))
    try:
        import benchmarks.fuzz
    finally:
        sys.path.remove(str(ROOT))
    return benchmarks.fuzz


def test_every_hostile_file_is_a_sentence_or_an_identity(fuzz, tmp_path):
    fuzz.fuzz(40, 1, tmp_path)
    tally = fuzz.fuzz(800, 0, tmp_path)
    assert tally.crashes == []
    assert tally.grown < fuzz.MAX_BYTES and tally.slowest < fuzz.MAX_SECONDS
    assert tally.refused.total() > 600 and tally.taken.total() > 5
    assert not list(tmp_path.iterdir()) and not Path("/tmp/sefi-fuzz-was-here").exists()


def test_the_fuzzer_sees_what_is_wrong(fuzz, tmp_path, monkeypatch):
    """A reader that believes everything does not pass."""
    import safetensors.torch
    from sefi_pack.sefi_core.identity import file_format

    def believing(path):
        tensors = safetensors.torch.load_file(path)
        return Identity({"clip_l": next(iter(tensors.values()))})

    monkeypatch.setattr(file_format, "load_identity", believing)
    assert len(fuzz.fuzz(60, 0, tmp_path).crashes) > 40


@pytest.mark.parametrize("change", ["cut", "grown", "other"])
def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, change):
    path = tmp_path / "a.safetensors"
    save_identity(Identity({"clip_l": one_pair()}), path)
    size, fstat = path.stat().st_size, os.fstat

    def meanwhile(number):
        state = fstat(number)
        with path.open("r+b") as file:
            if change == "cut":
                file.truncate(size // 2)
            elif change == "grown":
                file.truncate(MAX_IDENTITY + 2)
            else:
                file.write(os.urandom(size))
        return state

    monkeypatch.setattr(os, "fstat", meanwhile)
    with pytest.raises(IdentityFileError, match=r"^embedding: a\.safetensors: .*\.$"):
        load_identity(path)


def one_pair():
    import torch

    return torch.zeros(5, 2, 1, 8)


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    import torch

    large = Identity({"clip_l": torch.zeros(50, 2, 16, 1280)})
    with pytest.raises(IdentityFileError, match="an identity of 7 MiB is larger than the 4 MiB"):
        save_identity(large, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_strangers_text_is_one_printable_line():
    random = Random(0)
    for _ in range(500):
        text = "".join(chr(random.randrange(0x110000)) for _ in range(random.randrange(300)))
        line = one_line(text)
        assert line.isprintable() and len(line) <= 120 and line == line.strip()
    assert one_line("a\nb\t\x00c \u202ed") == "a b c d"
