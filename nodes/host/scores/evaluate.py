"""Evaluate SeFi ID: what can be measured with what is there, as numbers, a text and a picture."""

__all__ = ["evaluate", "require_recogniser"]

import math

import torch
from comfy.clip_vision import ClipVisionModel
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.sd import CLIP
from torch import Tensor

from ....sefi_core.analysis.evaluation import (
    Scores,
    gradient_likeness,
    near_copies,
    summarise,
)
from ....sefi_core.errors import PictureError, SettingsError, one_line
from ....sefi_core.identity.identity import Identity
from ..images import as_colour, stored_samples
from ..maps.words import without_placeholders
from .faces import RECOGNISERS, Face, Recogniser, recogniser
from .prompt_scores import LOW_PROMPT, prompt_scores
from .view import draw, picture_rows, report


def evaluate(
    images: Tensor,
    reference: Tensor,
    text: str,
    face_images: Tensor | None = None,
    clip_vision: ClipVisionModel | None = None,
    clip: CLIP | None = None,
    identity: Identity | None = None,
    threshold: float = 0.23,
    recogniser_choice: str = "auto",
    placeholder: str = "",
) -> tuple[Tensor, str, float, float, float, float, float, int]:
    """Returns the table picture, the report, ID, ID(F), Detect, Prompt, ID(P), and how many near
    copies there are. A measure that could not be taken is nan.

    Arguments are the inputs of the node.
    """
    require_recogniser(recogniser_choice)
    images, reference = as_colour("images", images), as_colour("reference", reference)
    reader, lack = recogniser(recogniser_choice)
    notes = [lack or f"Faces: {reader.name}."]
    references = read_references(reader, reference)
    cosines, highest, likeness = compare(images, reference, reader, references)
    face_cosines = None
    if face_images is not None and reader is not None:
        faces = as_colour("face_images", face_images)
        face_cosines, *_ = compare(faces, reference, reader, references)
    text = without_placeholders(text, identity, placeholder)
    prompts = prompts_or_note(images, clip_vision, clip, text, threshold, notes)
    copies = copies_or_note(highest, likeness, notes)
    summary = summarise(Scores(cosines, prompts), Scores(face_cosines), threshold)
    rows = picture_rows(cosines, prompts, copies, threshold)
    title = f'Prompt: "{text}"'
    return (
        draw(title, summary, rows, notes, images, reference),
        report(title, summary, rows, notes),
        *(summary[name].value for name in ("ID", "ID(F)", "Detect", "Prompt", "ID(P)")),
        int(copies.sum()),
    )


def copies_or_note(highest: Tensor | None, likeness: Tensor, notes: list[str]) -> Tensor:
    """Returns which pictures are near copies, (n,); a note says how many, if there are any."""
    copies = near_copies(highest, likeness)
    if copies.any():
        notes.append(
            f"Near copies of the reference: {int(copies.sum())} of {len(copies)} pictures. A high "
            "ID of such a picture says little."
        )
    return copies


def read_references(reader: Recogniser | None, reference: Tensor) -> list[Face]:
    """Returns the face of every reference picture; raises PictureError where there is none."""
    if reader is None:
        return []
    faces = [reader.read(picture) for picture in stored_samples(reference).numpy()]
    if None in faces:
        raise PictureError(
            f"reference: no face was found in picture {faces.index(None) + 1} of {len(faces)}; "
            "connect a picture with one clear face, or set recogniser to none."
        )
    return faces


def compare(
    images: Tensor, reference: Tensor, reader: Recogniser | None, references: list[Face]
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Returns each picture's mean and highest cosine to the references, nan without a face, None
    without a recogniser; and its highest gradient likeness, of aligned faces or whole pictures.
    """
    embeddings = torch.stack([face.embedding for face in references]) if references else None
    crops = [face.crop for face in references]
    wholes = list(reference.movedim(-1, 1))
    mean = torch.full((len(images),), math.nan, dtype=torch.float64)
    highest, likeness = mean.clone(), torch.zeros(len(images), dtype=torch.float64)
    for i, picture in enumerate(images):
        throw_exception_if_processing_interrupted()
        pairs = [(picture.movedim(-1, 0), whole) for whole in wholes]
        face = reader and reader.read(stored_samples(picture[None])[0].numpy())
        if face:
            each = torch.cosine_similarity(face.embedding[None], embeddings)
            mean[i], highest[i] = each.mean(), each.max()
            pairs += [(face.crop, crop) for crop in crops]
        likeness[i] = max(gradient_likeness(a, b) for a, b in pairs)
    return (mean, highest, likeness) if reader else (None, None, likeness)


def prompts_or_note(
    images: Tensor,
    clip_vision: ClipVisionModel | None,
    clip: CLIP | None,
    text: str,
    threshold: float,
    notes: list[str],
) -> Tensor | None:
    """Returns each picture's Prompt score; without the models to measure it, None and a note."""
    if clip_vision is None or clip is None:
        notes.append("Prompt was not measured: connect clip_vision and clip, of one CLIP model.")
        return None
    prompts = prompt_scores(images, clip_vision, clip, text)
    if prompts.mean() < LOW_PROMPT:
        notes.append(
            f"Prompt is only {float(prompts.mean()):.3f}: CLIP Vision and CLIP may not belong "
            "together, or the CLIP has no text projection (checkpoints of SD 1.x have none)."
        )
    notes.append(f"ID(P) counts pictures whose Prompt is {threshold:g} or more.")
    return prompts


def require_recogniser(choice: str) -> None:
    """Raises SettingsError for a recogniser that there is not."""
    if choice not in ("auto", "none", *RECOGNISERS):
        raise SettingsError(
            f'recogniser: "{one_line(str(choice))}" is unknown; choose auto, '
            f"{', '.join(RECOGNISERS)} or none."
        )
