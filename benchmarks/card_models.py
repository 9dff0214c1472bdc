"""Checkpoints in fp16 with weights from a seed, and the models that ComfyUI makes of them.

The shapes of SD 1.5 and of SDXL go through the host's own loader. Tiny ones, which no loader knows,
are put together of the host's classes, so that all of benchmarks.card runs in seconds on a CPU.
"""
# ruff: noqa: E402 - the pack and the host can be imported after `ensure_pack` only

__all__ = ["CARD_SIZES", "checkpoint", "read"]

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .pack import ensure_pack

ensure_pack()
import comfy.sd
import comfy.utils
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy.taesd.taesd import TAESD
from safetensors.torch import load_file, save_file

from .speed_models import SDXL_LAYOUT, SIZES, SMALL_TEXT, fill, make_clip, make_model

VAE_PREFIX = "first_stage_model."
SD_AUTOENCODER = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
TINY = {
    "num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1], "num_heads": 8,
}  # fmt: skip
TINY_SDXL = {
    **SDXL_LAYOUT, **TINY, "transformer_depth": [0, 2], "transformer_depth_output": [0, 0, 2, 2],
    "transformer_depth_middle": 1, "adm_in_channels": 64 + 6 * 256, "num_heads": -1,
    "num_head_channels": 16,
}  # fmt: skip
TINY_TEXT = {**SMALL_TEXT, "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 128}
FILE = torch.float16
# Cross-attention and the output are loud, so that the prompt matters as in a trained model.
LOUD = {"attn2.to_out": 8.0, "diffusion_model.out.2": 2.0}

_tiny = replace(
    SIZES["small"], label="tiny SD 1.x", channels=32, context=64, side=8, text=TINY_TEXT,
    layout={**SIZES["small"].layout, **TINY}, rounds=1, steps=1, sampled=2,
)  # fmt: skip
SIZES["tiny sd"] = _tiny
SIZES["tiny sdxl"] = replace(
    _tiny, label="tiny SDXL", context=128, layout=TINY_SDXL, text_g=TINY_TEXT
)
SIZES["card sd15"] = replace(SIZES["sd15"], label="SD 1.5, 512 pixels", side=64, steps=10)
SIZES["card sdxl"] = replace(SIZES["sdxl"], label="SDXL, 1024 pixels", side=128, steps=4)
CARD_SIZES = ("card sd15", "card sdxl", "tiny sd", "tiny sdxl")


def is_tiny(name: str) -> bool:
    return name.startswith("tiny")


def checkpoint(name: str, folder: Path) -> Path:
    """Writes a size's checkpoint, fp16 throughout, or keeps the one that is there."""
    path = folder / f"{name.replace(' ', '_')}.safetensors"
    if path.exists():
        return path
    size = replace(SIZES[name], dtype=FILE)
    model, clip = make_model(size), make_clip(size)
    for weight_name, weight in model.model.named_parameters():
        gain = next((gain for part, gain in LOUD.items() if part in weight_name), 1.0)
        weight.mul_(gain)
    text = {n: w for n, w in clip.cond_stage_model.state_dict().items()}
    own = {
        f"model.{n}": w
        for n, w in model.model.diffusion_model.state_dict(prefix="diffusion_model.").items()
    }
    if not is_tiny(name):
        text = model.model.model_config.process_clip_state_dict_for_saving(text)
    tensors = {**own, **text, **autoencoder(name)}
    tensors = {n: w.detach().to("cpu", FILE).contiguous() for n, w in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def autoencoder(name: str) -> dict[str, Tensor]:
    """Returns the weights of SD's autoencoder, of the host's tiny one beside tiny models."""
    with torch.device("cpu"):
        made = TAESD() if is_tiny(name) else AutoencoderKL(embed_dim=4, ddconfig=SD_AUTOENCODER)
    tensors = {VAE_PREFIX + n: w for n, w in fill(made.requires_grad_(False)).state_dict().items()}
    if is_tiny(name):
        tensors[f"{VAE_PREFIX}vae_scale"] = torch.tensor(1.0)
    return tensors


def read(name: str, path: Path) -> tuple[ModelPatcher, CLIP, VAE]:
    """Returns what the host makes of a checkpoint."""
    if not is_tiny(name):
        return comfy.sd.load_checkpoint_guess_config(str(path))[:3]
    size, tensors = SIZES[name], load_file(path)
    model, clip = make_model(replace(size, dtype=FILE, cast=torch.float32)), make_clip(size)
    parts = [(model.model, "model.diffusion_model.", "diffusion_model.")]
    parts.append((clip.cond_stage_model, "clip_", "clip_"))
    for module, prefix, own in parts:
        found = comfy.utils.state_dict_prefix_replace(dict(tensors), {prefix: own}, True)
        module.load_state_dict(found, strict=False)
    return (
        model,
        clip,
        VAE(sd=comfy.utils.state_dict_prefix_replace(tensors, {VAE_PREFIX: ""}, True)),
    )
