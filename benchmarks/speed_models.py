"""Models to time: real layouts with weights from a seed, whose values mean nothing.

    small   SD 1.x's layout, 64 channels wide, a text encoder of four layers, 32 x 32 latents
    sd15    SD 1.5's own shapes, float32, 64 x 64 latents
    sdxl    SDXL's own shapes, bfloat16, 64 x 64 latents (512 pixels: 1024 need 24 GB and more)

The host makes its modules without setting a weight; each is filled where it lies, so that no
second copy is ever there.
"""
# ruff: noqa: E402 - the pack and the host can be imported after `ensure_pack` only

__all__ = ["SIZES", "Size", "fill", "make_base", "make_clip", "make_encoder", "make_model"]

from dataclasses import dataclass, field

import torch
from torch import nn

from .pack import ensure_pack

ensure_pack()
import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.ldm.modules.diffusionmodules.model import Encoder
from comfy.model_patcher import ModelPatcher

SD1_LAYOUT = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "legacy": False,
    "use_temporal_attention": False,
}
SDXL_LAYOUT = {
    **SD1_LAYOUT,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
    "num_heads": -1,
    "num_head_channels": 64,
}
SMALL_TEXT = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
}


@dataclass(frozen=True)
class Size:
    """A model to time, and how often.

    Arguments:
        side: Of the latents.
        rounds, steps: Pairs to time, and steps of each contestant in one.
        dtype: Of the weights.
        cast: What is computed in where that is another dtype.
        text, text_g: What differs from the own shapes of CLIP-L and CLIP-G.
        sampled: Sampling steps of a picture.
        vae_width: Channels of the autoencoder that the literal loop encodes with.
    """

    label: str
    channels: int
    context: int
    layout: dict
    side: int
    rounds: int
    steps: int
    dtype: torch.dtype = torch.float32
    cast: torch.dtype | None = None
    text: dict = field(default_factory=dict)
    text_g: dict = field(default_factory=dict)
    vae_width: int = 128
    sampled: int = 20

    @property
    def is_sdxl(self) -> bool:
        return "num_classes" in self.layout


SIZES = {
    "small": Size(
        "SD 1.x layout, 64 channels", 64, 128, SD1_LAYOUT, 32, 7, 5, text=SMALL_TEXT, vae_width=32
    ),
    "sd15": Size("SD 1.5", 320, 768, SD1_LAYOUT, 64, 3, 2),
    "sdxl": Size("SDXL, bfloat16", 320, 2048, SDXL_LAYOUT, 64, 3, 1, torch.bfloat16),
}


def make_model(size: Size) -> ModelPatcher:
    """Returns the diffusion model."""
    cpu = torch.device("cpu")
    base = make_base(size, cpu)
    return ModelPatcher(fill(base.requires_grad_(False)), load_device=cpu, offload_device=cpu)


def make_base(size: Size, device: torch.device) -> comfy.model_base.BaseModel:
    """Returns the host's model on a device, its weights as memory was."""
    classes = comfy.supported_models, comfy.model_base
    family = classes[0].SDXL if size.is_sdxl else classes[0].SD15
    base_class = classes[1].SDXL if size.is_sdxl else classes[1].BaseModel
    config = {
        **{k: list(v) if isinstance(v, list) else v for k, v in size.layout.items()},
        "model_channels": size.channels,
        "context_dim": size.context,
    }
    made = family(config)
    made.set_inference_dtype(size.dtype, size.cast)
    return base_class(made, device=device)


def make_clip(size: Size) -> comfy.sd.CLIP:
    """Returns the text encoder, in the dtype that the host chooses for the device."""
    family = comfy.supported_models.SDXL if size.is_sdxl else comfy.supported_models.SD15
    target = family.clip_target(None)
    target.params = {}
    shapes = {"clip_l_model_config": size.text, "clip_g_model_config": size.text_g}
    options = {name: shape for name, shape in shapes.items() if shape}
    clip = comfy.sd.CLIP(target, model_options=options)
    fill(clip.cond_stage_model.requires_grad_(False))
    return clip


def make_encoder(size: Size, device: str = "cpu") -> Encoder:
    """Returns the encoding half of SD's autoencoder, 8 x smaller latents."""
    shape = {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    with torch.device(device):
        encoder = Encoder(
            ch=size.vae_width, out_ch=3, in_channels=3, resolution=256, z_channels=4, double_z=True,
            **shape,
        )  # fmt: skip
    encoder.requires_grad_(False).float()
    return encoder if device == "meta" else fill(encoder)


@torch.no_grad()
def fill(module: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every weight a value from a seed, of a size that keeps activations near 1; drawn on a
    card where there is one, which is faster by far.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    for name, weight in module.named_parameters():
        if weight.ndim < 2:
            weight.fill_(float(name.endswith("weight")))
        elif weight.device == generator.device:
            weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)
        else:
            drawn = torch.randn(weight.shape, generator=generator, device=device)
            weight.copy_(drawn * weight[0].numel() ** -0.5)
    return module
