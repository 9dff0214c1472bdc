"""What the command leaves beside the identities: a table, and one page with pictures and curves."""

__all__ = ["Row", "rows_of", "write_report"]

import base64
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from io import BytesIO, StringIO
from itertools import chain

from PIL import Image, ImageOps

from ....sefi_core.errors import PictureError
from ....sefi_core.identity.container import write_whole
from .people import Person
from .photos import opened
from .shelf import Shelf, cover_in, curve_in

WIDTH, HEIGHT, SIDE = 200, 60, 128  # of a curve and of a picture, in pixels
STYLE = """body{font:14px/1.4 system-ui,sans-serif;margin:24px;color:#222;background:#fafaf8}
.warn{padding:8px 12px;background:#fff3cd;border:1px solid #e0c060;border-radius:6px}
.people{display:grid;grid-template-columns:repeat(auto-fill,minmax(280px,1fr));gap:14px}
.person{padding:10px;background:#fff;border:1px solid #ddd;border-radius:8px}
.person img{width:128px;height:128px;object-fit:cover;margin-right:4px;background:#eee}
.failed{border-color:#c33}h2{margin:0 0 6px;font-size:15px}path{fill:none;stroke:#36c}
p{margin:4px 0;overflow-wrap:anywhere}"""
WARNING = (
    "This page holds pictures of people's faces, those they were learned from and generated ones. "
    "Give it to nobody who may not see them, and delete it with the identities."
)


@dataclass(frozen=True)
class Row:
    """What became of a person: "trained", "was there", "failed" or "not begun"."""

    name: str
    state: str
    steps: int | str = ""
    denoising: float | str = ""
    attention: float | str = ""
    file: str = ""
    note: str = ""


def rows_of(
    people: Sequence[Person],
    shelf: Shelf,
    before: set[str],
    faults: Mapping[str, str],
    keys: Mapping[str, str],
) -> list[Row]:
    """Returns everybody's row.

    Arguments:
        before: Whose files were there when the run began.
        faults: Why others have none, by name.
        keys: What their files are to be made from; others are of an earlier run.
    """

    def row(name: str) -> Row:
        if name in faults:
            return Row(name, "failed", note=faults[name])
        if not shelf.holds(name, keys[name]):
            return Row(name, "not begun")
        training = json.loads(shelf.metadata(name)["sefi.training"])
        told = [training[part] for part in ("steps", "denoising", "attention")]
        return Row(name, "was there" if name in before else "trained", *told, f"{name}.safetensors")

    return [row(person.name) for person in people]


def write_report(rows: Sequence[Row], people: Sequence[Person], shelf: Shelf, summary: str) -> None:
    """Writes report.csv and report.html beside the identities, each whole or not at all."""
    table = StringIO(newline="")
    writer = csv.DictWriter(table, [field.name for field in fields(Row)])
    writer.writeheader()
    writer.writerows({name: plain(v) for name, v in asdict(row).items()} for row in rows)
    write_whole(shelf.folder / "report.csv", [table.getvalue().encode()])
    cards = (
        card(row, person, shelf.metadata(row.name))
        for row, person in zip(rows, people, strict=True)
    )
    head = f"<!doctype html><meta charset=utf-8><title>Cast</title><style>{STYLE}</style>"
    top = f"<h1>Cast</h1><p class=warn>{WARNING}</p><p>{escape(summary)}</p><div class=people>"
    parts = chain([head, top], cards, ["</div>\n"])
    write_whole(shelf.folder / "report.html", (part.encode() for part in parts))


def plain(value: object) -> object:
    """Returns a value that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def card(row: Row, person: Person, metadata: dict[str, str]) -> str:
    """Returns a person's part of the page."""
    learned_from = thumbnail(person)
    pictures = [picture for picture in (learned_from, cover_in(metadata)) if picture]
    images = "".join(
        f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
        for data in pictures
    )
    losses = f"denoising {row.denoising}, attention {row.attention}" if row.file else row.note
    return (
        f'<div class="person {row.state.replace(" ", "-")}"><h2>{escape(row.name)}: '
        f"{escape(row.state)}</h2>{images}{curve(curve_in(metadata)) if row.file else ''}"
        f"<p>{escape(str(losses))}</p></div>\n"
    )


def curve(points: Sequence[Sequence[float]]) -> str:
    """Returns the denoising loss as a line, in SVG; nothing for what is no curve."""
    try:
        steps, losses = [float(p[0]) for p in points], [float(p[1]) for p in points]
    except (TypeError, ValueError, IndexError):
        return ""
    if not losses or not max(losses) > 0:
        return ""
    places = [
        f"{WIDTH * step / steps[-1]:.1f} {HEIGHT * (1 - loss / max(losses)):.1f}"
        for step, loss in zip(steps, losses, strict=True)
    ]
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg {size}><path d="M{"L".join(places)}"/></svg>'


def thumbnail(person: Person) -> bytes:
    """Returns a small JPEG of the first picture a person is learned from; b"" if there is none."""
    if not person.shots:
        return b""
    try:
        picture = ImageOps.fit(opened(person.shots[0].picture).convert("RGB"), (SIDE, SIDE))
    except (PictureError, OSError, ValueError, Image.DecompressionBombError):
        return b""
    data = BytesIO()
    picture.save(data, "JPEG", quality=85)
    return data.getvalue()
