"""A recording as pictures and numbers: Draw SeFi Attention Map."""

__all__ = ["draw_attention"]

import math

import torch
from comfy.sd import CLIP
from torch import Tensor

from ...sefi_core.errors import PictureError, SettingsError
from ...sefi_core.heatmap import AttentionRecord, contrasted, overlay, placed, share_inside
from ...sefi_core.identity import Identity
from .attention import Recording
from .drawing import grid, labelled
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
    mean, stages = record.mean(), record.stages()
    overlays, heats, sheets, shares, lines = [], [], [], [], []
    for i, picture in enumerate(pictures):
        rows = []
        for word, found in columns.items():
            maps = torch.stack([mean[i, found].sum(0), *stages[i][:, found].sum(1)])
            whole = placed(maps, record.box, *picture.shape[:2])  # (1 + S, h, w)
            heat = contrasted(whole[0])
            heats.append(heat)
            shown = [overlay(picture, h, opacity) for h in (heat, *contrasted(whole[1:]))]
            overlays.append(labelled(shown[0], word))
            rows.append((word, shown))
            shares.append(math.nan if inside is None else float(share_inside(whole[0], inside)))
            lines.append((i + 1, word, shares[-1], maps.mean(dim=(1, 2)).tolist()))
        sheets.append(grid(rows, ["all stages", *stage_names(record)], CELL))
    first = shares[:: len(columns)]
    return (
        torch.stack(overlays),
        torch.cat(sheets),
        torch.stack(heats),
        sum(first) / len(first),
        report(lines, record, inside),
    )


def checked_pictures(image: Tensor, record: AttentionRecord) -> Tensor:
    """Returns as many colour pictures as were sampled, (B, h, w, 3)."""
    if image.ndim != 4 or image.shape[-1] not in (3, 4) or len(image) != len(record.sums):
        raise PictureError(
            f"image: it has shape {list(image.shape)}, the latent in samples holds "
            f"{len(record.sums)} picture(s); connect the pictures that were decoded from it."
        )
    return image[..., :3].float().cpu().clamp(0.0, 1.0)


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
    """Returns a head for each stage; one that was not sampled says so."""
    edges = zip(record.edges, record.edges[1:], strict=False)
    return [
        f"stage {i + 1}: t {high - 1}..{low}" + ("" if count else ", not sampled")
        for i, ((high, low), count) in enumerate(zip(edges, record.counts.tolist(), strict=True))
    ]


def report(lines: list[tuple], record: AttentionRecord, inside: Tensor | None) -> str:
    """Returns a Markdown table: how much of all attention each word draws, in per cent."""
    heads = ["picture", "word", "inside the mask", "of all attention", *stage_names(record)]
    rows = [
        [str(number), word, "no mask" if math.isnan(share) else f"{share:.1%}"]
        + [f"{value:.2%}" for value in values]
        for number, word, share, values in lines
    ]
    table = "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads), *rows])
    if inside is None:
        return table
    return (
        f"{table}\n\nThe mask covers {float(inside.mean()):.1%} of the picture: what chance gives."
    )
