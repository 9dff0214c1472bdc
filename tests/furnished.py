"""What a server needs for the example workflows: their checkpoint, from a seed, and a portrait."""

__all__ = ["CHECKPOINT", "PICTURE", "furnish"]

import sys
from pathlib import Path

import skimage.data
from comfy_server import ROOT, link
from PIL import Image

sys.path.append(str(ROOT / "benchmarks"))
from seeded_checkpoint import write

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"  # the workflows' own choice
PICTURE = "example.png"


def furnish(folder: Path) -> None:
    """Puts both into a server's folder."""
    seeded = write(ROOT / ".host/seeded-sd15.safetensors")
    link(seeded, folder / "models/checkpoints" / CHECKPOINT)
    (folder / "input").mkdir(exist_ok=True)
    Image.fromarray(skimage.data.astronaut()[:320, 70:390]).save(folder / "input" / PICTURE)
