"""SDXL for the run of real packs: a UNet with SDXL's attention layers, prompt and picture encoders
of its widths, and the adapters' weights in the layouts that their packs read; all of a seed and
otherwise small.

The packs number SDXL's seventy cross-attentions, and read contexts 2048 wide, so these stay.
"""

__all__ = ["sdxl_parts"]

from typing import Any

import torch
from torch import nn

CONTEXT, FACE, CLIP_EMBEDS = 2048, 512, 1024
LAYOUT = {
    "channel_mult": [1, 2, 4], "num_res_blocks": [2, 2, 2],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10, "context_dim": CONTEXT, "adm_in_channels": 2816,
}  # fmt: skip
VISION = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 224, "patch_size": 14, "num_channels": 3, "hidden_act": "gelu",
    "projection_dim": CLIP_EMBEDS, "model_type": "clip_vision_model", "layer_norm_eps": 1e-5,
}  # fmt: skip
# How many layers attend, in the order in which adapters number them: into the UNet, out, middle.
DEPTHS = (2, 2, 10, 10, 10, 10, 10, 2, 2, 2, 10)


class EvaTower(nn.Module):
    """Gives what PuLID reads of EVA-CLIP, of a seed: an embedding and five hidden states."""

    image_size, image_mean, image_std = 336, (0.5,) * 3, (0.5,) * 3

    def forward(self, picture: torch.Tensor, **_: bool) -> tuple[torch.Tensor, list]:
        generator = torch.Generator().manual_seed(5)
        hidden = [torch.randn(1, 577, 1024, generator=generator) for _ in range(5)]
        return torch.randn(1, 768, generator=generator) + picture.mean(), hidden


def sdxl_parts() -> dict[str, Any]:
    """Returns what SDXL's rows are made with, by name."""
    import comfy.clip_vision
    import comfy.sd
    import seeded
    from comfy import sdxl_clip
    from comfy.supported_models_base import ClipTarget

    model = seeded.tiny_sdxl(**LAYOUT)
    shallow = {f"clip_{n}_model_config": {"num_hidden_layers": 3} for n in "lg"}
    target = ClipTarget(sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLClipModel)
    clip = comfy.sd.CLIP(target, model_options=shallow)
    seeded.seed_weights(clip.cond_stage_model, 1)
    vision = comfy.clip_vision.ClipVisionModel(VISION)
    seeded.seed_weights(vision.model, 3)
    generator = torch.Generator().manual_seed(8)
    pixels = torch.rand(1, 224, 224, 3, generator=generator)
    return {
        "model": model,
        "clip": clip,
        "vae": seeded.seeded_vae(),
        "pixels": pixels,
        "vision": vision,
        "eva": EvaTower(),
        "control": control_net(model),
        "ipadapter": {"image_proj": seeded_proj(), "ip_adapter": key_values(model, 11)},
        **face_adapters(model),
    }


def face_adapters(model: Any) -> dict[str, Any]:
    """Returns the models of InstantID and PuLID, for the packs that are there."""
    found: dict[str, Any] = {}
    if instantid := module_of("InstantIDModelLoader"):
        proj = instantid.Resampler(
            dim=1280, depth=4, dim_head=64, heads=20, num_queries=16, embedding_dim=FACE,
            output_dim=CONTEXT,
        )  # fmt: skip
        weights = {"image_proj": seeded_state(proj, 12), "ip_adapter": key_values(model, 13)}
        found["instantid"] = instantid.InstantID(weights, output_cross_attention_dim=CONTEXT)
    if pulid := module_of("PulidModelLoader"):
        proj = seeded_state(pulid.IDEncoder(), 14)
        found["pulid"] = pulid.PulidModel({"image_proj": proj, "ip_adapter": key_values(model, 15)})
    return found


def module_of(node: str) -> Any:
    """Returns the module of a pack's node; None if the pack is not there."""
    import sys

    import nodes

    kind = nodes.NODE_CLASS_MAPPINGS.get(node)
    return sys.modules[kind.__module__] if kind else None


def key_values(model: Any, seed: int) -> dict[str, torch.Tensor]:
    """Returns an adapter's K and V of every cross-attention: "1.to_k_ip.weight" for one."""
    unet = model.model.diffusion_model
    blocks = [unet.input_blocks[i][1] for i in (4, 5, 7, 8)]
    blocks += [unet.output_blocks[i][1] for i in range(6)]
    blocks.append(unet.middle_block[1])
    layers = [layer for block in blocks for layer in block.transformer_blocks]
    if [len(block.transformer_blocks) for block in blocks] != list(DEPTHS):
        raise ValueError("the UNet has not SDXL's layers")
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{2 * number + 1}.to_{part}_ip.weight": CONTEXT**-0.5
        * torch.randn(layer.attn2.to_k.weight.shape, generator=generator)
        for number, layer in enumerate(layers)
        for part in "kv"
    }


def seeded_proj() -> dict[str, torch.Tensor]:
    """Returns the picture projection of the plain IPAdapter: 4 tokens of a CLIP embedding."""
    parts = {"proj": nn.Linear(CLIP_EMBEDS, 4 * CONTEXT), "norm": nn.LayerNorm(CONTEXT)}
    return seeded_state(nn.ModuleDict(parts), 10)


def seeded_state(module: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    import seeded

    return seeded.seed_weights(module, seed).state_dict()


def control_net(model: Any) -> Any:
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops
    import seeded

    dropped = ("out_channels", "use_temporal_attention", "transformer_depth_output")
    config = {k: v for k, v in model.model.model_config.unet_config.items() if k not in dropped}
    net = comfy.cldm.cldm.ControlNet(
        **config, hint_channels=3, device="cpu", operations=comfy.ops.disable_weight_init
    )
    seeded.seed_weights(net, 6)
    return comfy.controlnet.ControlNet(net, load_device=torch.device("cpu"))
