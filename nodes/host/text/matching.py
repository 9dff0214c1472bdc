"""Whether model and text encoder belong together."""

__all__ = ["require_match"]

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP

from ....sefi_core.errors import MismatchError
from ....sefi_core.families import family_name, family_of_context
from ..unets import require_text_unet
from .encoder import token_widths


def require_match(model: ModelPatcher, clip: CLIP) -> None:
    """Raises MismatchError unless the model is a text UNet that reads this CLIP's contexts, whose
    widths then add up to its own.
    """
    require_text_unet(model)
    widths, context = token_widths(clip), model.model.model_config.unet_config["context_dim"]
    if sum(widths.values()) != context:
        raise MismatchError(
            f"clip: it is of {family_name(widths)}, the model is {family_of_context(context)}; "
            "take MODEL and CLIP from the same checkpoint."
        )
