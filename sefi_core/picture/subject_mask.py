"""Where the frozen model sees the subject of a picture that comes without a mask.

The maps of Fig. 1, of the reference prompt: the attention to the class word and to the prompt's
end, which sums it up. What is not the subject is then not learned as if it were.
"""

__all__ = ["LOW", "find_subject"]

from collections.abc import Iterator

import torch
from torch import Tensor

from ..maps import MAP_SIDE, resize_maps
from ..predict import class_word_source, predict
from ..protocols import Backbone, Prediction, TextEncoder
from ..samples import LatentPool, Samples, spread_samples

LOOKS = 20
LOW = 400  # of Stable Diffusion at 512 pixels: below, a map follows edges rather than meanings
CONTRAST = 1.2  # times as much attention within as without, or there is nothing to tell apart
LEAST = 0.05  # of the picture: what is smaller is a peak of the attention rather than a subject


@torch.no_grad()
def find_subject(
    backbone: Backbone, encoder: TextEncoder, latent: Tensor, seed: int, low: int = LOW
) -> Tensor:
    """Returns the mask (1, 1, 32, 32) of a latent (1, c, h, w), ones and zeros on the CPU; all
    ones where the model sees it everywhere alike, or next to nowhere.

    Arguments:
        low: The timestep from which on the model is asked.
    """
    columns = subject_columns(encoder).to(latent.device)
    heat = latent.new_zeros(1, 1, MAP_SIDE, MAP_SIDE)
    looks = spread_samples(LatentPool(latent, torch.ones_like(latent[:, :1])), LOOKS, low, seed)
    for found in seen_by_class_word(backbone, encoder, looks):
        for (_, maps), side in zip(found.maps, found.sides, strict=True):
            both = maps[..., columns].sum(dim=-1, keepdim=True)
            heat += resize_maps(both, *side).mean(dim=1).sum(dim=0)
    mask = above(heat.cpu())  # not every device has float64
    return mask if mask.mean() >= LEAST else torch.ones_like(mask)


def seen_by_class_word(
    backbone: Backbone, encoder: TextEncoder, samples: Samples
) -> Iterator[Prediction]:
    """Yields the reference prompt's predictions of samples, with maps."""
    source = [class_word_source(encoder)]
    for part in samples.asked_at_once():
        yield predict(backbone, source, part, torch.zeros(len(part), dtype=torch.long), True)


def subject_columns(encoder: TextEncoder) -> Tensor:
    """Returns the indices of the class word's column and of the one behind it, where the training
    prompt ends.
    """
    (slot,) = encoder.token_mask("placeholder only").nonzero(as_tuple=True)
    return torch.cat([slot, slot[-1:] + 1])


def above(heat: Tensor) -> Tensor:
    """Returns ones where heat, of any shape, on the CPU, is above Otsu's threshold, which parts it
    into the two most unlike halves; all ones where these differ little, or it is no number.
    """
    ordered = heat.double().flatten().sort().values
    count = torch.arange(1, len(ordered), dtype=torch.float64)
    below = ordered.cumsum(0)[:-1] / count
    beyond = (ordered.sum() - ordered.cumsum(0)[:-1]) / (len(ordered) - count)
    between = count * (len(ordered) - count) * (beyond - below).square()
    at = int(between.argmax())
    if not bool(beyond[at] > CONTRAST * below[at]):  # also of what is no number
        return torch.ones_like(heat)
    return (heat > (ordered[at] + ordered[at + 1]) / 2).to(heat)
