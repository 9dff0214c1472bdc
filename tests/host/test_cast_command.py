"""cast.py as somebody starts it: again, with others beside it, on Ray, and killed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import comfy.utils
import folder_paths
import numpy as np
import psutil
import pytest
import seeded
from cast_on_miniature import ROOT, command
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sefi_pack.nodes.host.cast.shelf import Shelf
from sefi_pack.sefi_core.errors import IdentityFileError, SettingsError
from sefi_pack.sefi_core.identity.file_format import load_identity

HOST = Path(os.environ.get("COMFYUI_PATH") or (ROOT / ".host-path").read_text().strip())
MINIATURE = ROOT / "benchmarks/world/miniature.safetensors"
QUICK = ["--set", "steps=3", "--set", "resolution=64", "--set", "preview_every=3"]

QUICKEST = ["--set", "steps=3", "--set", "resolution=64", "--set", "preview_every=0"]
QUICKEST += ["--set", "preset=paper"]  # which looks for no subject and selects no start


@pytest.fixture
def town(tmp_path, monkeypatch):
    """A folder of three people, and an output folder of its own."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "input_directory", folder_paths.input_directory)  # moved
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", None)
    folder = tmp_path / "town"
    folder.mkdir()
    for i, name in enumerate(("anna", "bob", "carl")):
        pixels = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (tmp_path / "seeded.safetensors").write_bytes(b"stands for the models of `load`")
    return folder


@pytest.fixture
def start(town, small):
    """Runs the command in this process on small models; returns its exit code and its table."""

    def started(
        *more, load=lambda path: (seeded.tiny_model(), seeded.tiny_clip(), seeded.seeded_vae())
    ):
        given = [
            str(town),
            "--comfyui",
            str(HOST),
            "--checkpoint",
            str(town.parent / "seeded.safetensors"),
        ]
        code = command().main([*given, *QUICK, *more], load)
        with (town.parent / "town-identities/report.csv").open() as file:
            return code, {row["name"]: row for row in csv.DictReader(file)}

    return started


def states(table):
    return {name: row["state"] for name, row in table.items()}


def test_a_folder_is_learned_once_and_reported(town, start, capsys):
    (town / "dora.png").write_bytes(b"no picture")
    (town / "notes.docx").write_bytes(b"nobody's")
    code, table = start("--at-once", "2")
    assert code == 1 and states(table) == {
        "anna": "trained", "bob": "trained", "carl": "trained", "dora": "failed",
    }  # fmt: skip
    assert "Passed over, as they belong to nobody: notes.docx" in capsys.readouterr().err
    assert "no whole picture" in table["dora"]["note"] and float(table["bob"]["denoising"]) > 0
    out = town.parent / "town-identities"
    assert load_identity(out / "anna.safetensors").pairs["clip_l"].shape[:3] == (5, 2, 1)
    page = (out / "report.html").read_text()
    assert "holds pictures of people" in page and page.count("<svg") == 3
    assert page.count("data:image/jpeg") == 6  # what was learned from, and a preview
    before = (out / "bob.safetensors").stat().st_mtime_ns
    (town / "dora.png").unlink()
    code, table = start(load=None)  # no model is loaded for nothing
    assert code == 0 and set(states(table).values()) == {"was there"}
    Image.new("RGB", (64, 64), "red").save(town / "anna.png")  # another picture: another identity
    code, table = start()
    assert states(table) == {"anna": "trained", "bob": "was there", "carl": "was there"}
    assert (out / "bob.safetensors").stat().st_mtime_ns == before
    assert not list(out.glob(".*.tmp"))


def test_a_stopped_run_tells_who_was_not_begun_and_a_damaged_curve_costs_nothing(
    town, start, monkeypatch
):
    put = Shelf.put

    def press(self, name, data):
        put(self, name, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Shelf, "put", press)
        code, table = start("--at-once", "1")
    assert code == 130
    assert states(table) == {"anna": "trained", "bob": "not begun", "carl": "not begun"}
    path = town.parent / "town-identities/anna.safetensors"
    tensors, metadata = load_file(path), keys_in(path.parent)["anna"]
    with safe_open(path, "pt") as file:
        whole = file.metadata()
    damaged = json.dumps(json.loads(metadata) | {"curve": [["x"]]})
    save_file(tensors, path, whole | {"sefi.cast": damaged})
    code, table = start()
    assert code == 0
    assert states(table) == {"anna": "was there", "bob": "trained", "carl": "trained"}
    assert (path.parent / "report.html").read_text().count("<svg") == 2


def test_two_runs_do_not_collide_and_mistakes_are_sentences(town, start, capsys, tmp_path):
    shelf = Shelf(tmp_path / "town-identities")
    with shelf.alone():
        assert (
            command().main([str(town), "--comfyui", str(HOST), "--checkpoint", str(MINIATURE)]) == 2
        )
    assert "another run fills" in capsys.readouterr().err
    with pytest.raises(SettingsError, match=r"cannot be made .* name another folder"):
        Shelf(town / "anna.png/out")
    with pytest.raises(IdentityFileError):
        shelf.put("anna", b"half a file")
    assert not shelf.path("anna").exists()
    for more, sentence in (
        (["--set", "step=3"], 'there is no setting "step"; take one of'),
        (["--set", "steps=many"], "which is no int; write one"),
    ):
        assert (
            command().main(
                [str(town), "--comfyui", str(HOST), "--checkpoint", str(MINIATURE), *more]
            )
            == 2
        )
        assert sentence in capsys.readouterr().err


def process(town, *more):
    """Starts the command on the miniature, in a process of its own with an own base folder."""
    base = town.parent / "base"
    base.mkdir(exist_ok=True)
    given = [str(town), "--comfyui", str(HOST), "--checkpoint", str(MINIATURE), *QUICKEST, *more]
    program = [sys.executable, str(ROOT / "tests/cast_on_miniature.py"), *given]
    program += ["--", "--cpu", "--base-directory", str(base)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def keys_in(folder):
    """Returns what each whole identity file was made from."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found[path.stem] = file.metadata()["sefi.cast"]
    return found


def test_a_killed_run_is_started_again_and_loses_nobody(town):
    out = town.parent / "town-identities"
    run = process(town, "--at-once", "1")
    while run.poll() is None and not list(out.glob("*.safetensors")):
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    there = keys_in(out)
    assert there and run.returncode == -signal.SIGKILL
    again = process(town)
    said, _ = again.communicate()
    assert again.returncode == 0, said
    assert set(keys_in(out)) == {"anna", "bob", "carl"}
    assert {name: keys_in(out)[name] for name in there} == there and "was there" in said


def test_on_ray_a_killed_worker_loses_nobody(town):
    pytest.importorskip("ray")
    run = process(town, "--at-once", "1", "--ray")
    killed = None
    while run.poll() is None and killed is None:
        time.sleep(0.1)
        try:
            below = psutil.Process(run.pid).children(recursive=True)
            workers = [one for one in below if "learn_apart" in " ".join(one.cmdline())]
        except psutil.Error:
            continue
        if workers:
            killed = workers[0]
            killed.kill()
    said, _ = run.communicate()
    assert run.returncode == 0 and killed is not None, said
    assert set(keys_in(town.parent / "town-identities")) == {"anna", "bob", "carl"}
