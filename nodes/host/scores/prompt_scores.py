"""How well pictures follow a prompt: the host's CLIP vision against its CLIP text."""

__all__ = ["LOW_PROMPT", "prompt_scores"]

from contextlib import nullcontext

import comfy.model_management as management
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.sd import CLIP
from torch import Tensor

from ....sefi_core.analysis.evaluation import mean_cosine
from ....sefi_core.errors import MismatchError
from ..text.encoder import text_encoders
from ..text.slots import tokens_of

BATCH = 16
LOW_PROMPT = 0.1  # CLIPs that belong together give unrelated pictures and texts this much
ADVICE = (
    "connect CLIP Vision and CLIP of one model: clip_vision ViT-L/14 with clip_l from Load CLIP, "
    "ViT-H with an SD 2.x checkpoint, ViT-bigG with an SDXL checkpoint"
)


def prompt_scores(images: Tensor, clip_vision: ClipVisionModel, clip: CLIP, text: str) -> Tensor:
    """Returns the cosine of each picture (n, h, w, 3) to the text, (n,).

    Raises:
        MismatchError: The two do not speak of the same space.
    """
    pictures = torch.cat(
        [clip_vision.encode_image(some)["image_embeds"] for some in images[..., :3].split(BATCH)]
    )
    encoders = text_encoders(clip)
    widths = {
        name: encoder.transformer.text_projection.weight.shape[0]
        for name, encoder in encoders.items()
    }
    name = next((n for n, width in widths.items() if width == pictures.shape[-1]), None)
    if name is None:
        texts = " and ".join(f"{width} ({n})" for n, width in widths.items())
        raise MismatchError(
            f"clip_vision: it describes a picture by {pictures.shape[-1]} numbers, the CLIP a text "
            f"by {texts}; {ADVICE}."
        )
    device = clip.load_model().load_device  # with the LoRAs of this CLIP, where it is to run
    weight = encoders[name].transformer.text_projection.weight
    if not torch.isfinite(weight).all() or not weight.any():
        raise MismatchError(
            f"clip: its {name} has no text projection, because checkpoints of SD 1.x do not carry "
            f"one; {ADVICE}."
        )
    embedding = encode_text(clip, name, text, device)
    return mean_cosine(pictures.double().cpu(), embedding.double().cpu())


def encode_text(clip: CLIP, name: str, text: str, device: torch.device) -> Tensor:
    """Returns the projected embedding (1, E) of a text by one of a loaded CLIP's encoders; of a
    long text, its first 75 tokens.

    Arguments:
        device: Where it computes; its weights may wait elsewhere.
    """
    encoder = text_encoders(clip)[name]
    clip.cond_stage_model.reset_clip_options()
    encoder.set_clip_options({"projected_pooled": True, "execution_device": device})
    on_device = getattr(management, "cuda_device_context", nullcontext)  # newer hosts have it
    try:
        with on_device(device):
            return encoder.encode_token_weights(tokens_of(clip, text)[name])[1]
    finally:
        clip.cond_stage_model.reset_clip_options()
