"""The genuine host in this process, and small models of its own classes."""

import functools
import gc
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = os.environ.get("COMFYUI_PATH") or (ROOT / ".host-path").read_text().strip()
BASE = tempfile.mkdtemp(prefix="sefi-host-")

sys.path.insert(0, HOST)
given, sys.argv = sys.argv, ["main.py", "--cpu", "--base-directory", BASE]
import comfy.options

comfy.options.enable_args_parsing()
import comfy.cli_args  # reads sys.argv
import folder_paths
import utils.extra_config  # noqa: F401 - the host's `utils` is a package only if it comes before `nodes`

sys.argv = given

import pytest
import seeded
import torch
from sefi_pack.nodes.host.text.encoder import class_tokens, token_widths
from sefi_pack.nodes.host.train import preview, trainer
from sefi_pack.sefi_core.identity.identity import Identity
from sefi_pack.sefi_core.picture import subject_mask as subject
from sefi_pack.sefi_core.training import selection
from transformers import CLIPTokenizer

# Its 49,408 words are read once: each small CLIP would read them anew, and no test changes them.
CLIPTokenizer.from_pretrained = functools.cache(CLIPTokenizer.from_pretrained)


@pytest.fixture(autouse=True)
def as_the_executor():
    """The executor runs every node in inference mode.

    What is there by now stays: the host collects garbage whenever a model's clone is gone, and
    would look each time at all that the tests have imported and made.
    """
    gc.collect()
    gc.freeze()
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def clip():
    with torch.inference_mode():
        return seeded.tiny_clip()


@pytest.fixture(scope="session")
def model():
    with torch.inference_mode():
        return seeded.tiny_model()


@pytest.fixture(scope="session")
def vae():
    with torch.inference_mode():
        return seeded.seeded_vae()


@pytest.fixture
def neutral(clip):
    """An identity whose every pair is the class word's token."""
    tokens = class_tokens(clip, "person")
    return Identity({name: token.clone().expand(5, 2, 1, -1) for name, token in tokens.items()})


@pytest.fixture
def learned(clip):
    """An identity with something in every pair."""
    generator = torch.Generator().manual_seed(7)
    widths = token_widths(clip)
    return Identity(
        {n: torch.randn(5, 2, 1, width, generator=generator) * 0.3 for n, width in widths.items()}
    )


@pytest.fixture
def picture():
    return torch.rand(1, 80, 72, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path / "sefi"


@pytest.fixture
def small(monkeypatch):
    """Asks little of a picture, and of a start, so that a training is short."""
    presets = {
        n: replace(p, views=4, candidates=min(3, p.candidates)) for n, p in trainer.PRESETS.items()
    }
    monkeypatch.setattr(trainer, "PRESETS", presets)
    monkeypatch.setattr(preview, "PREVIEW_STEPS", 2)
    monkeypatch.setattr(subject, "LOOKS", 1)
    monkeypatch.setattr(selection, "SAMPLES", 2)


@pytest.fixture
def ask(model, clip, vae, picture, output, small):
    """Trains with small settings, which keyword arguments change."""

    def train(**changed):
        request = {
            "model": model, "clip": clip, "vae": vae, "image": picture, "class_word": "person",
            "train_seed": 0, "preset": "default", "steps": 6, "learning_rate": 3e-4,
            "attention_loss_weight": 0.003, "attention_loss": "prompt tokens", "resolution": 64,
            "preview_every": 0, "checkpoint_every": 0,
        }  # fmt: skip
        return trainer.train_identity(**{**request, **changed})

    return train
