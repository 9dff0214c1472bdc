"""What the demo in the miniature world shows: the contact sheet, attention maps, the judge's table.

All of it is made in this process, on the CPU, from the pictures that the server sampled and the
identities that it saved.
"""
# ruff: noqa: I001 - the pack can be imported after `benchmarks.methods` only

__all__ = ["attention_picture", "sheet", "table"]

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from benchmarks.methods import World
from benchmarks.world.judge import Judge, identity, load_judge
from benchmarks.world.native import PROMPTS
from benchmarks.world.subjects import Subject, code
from sefi_pack.nodes.host.train.backbone import HostBackbone
from sefi_pack.nodes.host.train.borrowing import trainable
from sefi_pack.nodes.host.text.encoder import HostTextEncoder
from sefi_pack.sefi_core.identity.identity import Identity
from sefi_pack.sefi_core.maps import resize_maps
from sefi_pack.sefi_core.predict import Source, predict
from sefi_pack.sefi_core.samples import LatentPool, spread_samples
from sefi_pack.sefi_core.stages import stage_of

SCALE, ZOOM = 2, 4  # of pictures on the sheet and under the attention
GAP, TOP, LABELS = 6, 64, 290
INK, FONT, BOLD = "black", ImageFont.load_default(13), ImageFont.load_default(16)
TITLE = "A toy world: 64 x 64 cartoons by a small model. Rows: prompts. Columns: who is meant."
ATTENTION_TITLE = (
    "A toy world: share of the cross-attention that goes to V*, mean of all heads, layers and "
    "noise levels. Blue: the least in a panel, yellow: the most."
)


