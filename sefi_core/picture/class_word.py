"""What the frozen model makes of a picture by the class word alone, without gradients."""

__all__ = ["ask_class_word", "loss_of_class_word"]

from collections.abc import Iterator

import torch
from torch import Tensor

from ..devices import sent
from ..losses import denoising_loss
from ..protocols import Backbone, Prediction, TextEncoder
from ..samples import Probe

# Of latents, at once: four samples of 512 pixels, which take less memory than a step of one.
AREA = 4 * 64 * 64


@torch.no_grad()
def ask_class_word(
    backbone: Backbone, encoder: TextEncoder, probe: Probe, with_maps: bool
) -> Iterator[tuple[Prediction, Tensor]]:
    """Yields the reference prompt's predictions of the probe's samples, and these' masks."""
    device = probe.latents.device
    word = {name: token.expand(1, 1, -1) for name, token in encoder.class_tokens.items()}
    context = encoder.encode(word).to(device)
    at_once = max(1, AREA // probe.latents[0, 0].numel())
    for latents, masks, noise, timesteps in probe.batches(at_once):
        contexts = context.expand(len(latents), -1, -1)
        times = sent(backbone.nearest(timesteps), device)
        noise = sent(noise, device).to(latents)
        yield backbone.predict(latents, noise, times, contexts, contexts, with_maps), masks


def loss_of_class_word(backbone: Backbone, encoder: TextEncoder, probe: Probe) -> Tensor:
    """Returns L_KV, a scalar, of the reference prompt on the probe, within its masks."""
    asked = ask_class_word(backbone, encoder, probe, with_maps=False)
    losses = [denoising_loss(found, masks) * len(masks) for found, masks in asked]
    return torch.stack(losses).sum() / len(probe.timesteps)
