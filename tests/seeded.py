"""Small models with weights from a seed: the host's own classes, so that its own code runs them."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import comfy.model_base
import comfy.model_patcher
import comfy.sd
import comfy.sdxl_clip as sdxl_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.taesd.taesd
import comfy.text_encoders.sd2_clip as sd2_clip
import torch
from comfy.ldm.flux.model import FluxParams
from torch import nn

TINY_CLIP = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
TINY_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "num_heads": 8,
    "context_dim": 64,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "legacy": False,
    "use_temporal_attention": False,
}
SD2_HEADS = {"num_heads": -1, "num_head_channels": 16, "use_linear_in_transformer": True}
SDXL_LAYOUT = {
    "channel_mult": [1, 2, 4],
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [0, 1, 3],
    "transformer_depth_output": [0, 0, 1, 1, 3, 3],
    "transformer_depth_middle": 3,
    "num_heads": -1,
    "num_head_channels": 16,
    "use_linear_in_transformer": True,
    "context_dim": 160,
    "num_classes": "sequential",
    "adm_in_channels": 96 + 6 * 256,
}
TRANSFORMERS = {
    "Flux": {
        "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 32,
        "context_in_dim": 32, "hidden_size": 64, "mlp_ratio": 2.0, "num_heads": 4, "depth": 1,
        "depth_single_blocks": 1, "axes_dim": [4, 6, 6], "theta": 10000, "patch_size": 2,
        "qkv_bias": True, "guidance_embed": False,
    },
    "SD3": {
        "in_channels": 16, "out_channels": 16, "pos_embed_scaling_factor": None, "depth": 1,
        "input_size": 8, "adm_in_channels": 64, "patch_size": 2, "num_patches": 64,
        "context_embedder_config": {
            "target": "torch.nn.Linear", "params": {"in_features": 32, "out_features": 64}
        },
    },
}  # fmt: skip
if "txt_ids_dims" in FluxParams.__dataclass_fields__:  # newer hosts require it
    TRANSFORMERS["Flux"]["txt_ids_dims"] = []
LOUD = {"attn2.to_out": 16.0, "diffusion_model.out.2": 2.0}


def seed_weights(module: nn.Module, seed: int) -> nn.Module:
    """Gives every weight a value from a seed, of a size that keeps activations near 1.

    Cross-attention and the output are made loud: the prompt then matters, as in a trained model,
    and there is a loss to lower.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            if "norm" in name or (name.endswith((".0.weight",)) and parameter.ndim == 1):
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif "embedding" in name:
                parameter.normal_(0.0, 0.3, generator=generator)
            elif parameter.ndim > 1 and parameter.numel():
                fan_in = parameter[0].numel()
                gain = next((g for part, g in LOUD.items() if part in name), 1.0)
                parameter.normal_(0.0, gain * fan_in**-0.5, generator=generator)
            else:
                parameter.normal_(0.0, 0.02, generator=generator)
    return module


def tiny_unet(
    config_class: type,
    base_class: Callable[..., comfy.model_base.BaseModel] = comfy.model_base.BaseModel,
    kind: comfy.model_base.ModelType = comfy.model_base.ModelType.EPS,
    seed: int = 0,
    **unet,
) -> comfy.model_patcher.ModelPatcher:
    """Returns a small UNet of the host's classes for a family; `unet` goes beyond TINY_UNET."""
    config = config_class({**TINY_UNET, **unet})
    config.unet_config.update({"dtype": torch.float32, **unet})
    base = base_class(config, model_type=kind, device="cpu")
    if unet.get("in_channels") == 9:
        base.set_inpaint()
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(
        seed_weights(base, seed), load_device=cpu, offload_device=cpu
    )


def tiny_model(
    v_prediction: bool = False, seed: int = 0, **unet
) -> comfy.model_patcher.ModelPatcher:
    """Returns an SD 1.x UNet of 32 channels, 8 heads and a context 64 wide."""
    return tiny_unet(comfy.supported_models.SD15, kind=prediction(v_prediction), seed=seed, **unet)


def tiny_sd2(v_prediction: bool = False, seed: int = 0, **unet) -> comfy.model_patcher.ModelPatcher:
    """Returns an SD 2.x UNet of 32 channels, heads 16 wide and a context 64 wide."""
    unet = {**SD2_HEADS, **unet}
    return tiny_unet(comfy.supported_models.SD20, kind=prediction(v_prediction), seed=seed, **unet)


def tiny_sdxl(
    v_prediction: bool = False, seed: int = 0, **unet
) -> comfy.model_patcher.ModelPatcher:
    """Returns an SDXL UNet: three levels of which two attend, with 4 and 8 heads, up to three
    transformers deep; a context 64 + 96 wide; the pooled vector and the sizes beside it.
    """
    return tiny_unet(
        comfy.supported_models.SDXL,
        comfy.model_base.SDXL,
        kind=prediction(v_prediction),
        seed=seed,
        **{**SDXL_LAYOUT, **unet},
    )