def sheet(pictures: dict[str, Tensor], reference: Tensor, path: Path) -> None:
    """Writes prompts as rows and columns of pictures (prompts, n, H, W, 3), the first of each n;
    the reference (1, H, W, 3) once at the left.
    """
    cell = SCALE * reference.shape[1] + GAP
    left = cell + LABELS
    page = Image.new("RGB", (left + cell * len(pictures), TOP + cell * len(PROMPTS)), "white")
    pen = ImageDraw.Draw(page)
    pen.text((GAP, GAP), TITLE, INK, BOLD)
    pen.text((GAP, TOP - 24), "the one picture", INK, FONT)
    page.paste(enlarged(reference[0]), (GAP, TOP))
    for row, (prompt, _) in enumerate(PROMPTS):
        pen.text((cell + 3 * GAP, TOP + row * cell + cell // 2 - 8), prompt.format("V*"), INK, FONT)
    for column, (label, rows) in enumerate(pictures.items()):
        pen.text((left + column * cell, TOP - 24), label, INK, FONT)
        for row, picture in enumerate(rows[:, 0]):
            page.paste(enlarged(picture), (left + column * cell, TOP + row * cell))
    page.save(path, optimize=True)


def enlarged(picture: Tensor, scale: int = SCALE) -> Image.Image:
    """Returns a picture (H, W, 3) in [0, 1], larger."""
    image = Image.fromarray(picture.mul(255.0).round().byte().numpy())
    return image.resize((scale * image.width, scale * image.height), Image.Resampling.LANCZOS)


@torch.no_grad()
def table(pictures: dict[str, Tensor], reference: Tensor, subject: Subject, steps: int) -> str:
    """Returns the judge's scores of every column in Markdown."""
    judge = load_judge()
    own, _, _ = scores(judge, reference, subject, ())
    lines = [
        f"A toy world: a small model that draws 64 x 64 cartoons. The subject, a {subject.kind}, "
        f"was trained on one drawing for {steps} steps; the miniature never saw any other.",
        "",
        "| who is meant | ID | Prompt | Detect |",
        "| --- | --- | --- | --- |",
        f"| the one picture itself | {own:.2f} | | |",
    ]
    for label, rows in pictures.items():
        told = [
            scores(judge, row, subject, words)
            for row, (_, words) in zip(rows, PROMPTS, strict=True)
        ]
        likeness, detect = (sum(t[i] for t in told) / len(told) for i in (0, 2))
        follow = [t[1] for t in told if t[1] is not None]
        lines.append(
            f"| {label} | {likeness:.2f} | {sum(follow) / len(follow):.2f} | {detect:.2f} |"
        )
    count = sum(len(row) for row in next(iter(pictures.values())))
    return "\n".join([
        *lines,
        "",
        f"Means over {len(PROMPTS)} prompts, {count} pictures a row, by a judge that never saw a "
        "sample. ID: cosine of the traits seen with the true ones, 0 where nobody is found. "
        "Prompt: probability of what the prompt asks for. Detect: how often somebody is found. "
        "One subject and few pictures: differences of a few hundredths mean nothing.",
        "",
    ])  # fmt: skip


def scores(
    judge: Judge, pictures: Tensor, subject: Subject, words: tuple[str, ...]
) -> tuple[float, float | None, float]:
    """Returns ID, Prompt and Detect of pictures (n, H, W, 3) of one prompt's words."""
    verdict = judge.look(pictures)
    detect = (verdict.found.argmax(dim=-1) < verdict.found.shape[-1] - 1).float()  # "nobody" last
    truth = torch.from_numpy(code(subject)).expand(len(pictures), -1)
    likeness = identity(verdict.codes[subject.kind], truth) * detect
    said = [verdict.probability(word) for word in words]
    follow = torch.stack(said).mean().item() if said else None
    return likeness.mean().item(), follow, detect.mean().item()


def attention_picture(
    world: World, learned: dict[str, Identity], reference: Tensor, path: Path
) -> None:
    """Writes the attention to the placeholder over the picture, before and after trainings."""
    maps = attention_maps(world, learned, reference)
    picture = enlarged(reference[0], ZOOM)
    grey, cell = picture.convert("L").convert("RGB"), picture.width + GAP
    page = Image.new("RGB", (GAP + cell * (1 + len(maps)), TOP + cell + 30), "white")
    pen = ImageDraw.Draw(page)
    pen.text((GAP, GAP), ATTENTION_TITLE, INK, BOLD)
    panels = {"the one picture": (picture, "")}
    for label, seen in maps.items():
        least, most = seen.min(), seen.max()
        shades = ((seen - least) / (most - least).clamp(min=1e-9)).mul(255.0).byte().numpy()
        heat = ImageOps.colorize(Image.fromarray(shades), "midnightblue", "yellow", "orangered")
        heat = heat.resize(picture.size, Image.Resampling.BILINEAR)
        note = f"{least:.2%} to {most:.2%}, mean {seen.mean():.2%}"
        panels[label] = Image.blend(grey, heat, 0.65), note
    for i, (label, (panel, note)) in enumerate(panels.items()):
        pen.text((GAP + i * cell, TOP - 24), label, INK, FONT)
        page.paste(panel, (GAP + i * cell, TOP))
        pen.text((GAP + i * cell, TOP + cell), note, INK, FONT)
    page.save(path, optimize=True)


def attention_maps(
    world: World, learned: dict[str, Identity], reference: Tensor
) -> dict[str, Tensor]:
    """Returns by label how much each place of the picture (32, 32) attends to the placeholder.

    Before training the placeholder is the class word.
    """
    with trainable(world.model, world.clip.patcher, torch.float32) as (model, _), torch.no_grad():
        encoder = HostTextEncoder(world.clip, "person")
        latent = model.model.process_latent_in(world.vae.encode(reference)).clone()
        backbone = HostBackbone(model, encoder.reference(), latent, torch.float32)
        samples = spread_samples(LatentPool(latent, torch.ones_like(latent[:, :1])), 10, 0, seed=0)
        found = {}
        for label, one in learned.items():
            rows = stage_of(samples.timesteps, one.edges)
            source = [Source(encoder, one.pairs)]
            prediction = predict(backbone, source, samples, rows, with_maps=True)
            for which, name in ((0, "before: the class word"), (1, f"after: {label}")):
                layers = [
                    resize_maps(maps[which], *sides)[:, :, encoder.prompts[0].slots["clip_l"]].mean(
                        (0, 1, 2)
                    )
                    for maps, sides in zip(prediction.maps, prediction.sides, strict=True)
                ]
                found[name] = torch.stack(layers).mean(dim=0)
    return found
