"""What is learned of a picture: its subject alone, in the frame in which the model expects it.

The model is asked without gradients, for 260 samples of one picture.
"""

__all__ = ["prepared"]

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from torch import Tensor
from torch.nn import functional as F

from ....sefi_core.picture.alignment import LOW, TRIALS, Frame, expected_frame, in_frame
from ....sefi_core.picture.class_word import loss_of_class_word
from ....sefi_core.picture.subject_mask import find_subject
from ....sefi_core.samples import LatentPool, spread_samples
from ....sefi_core.training.config import TrainingConfig
from ..text.encoder import HostTextEncoder
from .session import Loaded

SAMPLES, LEAST_SAMPLES = 20, 5  # of a trial of a single picture; of several, which share them


@torch.no_grad()
def prepared(
    host: Loaded, encoder: HostTextEncoder, pictures: Tensor, masks: Tensor, config: TrainingConfig
) -> tuple[Tensor, Tensor]:
    """Returns pictures (B, 3, R, R) and masks (B, 1, R, R) as the settings ask for them."""
    if config.framing:
        frames = expected_frames(host, encoder, pictures, masks, config)
        pictures, masks = moved(pictures, masks, frames)
    if config.find_subject:
        pool = host.encode(pictures, masks)
        backbone = host.backbone(encoder, pool.latents)
        found = [find_subject(backbone, encoder, one[None], config.seed) for one in pool.latents]
        masks = F.interpolate(torch.cat(found).to(masks), size=masks.shape[-2:])
    return pictures, masks


def expected_frames(
    host: Loaded, encoder: HostTextEncoder, pictures: Tensor, masks: Tensor, config: TrainingConfig
) -> list[Frame]:
    """Returns the frame of each picture in which the class word expects it."""
    count = max(LEAST_SAMPLES, SAMPLES // len(pictures))
    trials = [moved(pictures, masks, [frame] * len(pictures)) for frame in TRIALS]
    views, view_masks = (torch.cat(planes) for planes in zip(*trials, strict=True))
    pool = host.encode(views, view_masks)
    backbone = host.backbone(encoder, pool.latents)
    losses = []
    for view in zip(pool.latents.split(1), pool.masks.split(1), strict=True):
        throw_exception_if_processing_interrupted()
        probe = spread_samples(LatentPool(*view), count, LOW, config.seed)
        losses.append(float(loss_of_class_word(backbone, encoder, probe)))
    return [expected_frame(losses[i :: len(pictures)]) for i in range(len(pictures))]


def moved(pictures: Tensor, masks: Tensor, frames: list[Frame]) -> tuple[Tensor, Tensor]:
    """Returns each picture and its mask in its frame; nothing from outside is of the subject."""
    each = list(zip(pictures.split(1), masks.split(1), frames, strict=True))
    return (
        torch.cat([in_frame(picture, frame) for picture, _, frame in each]),
        torch.cat([in_frame(mask, frame, "zeros") for _, mask, frame in each]),
    )
