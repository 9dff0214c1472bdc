"""Takes the pictures of the help pages (web/docs) and of the template browser (workflows) anew.

    .venv/bin/python tests/browser/pictures.py

In all of them the miniature world stands in for a checkpoint: its cartoons are what it can draw.
Some workflows ask for what it cannot stand in for, SDXL, a ControlNet, a place of its own for each
person, and a larger second pass: they are shown before a run. So is that of a pet, whose inputs are
what there is to see.
The pictures of Draw SeFi Attention Map and Evaluate SeFi ID are not of the page, and stay.
"""

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
from opened import FLAGS, Opened
from PIL import Image
from playwright.sync_api import sync_playwright
from safetensors.torch import load_file, save_file
from taking import IDENTITIES, below, beside, generated, open_workflow, run, save, shot, workflow

from benchmarks.world.drawing import Picture, render
from benchmarks.world.subjects import split

DOCS, WORKFLOWS = ROOT / "web/docs", ROOT / "workflows"
PEOPLE, DOG = ("example.png", "other.png"), "dog.png"
LOOKING = ("SeFiAttentionMap", "DrawSeFiAttentionMap", "PreviewImage")


def train(opened: Opened) -> None:
    """Takes what a training shows, and trains the identities of the other pictures."""
    open_workflow(opened, "train_identity")
    save(shot(opened, "SaveSeFiEmbedding"), DOCS / "SaveSeFiEmbedding.jpg")  # no path of ours yet
    for person in PEOPLE:
        open_workflow(opened, "train_identity")
        opened.set_widgets("LoadImage", image=person)
        run(opened)
        if person == PEOPLE[0]:
            save(shot(opened, "TrainSeFiID"), DOCS / "TrainSeFiID.jpg")
            save(below(shot(opened, "LoadImage", "TrainSeFiID")), WORKFLOWS / "train_identity.jpg")


def cast(opened: Opened) -> None:
    folder = opened.server.folder / "input/town"
    folder.mkdir()
    names = ("anna", "ben", "carla", "dana", "emil", "fritz", "gina", "hugo")
    for name, subject in zip(names, split("person", "test"), strict=False):
        face = render(Picture("face", (subject,)), np.random.default_rng(11))
        Image.fromarray(face).resize((320, 320), Image.Resampling.NEAREST).save(
            folder / f"{name}.png"
        )
    open_workflow(opened, "train_identity")
    opened.put_cast()
    opened.set_widgets("TrainSeFiCast", folder="town", resolution=64)
    run(opened)
    save(shot(opened, "TrainSeFiCast"), DOCS / "TrainSeFiCast.jpg")


def apply(opened: Opened) -> None:
    open_workflow(opened, "train_and_apply")
    pictures = generated(opened, run(opened))
    nodes = shot(opened, "LoadImage", "TrainSeFiID", "ApplySeFiConditioning")
    save(below(nodes, *pictures), WORKFLOWS / "train_and_apply.jpg")
    open_workflow(opened, "apply_identity")
    pictures = generated(opened, run(opened))
    save(shot(opened, "ApplySeFiConditioning"), DOCS / "ApplySeFiConditioning.jpg")
    nodes = shot(opened, "LoadSeFiEmbedding", "ApplySeFiConditioning")
    save(below(nodes, *pictures), WORKFLOWS / "apply_identity.jpg")


def look(opened: Opened) -> None:
    open_workflow(opened, "attention_and_scores")
    opened.set_widgets("EmptyLatentImage", batch_size=1)
    pictures = generated(opened, run(opened))
    save(below(shot(opened, *LOOKING), *pictures), WORKFLOWS / "attention_and_scores.jpg")


def edit(opened: Opened) -> None:
    open_workflow(opened, "edit_stages")
    opened.set_widgets("EditSeFiIdentity", stages="1-4")
    pictures = generated(opened, run(opened))
    nodes = shot(opened, "LoadSeFiEmbedding", "EditSeFiIdentity")
    save(below(nodes, *pictures), WORKFLOWS / "edit_stages.jpg")
    save(beside(shot(opened, "EditSeFiIdentity"), *pictures), DOCS / "EditSeFiIdentity.jpg")


