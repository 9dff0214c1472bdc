"""A recording as pictures and numbers: Draw SeFi Attention Map."""

__all__ = ["draw_attention"]

import math
from dataclasses import dataclass

import torch
from comfy.sd import CLIP
from torch import Tensor

from ....sefi_core.analysis.heatmap import (
    AttentionRecord,
    contrasted,
    overlay,
    placed,
    share_inside,
)
from ....sefi_core.errors import PictureError, SettingsError
from ....sefi_core.identity.identity import Identity
from ..drawing import grid, labelled
from ..images import as_colour
from .recording import Recording
from .words import split_words, word_columns

CELL = 224  # pixels


def draw_attention(
    recording: Recording,
    samples: dict,
    image: Tensor,
    clip: CLIP,
    text: str,
    words: str,
    identity: Identity | None = None,
    mask: Tensor | None = None,
    opacity: float = 0.6,
    prompt_number: int = 1,
    placeholder: str = "",
) -> tuple[Tensor, Tensor, Tensor, float, str]:
    """Returns overlays (B * W, h, w, 3), a sheet by stage (B, ...), heat (B * W, h, w), the share
    of the first word inside the mask (nan without one) and a report in Markdown.

    Arguments are the inputs of the node; B pictures, W words.
    """
    record = recording.prompt(samples["samples"], prompt_number)
    pictures = checked_pictures(image, record)
    inside = checked_mask(mask, pictures)
    columns = word_columns(clip, text, split_words(words), identity, placeholder)
    if max(max(found) for found in columns.values()) >= record.tokens:
        raise SettingsError(
            f"text: it is longer than the prompt that was sampled ({record.tokens} tokens); "
            "connect the text of that prompt."
        )
    drawn = [
        [drawn_word(record, i, *word, picture, inside, opacity) for word in columns.items()]
        for i, picture in enumerate(pictures)
    ]
    heads = ["all stages", *stage_names(record)]
    every = [one for row in drawn for one in row]
    return (
        torch.stack([labelled(one.panels[0], one.word) for one in every]),
        torch.cat([grid([(one.word, one.panels) for one in row], heads, CELL) for row in drawn]),
        torch.stack([one.heat for one in every]),
        sum(row[0].share for row in drawn) / len(drawn),
        report([(i + 1, one) for i, row in enumerate(drawn) for one in row], record, inside),
    )


@dataclass(frozen=True, eq=False)
class DrawnWord:
    """A word's heat (h, w) over a picture, its panels (h, w, 3) on the whole and by stage, its
    share inside the mask (nan without one), and how much of all attention it draws, likewise.
    """

    word: str
    heat: Tensor
    panels: list[Tensor]
    share: float
    drawn: list[float]


def drawn_word(
    record: AttentionRecord,
    number: int,
    word: str,
    columns: list[int],
    picture: Tensor,
    inside: Tensor | None,
    opacity: float,
) -> DrawnWord:
    """Draws a word, which stands in `columns` of the prompt, over the `number`th picture."""
    mean = record.mean()[number, columns].sum(0)  # (32, 32)
    stages = record.stages()[number][:, columns].sum(1)  # (S, 32, 32)
    heat, whole = (placed(x, record.box, *picture.shape[:2]) for x in (contrasted(mean), mean))
    panels = [overlay(picture, heat, opacity), *by_stage(picture, stages, record, opacity)]
    share = math.nan if inside is None else float(share_inside(whole, inside))
    drawn = [float(mean.mean()), *stages.mean(dim=(1, 2)).tolist()]
    return DrawnWord(word, heat, panels, share, drawn)


def by_stage(
    picture: Tensor, maps: Tensor, record: AttentionRecord, opacity: float
) -> list[Tensor]:
    """Returns a picture (h, w, 3) under one word's maps (S, 32, 32), which share their colours; a
    stage that was not sampled says so.
    """
    sampled = record.counts > 0
    heat = torch.zeros_like(maps)
    heat[sampled] = contrasted(maps[sampled])
    return [
        overlay(picture, one, opacity) if known else labelled(0.5 * picture, "not sampled")
        for one, known in zip(placed(heat, record.box, *picture.shape[:2]), sampled, strict=True)
    ]


def checked_pictures(image: Tensor, record: AttentionRecord) -> Tensor:
    """Returns as many colour pictures as were sampled, (B, h, w, 3)."""
    pictures = as_colour("image", image)
    if len(pictures) != len(record.sums):
        raise PictureError(
            f"image: {len(pictures)} picture(s) came, the latent in samples holds "
            f"{len(record.sums)}; connect the pictures that were decoded from it."
        )
    return pictures


def checked_mask(mask: Tensor | None, pictures: Tensor) -> Tensor | None:
    """Returns one mask (h, w) of the pictures' size."""
    if mask is None:
        return None
    found = mask.reshape(-1, *mask.shape[-2:])
    if len(found) != 1 or found.shape[-2:] != pictures.shape[1:3]:
        raise PictureError(
            f"mask: there are {len(found)} of {found.shape[-1]} x {found.shape[-2]} pixels, the "
            f"pictures have {pictures.shape[2]} x {pictures.shape[1]}; connect one mask of that "
            "size, or none."
        )
    return found[0].float().cpu().clamp(0.0, 1.0)


def stage_names(record: AttentionRecord) -> list[str]:
    edges = zip(record.edges, record.edges[1:], strict=False)
    return [f"stage {i + 1}: t {high - 1}..{low}" for i, (high, low) in enumerate(edges)]


def report(
    lines: list[tuple[int, DrawnWord]], record: AttentionRecord, inside: Tensor | None
) -> str:
    """Returns a Markdown table: how much of all attention each word draws, in per cent."""
    heads = ["picture", "word", "inside the mask", "of all attention", *stage_names(record)]
    sampled = [True, *(count > 0 for count in record.counts.tolist())]
    rows = [
        [str(number), one.word, "no mask" if math.isnan(one.share) else f"{one.share:.1%}"]
        + [f"{v:.2%}" if k else "not sampled" for v, k in zip(one.drawn, sampled, strict=True)]
        for number, one in lines
    ]
    table = "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads), *rows])
    if inside is None:
        return table
    return (
        f"{table}\n\nThe mask covers {float(inside.mean()):.1%} of the picture: what chance gives."
    )
