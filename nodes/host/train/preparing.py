"""What is learned of a picture: its subject alone."""

__all__ = ["subject_masks"]

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from torch import Tensor
from torch.nn import functional as F

from ....sefi_core.picture.subject_mask import LOW, find_subject
from ....sefi_core.training.config import TrainingConfig
from ..noise_levels import alike_timestep
from ..text.encoder import HostTextEncoder
from .loaded import Loaded


@torch.no_grad()
def subject_masks(
    host: Loaded, encoder: HostTextEncoder, pictures: Tensor, masks: Tensor, config: TrainingConfig
) -> Tensor:
    """Returns where the model sees the class word in pictures (B, 3, R, R), as masks (B, 1, R, R)
    in place of those that come with them; with a bar, and stopped when the artist stops.
    """
    pool = host.encode(pictures, masks)
    backbone = host.backbone(encoder, pool.latents)
    low = alike_timestep(backbone.sampling, LOW, pool.latents.shape[-1])
    # None for a single one: no flash before the steps' own.
    bar = ProgressBar(len(pictures)) if len(pictures) > 1 else None
    found = torch.empty_like(masks)
    for i, latent in enumerate(pool.latents.split(1)):
        throw_exception_if_processing_interrupted()
        one = find_subject(backbone, encoder, latent, config.seed, low).to(masks)
        found[i] = F.interpolate(one, size=masks.shape[-2:])[0]
        if bar is not None:
            bar.update(1)
    return found