def prediction(velocity: bool) -> comfy.model_base.ModelType:
    kinds = comfy.model_base.ModelType
    return kinds.V_PREDICTION if velocity else kinds.EPS


def tiny_transformer(family: str) -> comfy.model_patcher.ModelPatcher:
    """Returns a genuine "Flux" or "SD3", small: models without a UNet's cross-attention."""
    config = getattr(comfy.supported_models, family)(
        {**TRANSFORMERS[family], "dtype": torch.float32}
    )
    base = seed_weights(getattr(comfy.model_base, family)(config, device="cpu"), 0)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(base, load_device=cpu, offload_device=cpu)


def tiny_clip(seed: int = 1, embedding_directory: str | None = None, **config) -> comfy.sd.CLIP:
    """Returns a CLIP-L of 3 layers, 64 wide, with the real tokenizer."""
    target = comfy.supported_models.SD15.clip_target(None)
    target.params = {}
    options = {"clip_l_model_config": {**TINY_CLIP, **config}}
    clip = comfy.sd.CLIP(target, embedding_directory=embedding_directory, model_options=options)
    seed_weights(clip.cond_stage_model, seed)
    return clip


def seeded_vae(seed: int = 2) -> comfy.sd.VAE:
    """Returns a TAESD with seeded weights: 8 x smaller latents of 4 channels."""
    return comfy.sd.VAE(sd=seed_weights(comfy.taesd.taesd.TAESD(), seed).state_dict())


def tiny_clip_h(seed: int = 1, embedding_directory: str | None = None) -> comfy.sd.CLIP:
    """Returns SD 2.x's text encoder, small."""
    target = comfy.supported_models_base.ClipTarget(sd2_clip.SD2Tokenizer, sd2_clip.SD2ClipModel)
    options = {"clip_h_model_config": TINY_CLIP}
    clip = comfy.sd.CLIP(target, embedding_directory=embedding_directory, model_options=options)
    seed_weights(clip.cond_stage_model, seed)
    return clip


def tiny_clip_lg(seed: int = 1, embedding_directory: str | None = None) -> comfy.sd.CLIP:
    """Returns SDXL's two text encoders, small: 64 and 96 wide."""
    target = comfy.supported_models_base.ClipTarget(
        sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLClipModel
    )
    wide = {**TINY_CLIP, "hidden_size": 96}
    options = {"clip_l_model_config": TINY_CLIP, "clip_g_model_config": wide}
    clip = comfy.sd.CLIP(target, embedding_directory=embedding_directory, model_options=options)
    seed_weights(clip.cond_stage_model, seed)
    return clip


class Family(NamedTuple):
    """Factories of one family's small models, and the token widths of its identities."""

    model: Callable[..., comfy.model_patcher.ModelPatcher]
    clip: Callable[..., comfy.sd.CLIP]
    vae: Callable[[], comfy.sd.VAE]
    widths: dict[str, int]


FAMILIES = {
    "SD 1.x": Family(tiny_model, tiny_clip, seeded_vae, {"clip_l": 64}),
    "SD 2.x": Family(tiny_sd2, tiny_clip_h, seeded_vae, {"clip_h": 64}),
    "SD 2.x v": Family(functools.partial(tiny_sd2, True), tiny_clip_h, seeded_vae, {"clip_h": 64}),
    "SDXL": Family(tiny_sdxl, tiny_clip_lg, seeded_vae, {"clip_l": 64, "clip_g": 96}),
}


def tiny_kin(name: str) -> comfy.model_patcher.ModelPatcher:
    """Returns a model of KIN: a family's UNet that reads a picture beside the prompt."""
    family, kind = name.rsplit(" ", 1)
    if kind == "inpainting":
        return {"SD 1.x": tiny_model, "SD 2.x": tiny_sd2, "SDXL": tiny_sdxl}[family](in_channels=9)
    if kind == "unCLIP":
        config = comfy.supported_models.SD21UnclipL
        unet = {"num_classes": "sequential", "adm_in_channels": 2 * 64, **SD2_HEADS}
        noise = {**config.noise_aug_config, "timestep_dim": 64}
        make = functools.partial(comfy.model_base.SD21UNCLIP, noise_aug_config=noise)
        return tiny_unet(config, make, prediction(True), **unet)
    kin = "SDXL_instructpix2pix" if family == "SDXL" else "SD15_instructpix2pix"
    layout = SDXL_LAYOUT if family == "SDXL" else {}
    classes = getattr(comfy.supported_models, kin), getattr(comfy.model_base, kin)
    return tiny_unet(*classes, in_channels=8, **layout)


KIN = {
    "SD 1.x inpainting": "SD 1.x",
    "SD 2.x inpainting": "SD 2.x",
    "SDXL inpainting": "SDXL",
    "SD 2.x unCLIP": "SD 2.x",
    "SD 1.x pix2pix": "SD 1.x",
    "SDXL pix2pix": "SDXL",
}
