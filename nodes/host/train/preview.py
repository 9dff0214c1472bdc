"""A picture with the identity so far."""

__all__ = ["sample_preview"]

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ....sefi_core.identity.identity import Identity
from ..apply.sampling import apply_identity
from ..images import stored_samples

PREVIEW_STEPS, PREVIEW_GUIDANCE = 14, 5.0


@torch.inference_mode()
def sample_preview(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    identity: Identity,
    text: str,
    latent: Tensor,
    seed: int,
) -> Tensor:
    """Samples a prompt with the identity so far; returns 8-bit pictures (1, H, W, 3).

    Arguments:
        latent: Any latent (1, c, h, w) of the wanted size.
    """
    patched, positive = apply_identity(model, clip, identity, text)
    negative = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
    devices = [model.load_device] if model.load_device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # the host's samplers seed the global one
        samples = comfy.sample.sample(
            patched, noise, PREVIEW_STEPS, PREVIEW_GUIDANCE, "euler", "normal", positive, negative,
            torch.zeros_like(noise), disable_pbar=True, seed=seed,
        )  # fmt: skip
    return stored_samples(vae.decode(samples))