def several(opened: Opened) -> None:
    open_workflow(opened, "two_people")
    opened.set_widgets("ApplySeFiConditioning", text="a photo of <a> and <b> at the beach")
    pictures = generated(opened, run(opened))
    nodes = shot(opened, "LoadSeFiEmbedding", "CombineSeFiIdentities")
    save(beside(nodes, *pictures), DOCS / "CombineSeFiIdentities.jpg")
    nodes = shot(opened, "LoadSeFiEmbedding", "CombineSeFiIdentities", "ApplySeFiConditioning")
    save(below(nodes, *pictures), WORKFLOWS / "two_people.jpg")
    put_in_place(opened, "CombineSeFiIdentities", "BlendSeFiIdentities")
    nodes = shot(opened, "LoadSeFiEmbedding", "BlendSeFiIdentities")
    save(nodes, DOCS / "BlendSeFiIdentities.jpg")


def put_in_place(opened: Opened, old: str, new: str) -> None:
    """Puts a new node where another was, its links to the inputs of the same names."""
    opened.page.evaluate(
        """([old, kind]) => {
            const was = app.graph.nodes.find((n) => n.type === old)
            const made = LiteGraph.createNode(kind)
            made.pos = [...was.pos]
            app.graph.add(made)
            for (const [slot, input] of was.inputs.entries()) {
                const from = was.getInputNode(slot)
                if (from) from.connect(0, made, made.findInputSlot(input.name))
            }
            for (const to of was.getOutputNodes(0) ?? [])
                made.connect(0, to, to.findInputSlot('identity'))
            app.graph.remove(was)
        }""",
        [old, new],
    )


def before_a_run(opened: Opened) -> None:
    kinds = ("CheckpointLoaderSimple", "LoadImage", "TrainSeFiID")
    for name, photo in (("sdxl", PEOPLE[0]), ("sdxl_tags", PEOPLE[0]), ("pet_or_thing", DOG)):
        graph = workflow(name)
        (loading,) = (node for node in graph["nodes"] if node["type"] == "LoadImage")
        loading["widgets_values"][0] = photo
        opened.open_workflow(graph)
        opened.page.wait_for_timeout(2000)  # for the photo
        save(below(shot(opened, *kinds)), WORKFLOWS / f"{name}.jpg")
    opened.open_workflow(workflow("with_controlnet_and_lora"))
    kinds = (
        "LoraLoader",
        "LoadSeFiEmbedding",
        "ApplySeFiConditioning",
        "ControlNetLoader",
        "LoadImage",
    )
    nodes = shot(opened, *kinds, "ControlNetLoader", "ControlNetApplyAdvanced")
    save(below(nodes), WORKFLOWS / "with_controlnet_and_lora.jpg")
    opened.open_workflow(workflow("regional_two_people"))
    kinds = ("LoadSeFiEmbedding", "ApplySeFiConditioning", "SolidMask", "ConditioningSetMask")
    save(below(shot(opened, *kinds)), WORKFLOWS / "regional_two_people.jpg")
    opened.open_workflow(workflow("detailer_and_upscale"))
    kinds = ("ApplySeFiConditioning", "KSampler", "LatentUpscaleBy", "SetLatentNoiseMask")
    save(below(shot(opened, *kinds)), WORKFLOWS / "detailer_and_upscale.jpg")
    open_workflow(opened, "apply_identity")
    put_in_place(opened, "ApplySeFiConditioning", "ExportSeFiAsTextualInversion")
    nodes = shot(opened, "ExportSeFiAsTextualInversion")
    save(nodes, DOCS / "ExportSeFiAsTextualInversion.jpg")


def browse(opened: Opened) -> None:
    """Takes the picker; last, for it changes the size of the page."""
    fill_the_gallery(opened.server.folder / "models/sefi")
    open_workflow(opened, "apply_identity")
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
    tensors = load_file(folder / IDENTITIES[0])
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
            subjects = [*split("person", "test")[: len(PEOPLE)], split("dog", "test")[0]]
            for name, subject in zip((*PEOPLE, DOG), subjects, strict=True):
                face = render(Picture("face", (subject,)), np.random.default_rng(11))
                portrait = Image.fromarray(face).resize((320, 320), Image.Resampling.NEAREST)
                portrait.save(server.folder / "input" / name)
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=FLAGS
            )
            context = browser.new_context(viewport={"width": 1700, "height": 1300})
            opened = Opened(server, context, vue=False)
            for take in (train, cast, apply, look, edit, several, before_a_run, browse):
                take(opened)
            browser.close()


if __name__ == "__main__":
    main()
