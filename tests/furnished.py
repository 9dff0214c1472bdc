"""What a server needs for the example workflows: their checkpoint, ControlNet and LoRA, from a
seed, and a portrait.
"""

__all__ = ["CHECKPOINT", "PICTURE", "furnish"]

import sys
from pathlib import Path

import skimage.data
from comfy_server import ROOT, link
from PIL import Image
from seeded_extras import write_control_net, write_lora

sys.path.append(str(ROOT / "benchmarks"))
from seeded_checkpoint import write

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"  # the workflows' own choices
CONTROL_NET = "control_v11p_sd15_canny_fp16.safetensors"
LORA = "blindbox_v1_mix.safetensors"
PICTURE = "example.png"


def furnish(folder: Path) -> None:
    """Puts all of them into a server's folder."""
    seeded = write(ROOT / ".host/seeded-sd15.safetensors")
    link(seeded, folder / "models/checkpoints" / CHECKPOINT)
    write_control_net(folder / "models/controlnet" / CONTROL_NET)
    write_lora(folder / "models/loras" / LORA)
    (folder / "input").mkdir(exist_ok=True)
    Image.fromarray(skimage.data.astronaut()[:320, 70:390]).save(folder / "input" / PICTURE)
