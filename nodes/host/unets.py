"""The UNets that draw from CLIP text: which models have one, of which family, and where its parts
are.

One rule covers SD 1.x, SD 2.x and SDXL with their inpainting, unCLIP and pix2pix kin: a UNet whose
cross-attention reads the text encoders' contexts side by side, and whose other conditions (pooled
text and sizes, a masked picture) the host makes of any plain prompt. Nothing here touches a tensor.
"""

__all__ = ["blocks_of", "family_of", "layer_at", "layer_of", "own_side", "require_text_unet"]

import comfy.model_base
from comfy.ldm.modules.attention import CrossAttention, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
from comfy.model_base import BaseModel, ModelType, SDXLRefiner
from comfy.model_patcher import ModelPatcher
from comfy.supported_models import SD20
from torch import nn

from ...sefi_core.errors import MismatchError
from ...sefi_core.families import SD1, SD2, SDXL, Family


def require_text_unet(model: ModelPatcher) -> None:
    """Raises MismatchError unless the model is a UNet that draws from CLIP text alone."""
    base = model.model
    if isinstance(base, SDXLRefiner):
        raise MismatchError(
            "model: the checkpoint is the SDXL refiner, which reads one of SDXL's two text "
            "encoders and only finishes pictures; train and apply on the SDXL base, and give the "
            "refiner an ordinary prompt with the class word."
        )
    if not isinstance(getattr(base, "diffusion_model", None), UNetModel) or not plain(base):
        raise MismatchError(
            f"model: the checkpoint is {type(base).__name__}, which does not draw from CLIP text "
            "alone through the cross-attention of a UNet; use an SD 1.x, SD 2.x or SDXL checkpoint."
        )


def plain(base: BaseModel) -> bool:
    """Whether cross-attention gets the prompt's context as it is, and there is no time axis."""
    config = base.model_config.unet_config
    own_conditions = type(base).extra_conds is not BaseModel.extra_conds
    return bool(config.get("context_dim")) and not (
        own_conditions or config.get("use_temporal_attention")
    )


def family_of(base: BaseModel) -> Family:
    """Returns the family of a model that is a text UNet."""
    if isinstance(base, comfy.model_base.SDXL):
        return SDXL
    return SD2 if isinstance(base.model_config, SD20) else SD1


def own_side(model: ModelPatcher) -> int:
    """Returns the side in pixels of the pictures that a model was made for."""
    base = model.model
    return family_of(base).own_side(base.model_type == ModelType.V_PREDICTION)


def layer_of(extra: dict) -> tuple:
    """Returns the host's key of the cross-attention layer that a patch is called for, as
    `patches_replace` has it: (block, number, index).
    """
    return (*extra["block"], extra["block_index"])


def layer_at(unet: UNetModel, extra: dict) -> CrossAttention:
    """Returns the cross-attention layer that a patch is called for."""
    kind, number, index = layer_of(extra)
    block = unet.middle_block if kind == "middle" else getattr(unet, f"{kind}_blocks")[number]
    (transformer,) = [part for part in block if isinstance(part, SpatialTransformer)]
    return transformer.transformer_blocks[index].attn2


def blocks_of(unet: nn.Module) -> list[nn.Module]:
    """Returns the blocks of a UNet that keep many tensors between their input and their output,
    none inside another: a residual block, and a spatial transformer, or each of its transformers
    where it stacks several, so that one at a time is there twice when it is computed again.
    """
    blocks = []
    for module in unet.modules():
        if isinstance(module, ResBlock):
            blocks.append(module)
        elif isinstance(module, SpatialTransformer):
            stacked = list(module.transformer_blocks)
            blocks += stacked if len(stacked) > 1 else [module]
    return blocks
