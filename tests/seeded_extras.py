"""A ControlNet and a LoRA for the seeded checkpoint, with weights from a seed."""

__all__ = ["write_control_net", "write_lora"]

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from comfy_server import ROOT
from safetensors.torch import save_file

sys.path.append(str(ROOT / "benchmarks"))
from seeded_checkpoint import CHANNELS, TEXT, Shape, layer, seeded, unet

HINT = (3, 16, 16, 32, 32, 96, 96, 256, CHANNELS)  # channels of the picture's way to the latents
ENCODER = ("time_embed", "input_blocks", "middle_block")


def write_control_net(path: Path) -> Path:
    """Writes the encoder half of the checkpoint's UNet, with outputs of its own that are not 0."""
    generator = torch.Generator().manual_seed(21)
    tensors = {name: seeded(name, shape, generator).half() for name, shape in control_net()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def control_net() -> Iterator[Shape]:
    yield from (shape for shape in unet("") if shape[0].startswith(ENCODER))
    for number, (into, out) in enumerate(itertools.pairwise(HINT)):
        yield from layer(f"input_hint_block.{2 * number}", out, into, 3, 3)
    for number in range(4):
        yield from layer(f"zero_convs.{number}.0", CHANNELS, CHANNELS, 1, 1)
    yield from layer("middle_block_out.0", CHANNELS, CHANNELS, 1, 1)


def write_lora(path: Path) -> Path:
    """Writes a LoRA of rank 2 on one layer of the UNet and one of the text encoder."""
    generator = torch.Generator().manual_seed(22)
    layers = {
        "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q": CHANNELS,
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj": TEXT,
    }
    tensors = {}
    for name, width in layers.items():
        tensors[f"{name}.lora_up.weight"] = torch.randn(width, 2, generator=generator)
        tensors[f"{name}.lora_down.weight"] = torch.randn(2, width, generator=generator) * 0.1
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path
