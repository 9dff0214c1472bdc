"""What the frozen model makes of a picture by the class word alone, without gradients."""

__all__ = ["ask_class_word", "loss_of_class_word"]

from collections.abc import Iterator

import torch
from torch import Tensor

from ..losses import denoising_loss
from ..predict import class_word_source, predict
from ..protocols import Backbone, Prediction, TextEncoder
from ..samples import Samples

# Of latents, at once: four samples of 512 pixels, which take less memory than a step of one.
AREA = 4 * 64 * 64


@torch.no_grad()
def ask_class_word(
    backbone: Backbone, encoder: TextEncoder, samples: Samples, with_maps: bool
) -> Iterator[tuple[Prediction, Tensor]]:
    """Yields the reference prompt's predictions of samples, and these' masks (b, 1, h, w)."""
    source = [class_word_source(encoder)]
    at_once = max(1, AREA // samples.latents[0, 0].numel())
    for part in samples.split(at_once):
        rows = torch.zeros(len(part), dtype=torch.long)
        yield predict(backbone, source, part, rows, with_maps), part.masks


def loss_of_class_word(backbone: Backbone, encoder: TextEncoder, samples: Samples) -> Tensor:
    """Returns L_KV, a scalar, of the reference prompt on samples, within their masks."""
    asked = ask_class_word(backbone, encoder, samples, with_maps=False)
    losses = [denoising_loss(found, masks) * len(masks) for found, masks in asked]
    return torch.stack(losses).sum() / len(samples)
