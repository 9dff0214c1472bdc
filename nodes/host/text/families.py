"""Which checkpoints the pack works with, and whether model and text encoder belong together.

One rule covers SD 1.x, SD 2.x and SDXL with their inpainting, unCLIP and pix2pix kin: a UNet whose
cross-attention reads the text encoders' contexts side by side, so their widths add up to its own,
and whose other conditions (pooled text and sizes, a masked picture) the host makes of any plain
prompt. Nothing here touches a tensor.
"""

__all__ = ["own_side", "require_match", "require_text_unet"]

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_base import SDXL, BaseModel, ModelType, SDXLRefiner
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy.supported_models import SD20

from ....sefi_core.errors import MismatchError
from ....sefi_core.identity.identity import family_name, family_of_context
from .encoder import token_widths


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


def require_match(model: ModelPatcher, clip: CLIP) -> None:
    """Raises MismatchError unless the model is a text UNet that reads this CLIP's contexts."""
    require_text_unet(model)
    widths, context = token_widths(clip), model.model.model_config.unet_config["context_dim"]
    if sum(widths.values()) != context:
        raise MismatchError(
            f"clip: it is of {family_name(widths)}, the model is {family_of_context(context)}; "
            "take MODEL and CLIP from the same checkpoint."
        )


def own_side(model: ModelPatcher) -> int:
    """Returns the side in pixels of the pictures that a model was made for."""
    base = model.model
    if isinstance(base, SDXL):
        return 1024
    velocity = base.model_type == ModelType.V_PREDICTION
    return 768 if velocity and isinstance(base.model_config, SD20) else 512
