"""What is measured of whole trainings: through the node's own door, and with streamed weights."""
# ruff: noqa: E402 - the pack and the host can be imported after `ensure_pack` only

__all__ = ["as_a_child", "streamed", "whole"]

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .pack import ROOT, ensure_pack

ensure_pack()
import comfy.model_management as mm
import folder_paths
from sefi_pack.nodes.host.train.trainer import train_identity
from sefi_pack.sefi_core.errors import SefiError  # noqa: F401
from sefi_pack.sefi_core.training.config import PRESETS

from .card_models import read
from .card_parts import Record, absent, farthest, memory, trained
from .speed_scene import Scene, ours

LEARNED = 4  # steps of which what is learned is compared
CHILD_SECONDS = 120
FORWARD_PASSES = 1200  # of a default training, in steps (docs/performance.md)


def whole(scene: Scene, count: int) -> Record:
    """Seconds of a training as the node's defaults have it, with ten previews, but for its steps;
    asked for once more, it is answered at once.
    """
    config, model_vae = PRESETS["default"], scene.models
    asked = {
        **dict(zip(("model", "clip", "vae"), model_vae, strict=True)),
        "image": torch.rand(1, 8 * scene.size.side, 8 * scene.size.side, 3),
        "class_word": "person", "train_seed": 0, "preset": "default", "steps": count,
        "learning_rate": config.learning_rate, "resolution": 8 * scene.size.side,
        "attention_loss_weight": config.attention_loss_weight,
        "preview_every": max(1, count // 10),
    }  # fmt: skip
    former, seconds = folder_paths.get_output_directory(), []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        folder_paths.set_output_directory(folder)
        try:
            for _ in range(2):
                start = time.perf_counter()
                train_identity(**asked)
                seconds.append(time.perf_counter() - start)
        finally:
            folder_paths.set_output_directory(former)
    return {"steps": count, "seconds": seconds[0], "seconds, finished before": seconds[1]}


def streamed(scene: Scene, checkpoint: Path, count: int) -> Record:
    """A training while the host streams weights (dynamic VRAM), in a process of its own, beside one
    without.
    """
    if scene.device.type != "cuda":
        return absent("the host streams weights to cards alone")
    off = {"step, seconds": statistics.median(ours(scene, count)), **memory(scene)}
    pairs = trained(scene, LEARNED)
    mm.unload_all_models()
    mm.soft_empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "pairs.safetensors"
        given = ["--child", scene.name, "--file", checkpoint, "--pairs", kept, "--steps", count]
        on = told_by_a_child(list(map(str, given)))
        if kept.exists():
            on["learned, largest difference"] = farthest(pairs, load_file(kept))
    return {"off": off, "on": on}


def told_by_a_child(arguments: list[str]) -> Record:
    command = [sys.executable, "-m", "benchmarks.card", *arguments]
    try:
        told = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=CHILD_SECONDS
        )
    except subprocess.TimeoutExpired:
        return absent(f"it took more than {CHILD_SECONDS} seconds")
    if told.returncode:
        return absent((told.stderr.splitlines() or ["it ended"])[-1])
    return json.loads(told.stdout.splitlines()[-1])


def as_a_child(name: str, file: Path, pairs: Path, count: int, refusal: str | None) -> Record:
    """What a process with streamed weights measures."""
    if refusal:
        return absent(refusal)
    with torch.inference_mode():
        scene = Scene(name, 1, read(name, file))
    if not scene.model.is_dynamic():
        return absent("the host streams no model that its loader makes here")
    found = {"step, seconds": statistics.median(ours(scene, count)), **memory(scene)}
    save_file(trained(scene, LEARNED), pairs)
    return found
