"""What pictures.py takes its pictures with: a browser, example workflows, a pair of scissors."""

__all__ = [
    "IDENTITIES",
    "below",
    "beside",
    "generated",
    "open_workflow",
    "run",
    "save",
    "shot",
    "workflow",
]

import json
from io import BytesIO
from pathlib import Path
from typing import Any

from comfy_server import ROOT
from opened import Opened, on_the_miniature
from PIL import Image

MARGIN, TITLE = 24, 30  # pixels around a node, with its badge, and of its title
BARS = (110, 150)  # pixels at the left and at the top that the page covers
THUMBNAIL, GAP = 480, 12  # pixels
GREY = "#141414"  # the canvas's
IDENTITIES = ("my_identity_00001_.safetensors", "my_identity_00002_.safetensors")
SAMPLING = {
    "seed": 7, "control_after_generate": "fixed", "steps": 25, "cfg": 3.0, "sampler_name": "euler",
    "scheduler": "normal",
}  # fmt: skip


def workflow(name: str) -> dict[str, Any]:
    """Returns an example workflow without the frames around nodes, which a picture cuts."""
    return json.loads((ROOT / f"workflows/{name}.json").read_text()) | {"groups": []}


def open_workflow(opened: Opened, name: str) -> None:
    """Opens a workflow on the miniature world, made small."""
    opened.open_workflow(on_the_miniature(workflow(name)))
    opened.set_widgets("TrainSeFiID", resolution=64)
    opened.set_widgets("EmptyLatentImage", width=128, height=128)
    opened.set_widgets("KSampler", **SAMPLING)
    opened.page.evaluate(
        """identities => app.graph.nodes.filter((n) => n.type === 'LoadSeFiEmbedding')
            .forEach((node, i) => { node.widgets[0].value = identities[i] })""",
        IDENTITIES,
    )


def run(opened: Opened) -> dict[str, Any]:
    """Runs what is open, lets its pictures arrive, and returns what its nodes show, by id."""
    ended = opened.run_to_the_end()
    if ended["status"]["status_str"] != "success":
        raise RuntimeError(f"it did not run to its end: {ended['status']}")
    opened.page.wait_for_timeout(6000)  # the page's own word of success goes away meanwhile
    return ended["outputs"]


def generated(opened: Opened, outputs: dict[str, Any]) -> list[Image.Image]:
    """Returns the pictures that a run has saved, in the order of its nodes."""
    folder = opened.server.folder / "output"
    images = [i for node in sorted(outputs, key=int) for i in outputs[node].get("images", ())]
    saved = (i for i in images if i["type"] == "output")
    return [Image.open(folder / i["subfolder"] / i["filename"]).convert("RGB") for i in saved]


def shot(opened: Opened, *kinds: str) -> Image.Image:
    """Returns a picture of the nodes of these kinds, all if none is named, as large as it goes."""
    box = opened.page.evaluate(
        """async ([kinds, margin, title, left_bar, top_bar]) => {
            const nodes = app.graph.nodes.filter((n) => !kinds.length || kinds.includes(n.type))
            const left = Math.min(...nodes.map((n) => n.pos[0])) - margin
            const top = Math.min(...nodes.map((n) => n.pos[1])) - title - margin
            const width = Math.max(...nodes.map((n) => n.pos[0] + n.size[0])) + margin - left
            const height = Math.max(...nodes.map((n) => n.pos[1] + n.size[1])) + margin - top
            const { ds } = app.canvas
            const room = [innerWidth - left_bar - 40, innerHeight - top_bar - 40]
            ds.scale = Math.min(1, room[0] / width, room[1] / height)
            ds.offset = [left_bar / ds.scale - left, top_bar / ds.scale - top]
            app.canvas.deselectAllNodes()
            app.canvas.draw(true, true)
            await new Promise((done) => setTimeout(done, 1500))
            return { x: left_bar, y: top_bar, width: width * ds.scale, height: height * ds.scale }
        }""",
        [list(kinds), MARGIN, TITLE, *BARS],
    )
    return Image.open(BytesIO(opened.page.screenshot(clip=box))).convert("RGB")


def below(picture: Image.Image, *results: Image.Image) -> Image.Image:
    """Returns a thumbnail: a picture of nodes, and in a row below it what they have made."""
    made = Image.new("RGB", (THUMBNAIL, THUMBNAIL), GREY)
    row = 0
    if results:
        picture = picture.copy()
        widest = (THUMBNAIL - GAP * (len(results) - 1)) // len(results)
        results = tuple(enlarged(result, widest, THUMBNAIL * 9 // 20) for result in results)
        row = results[0].height + GAP
        left = (THUMBNAIL - sum(r.width for r in results) - GAP * (len(results) - 1)) // 2
        for result in results:
            made.paste(result, (left, THUMBNAIL - result.height))
            left += result.width + GAP
    picture.thumbnail((THUMBNAIL, THUMBNAIL - row))
    place = (THUMBNAIL - picture.width) // 2, (THUMBNAIL - row - picture.height) // 2
    made.paste(picture, place)
    return made


def beside(picture: Image.Image, *results: Image.Image) -> Image.Image:
    """Returns a picture of nodes with what they have made at its right."""
    side = min(256, picture.height - 2 * GAP)
    results = tuple(enlarged(result, 2 * side, side) for result in results)
    width = picture.width + sum(result.width + GAP for result in results)
    made = Image.new("RGB", (width, picture.height), GREY)
    made.paste(picture, (0, 0))
    left = picture.width
    for result in results:
        made.paste(result, (left, (picture.height - result.height) // 2))
        left += result.width + GAP
    return made


def enlarged(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Returns a picture as large as fits."""
    factor = min(width / picture.width, height / picture.height)
    size = round(picture.width * factor), round(picture.height * factor)
    return picture.resize(size, Image.Resampling.LANCZOS)


def save(picture: Image.Image, path: Path) -> None:
    picture.save(path, "JPEG", quality=80, optimize=True)
    print(path)
