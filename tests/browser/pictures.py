"""Takes the pictures of the help pages (web/docs) and of the template browser (workflows) anew.

    .venv/bin/python tests/browser/pictures.py

In all of them the miniature world stands in for a checkpoint: its cartoons are what it can draw.
"""

import json
import shutil
import sys
import tempfile
from base64 import b64encode
from io import BytesIO
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path += [str(HERE.parent), str(ROOT)]

import numpy as np
from comfy_server import ComfyServer
from opened import FLAGS, Opened, on_the_miniature
from PIL import Image
from playwright.sync_api import sync_playwright
from safetensors.torch import load_file, save_file

from benchmarks.world.drawing import Picture, render
from benchmarks.world.subjects import split

DOCS, WORKFLOWS = ROOT / "web/docs", ROOT / "workflows"
MARGIN, TITLE = 12, 30  # pixels around a node, and of its title
BARS = (110, 150)  # pixels at the left and at the top that the page covers
THUMBNAIL = 480  # pixels
IDENTITY = "my_identity_00001_.safetensors"
SMALL = {"steps": 40, "resolution": 64, "preview_every": 10, "checkpoint_every": 0}


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


def save(picture: Image.Image, path: Path) -> None:
    picture.save(path, "JPEG", quality=82, optimize=True)
    print(path)


def square(picture: Image.Image) -> Image.Image:
    """Returns a picture in the middle of a square of the canvas's grey."""
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    made = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "#141414")
    made.paste(picture, ((THUMBNAIL - picture.width) // 2, (THUMBNAIL - picture.height) // 2))
    return made


def open_workflow(opened: Opened, name: str) -> None:
    """Opens a workflow on the miniature world, made small."""
    opened.open_workflow(on_the_miniature(json.loads((WORKFLOWS / f"{name}.json").read_text())))
    opened.set_widgets("TrainSeFiID", **SMALL)
    opened.set_widgets("EmptyLatentImage", width=128, height=128)
    opened.set_widgets("LoadSeFiEmbedding", embedding=IDENTITY)


def run(opened: Opened, name: str) -> None:
    """Opens a workflow, runs it, and lets its pictures arrive."""
    open_workflow(opened, name)
    opened.run_to_the_end()
    opened.page.wait_for_timeout(3000)


def take(opened: Opened) -> None:
    open_workflow(opened, "train_identity")
    save(shot(opened, "SaveSeFiEmbedding"), DOCS / "SaveSeFiEmbedding.jpg")  # no path of ours yet
    run(opened, "train_identity")
    save(shot(opened, "TrainSeFiID"), DOCS / "TrainSeFiID.jpg")
    save(square(shot(opened, "LoadImage", "TrainSeFiID")), WORKFLOWS / "train_identity.jpg")
    run(opened, "train_and_apply")
    save(square(shot(opened)), WORKFLOWS / "train_and_apply.jpg")
    run(opened, "apply_identity")
    save(shot(opened, "ApplySeFiConditioning"), DOCS / "ApplySeFiConditioning.jpg")
    kinds = ("LoadSeFiEmbedding", "ApplySeFiConditioning", "SaveImage")
    save(square(shot(opened, *kinds)), WORKFLOWS / "apply_identity.jpg")
    fill_the_gallery(opened.server.folder / "models/sefi")
    opened.page.evaluate(
        "() => { const n = app.graph.nodes.find((n) => n.type === 'LoadSeFiEmbedding');"
        "n.widgets.find((w) => w.type === 'button').callback() }"
    )
    opened.page.locator(".sefi-card").first.wait_for()
    opened.page.set_viewport_size({"width": 760, "height": 520})
    opened.page.wait_for_timeout(1500)
    picker = opened.page.locator(".sefi-picker").screenshot()
    save(Image.open(BytesIO(picker)).convert("RGB"), DOCS / "LoadSeFiEmbedding.jpg")


def fill_the_gallery(folder: Path) -> None:
    """Adds some identities with covers, so that there is something to choose from."""
    tensors = load_file(folder / IDENTITY)
    for subject in split("person", "train")[:6]:
        data = BytesIO()
        drawn = Image.fromarray(render(Picture("face", (subject,)), np.random.default_rng(3)))
        drawn.resize((128, 128)).save(data, "JPEG", quality=85)
        cover_url = f"data:image/jpeg;base64,{b64encode(data.getvalue()).decode()}"
        texts = {
            "modelspec.title": subject.name.title(),
            "sefi.class_word": "person",
            "format": "sefi-id",
        }
        texts |= {"modelspec.thumbnail": cover_url, "modelspec.date": "2026-01-31"}
        save_file(tensors, folder / f"{subject.name}.safetensors", texts)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        packs = [ROOT / "benchmarks/world/comfyui_node"]
        with ComfyServer(Path(folder), packs=packs) as server, sync_playwright() as playwright:
            face = render(Picture("face", (split("person", "test")[0],)), np.random.default_rng(11))
            portrait = Image.fromarray(face).resize((320, 320), Image.Resampling.NEAREST)
            portrait.save(server.folder / "input/example.png")
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=FLAGS
            )
            context = browser.new_context(viewport={"width": 1700, "height": 1300})
            take(Opened(server, context, vue=False))
            browser.close()


if __name__ == "__main__":
    main()
