"""Scores of generated pictures (Sec. V): tables of numbers in, a summary out; and what a near copy
is.

ID        mean cosine between the faces of picture and reference; a picture without a face counts 0
Detect    share of pictures with a face
Prompt    mean cosine between picture and prompt
ID(P)     ID with 0 for every picture whose Prompt is below the threshold
ID(F)     ID of pictures of the face prompt, "a photo of the face of V*"; Detect(F) likewise
"""

__all__ = [
    "NEAR_COSINE",
    "NEAR_GRADIENT",
    "Estimate",
    "Scores",
    "gradient_likeness",
    "mean_cosine",
    "near_copies",
    "summarise",
]

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

RESAMPLES = 2000
INTERVAL = (0.025, 0.975)
NEAR_COSINE = 0.9  # above it, faces of different photos of one person are not found
NEAR_GRADIENT = 0.75  # different photos reach about 0.5
GRADIENT_SIDE = 16  # pixels


@dataclass(frozen=True, eq=False)
class Scores:
    """What was measured in n pictures; None where there was nothing to measure with.

    Attributes:
        identity: Cosines (n,), nan where there is no face.
        prompt: Cosines (n,).
    """

    identity: Tensor | None = None
    prompt: Tensor | None = None


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` pictures with its 95 % interval; nan where it was not measured."""

    value: float
    low: float = math.nan
    high: float = math.nan
    count: int = 0


def summarise(scores: Scores, face: Scores, threshold: float) -> dict[str, Estimate]:
    """Returns all measures by name; `face` are the scores of the face prompt's pictures."""
    identity = detected = passed = face_identity = face_detected = None
    if scores.identity is not None:
        identity, detected = scores.identity.nan_to_num(0.0), ~scores.identity.isnan()
        if scores.prompt is not None:
            passed = identity * (scores.prompt >= threshold)
    if face.identity is not None:
        face_identity, face_detected = face.identity.nan_to_num(0.0), ~face.identity.isnan()
    return {
        "ID": estimate(identity),
        "ID(F)": estimate(face_identity),
        "Detect": estimate(detected),
        "Detect(F)": estimate(face_detected),
        "Prompt": estimate(scores.prompt),
        "ID(P)": estimate(passed),
    }


def estimate(values: Tensor | None) -> Estimate:
    """Returns the mean of (n,) and its bootstrap percentile interval over pictures, from a fixed
    seed; one picture has no interval.
    """
    if values is None or not len(values):
        return Estimate(math.nan)
    values = values.double().cpu()
    count = len(values)
    if count == 1:
        return Estimate(float(values[0]), count=1)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(count, (RESAMPLES, count), generator=generator)
    low, high = values[drawn].mean(dim=1).quantile(torch.tensor(INTERVAL, dtype=values.dtype))
    return Estimate(float(values.mean()), float(low), float(high), count)


def mean_cosine(embeddings: Tensor, references: Tensor) -> Tensor:
    """Returns for each embedding (n, E) the mean cosine to the references (m, E), (n,)."""
    return (F.normalize(embeddings, dim=-1) @ F.normalize(references, dim=-1).T).mean(dim=1)


def gradient_likeness(picture: Tensor, reference: Tensor) -> float:
    """Returns how alike two pictures (3, h, w) are as pictures: the correlation of their brightness
    gradients at 16 x 16 pixels, -1 to 1, with the reference as it is or mirrored.
    """
    mine, theirs, mirrored = map(gradients, (picture, reference, reference.flip(-1)))
    return float(torch.maximum(mine @ theirs, mine @ mirrored))


def gradients(picture: Tensor) -> Tensor:
    """Returns a unit vector of a picture's (3, h, w) differences to the right and downward."""
    grey = picture.double().mean(dim=0)[None, None]
    small = F.interpolate(grey, size=(GRADIENT_SIDE, GRADIENT_SIDE), mode="area")[0, 0]
    right, down = small.diff(dim=1)[:-1], small.diff(dim=0)[:, :-1]
    flat = torch.cat([right.flatten(), down.flatten()])
    return F.normalize(flat - flat.mean(), dim=0)


def near_copies(cosines: Tensor | None, likeness: Tensor) -> Tensor:
    """Returns which of n pictures are nearly a reference picture itself, (n,) bool.

    Arguments:
        cosines: Each face's highest cosine to a reference (n,), nan without a face.
        likeness: Each picture's (or aligned face's) highest gradient likeness to one, (n,).
    """
    alike = likeness >= NEAR_GRADIENT
    return alike if cosines is None else alike | (cosines.nan_to_num(0.0) >= NEAR_COSINE)
