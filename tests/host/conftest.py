"""The genuine host in this process, and small models of its own classes."""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = os.environ.get("COMFYUI_PATH") or (ROOT / ".host-path").read_text().strip()

sys.path.insert(0, HOST)
_argv, sys.argv = sys.argv, ["main.py", "--cpu", "--base-directory", tempfile.mkdtemp(prefix="sefi-host-")]
import comfy.options

comfy.options.enable_args_parsing()
import utils.extra_config  # the host's `utils` is a package only if it comes first
import comfy.cli_args
import folder_paths

sys.argv = _argv

import pytest
import seeded
import torch

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def clip():
    return seeded.tiny_clip()


@pytest.fixture(scope="session")
def model():
    return seeded.tiny_model()


@pytest.fixture(scope="session")
def vae():
    return seeded.seeded_vae()
