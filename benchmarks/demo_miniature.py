"""The demo in the miniature world: somebody whom the toy checkpoint has never seen, from one
drawing of the face, through the server and our nodes.

The same ten prompts are sampled in four columns: with the subject's name, which the miniature can
read (an upper bound); with the class word; with Textual Inversion, trained in this process as
methods.py has it and loaded by our node; and with the identity. A judge that never saw a sample
scores them.
"""
# ruff: noqa: I001 - the pack can be imported after `benchmarks.methods` only

__all__ = ["miniature_demo"]

import copy
import hashlib
import io
import json
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from demo_run import BASE, OUT, ROOT, download, fetched, give, keep, queue, say, workflow
from comfy_server import ComfyServer, Graph, changed, host_folder, node_of, with_miniature

sys.path.append(str(ROOT))  # `ensure_pack` takes it off again
from benchmarks.methods import METHODS, World, learn_tokens
from benchmarks.world.files import SCALES, miniature
from benchmarks.world.native import PROMPTS
from benchmarks.world.subjects import Subject, split
from demo_look import attention_picture, sheet, table
from sefi_pack.sefi_core.identity.file_format import load_identity


def given_scale() -> int:
    """Returns SCALE: of the toy world's noise schedule, like SD 1.5 at 512 pixels if not set."""
    given = os.environ.get("SCALE", "4")
    if given not in map(str, SCALES):
        sys.exit(f"SCALE: {given} is none of {SCALES}.")
    return int(given)


SCALE = given_scale()
CHECKPOINT = miniature(SCALE)
PACK = ROOT / "benchmarks/world/comfyui_node"
CLASS_WORD, PICTURE = "person", "reference.png"
STEPS, PREVIEWS = METHODS["default"].config.steps, 4
SIDE = 128  # of Empty Latent Image: 64 x 64 pictures, because a latent here is 4 pixels wide
BATCH = 2  # pictures of a prompt; the sheet shows the first
SAMPLING = {"steps": 20, "cfg": 5.0}
REMARK = """This is a TOY WORLD: a small model that draws 64 x 64 cartoons. The sheet and the table
       show what was learned there; neither says how good a likeness on a real checkpoint is.
       For that: make demo CKPT=/path/to/an-sd15-checkpoint.safetensors"""


@dataclass(frozen=True)
class Column:
    """A way to say who is meant: a noun of the prompt, or an identity of Load SeFi Embedding."""

    label: str
    noun: str
    embedding: str = ""


def miniature_demo(steps: int | None) -> str:
    """Draws, trains, samples and scores; returns what to make of it."""
    steps, subject = steps or STEPS, split("person", "test")[0]
    world = World(CHECKPOINT, SCALE)
    reference = world.reference(subject)
    Image.fromarray(reference[0].mul(255.0).round().byte().numpy()).save(OUT / PICTURE)
    give(OUT / PICTURE)
    keep(OUT / PICTURE, f'the only picture of "{subject.name}", whom the miniature never saw')

    say(f"starting the ComfyUI in {host_folder()} with the miniature world, a toy")
    flags = () if torch.accelerator.is_available() else ("--cpu",)
    with ComfyServer(BASE, packs=[PACK], flags=flags) as server:
        say(f"training for {steps} steps")
        identity = train(server, steps)
        inversion = textual_inversion(world, subject, steps)
        columns = (
            Column("native name", subject.name),
            Column("class word", CLASS_WORD),
            Column("Textual Inversion", "V*", f"textual inversion/{inversion.name}"),
            Column("SeFi-ID (ours)", "V*", identity.name),
        )
        pictures = {column.label: sample(server, column) for column in columns}

    say("looking at what has come out")
    sheet(pictures, reference, OUT / "sheet.png")
    keep(OUT / "sheet.png", "ten prompts, and who is meant in four ways")
    learned = {"Textual Inversion": load_identity(inversion), "ours": load_identity(identity)}
    attention_picture(world, learned, reference, OUT / "attention.png")
    keep(OUT / "attention.png", "where V* is looked for before and after training")
    text = table(pictures, reference, subject, steps)
    (OUT / "table.md").write_text(text)
    keep(OUT / "table.md", "the judge's scores")
    print(f"\n{text}", flush=True)
    return REMARK


def in_miniature(name: str, **inputs: dict[str, Any]) -> Graph:
    """Returns an example workflow on the miniature, with other inputs for its nodes."""
    world = {"checkpoint": CHECKPOINT.name, "scale": SCALE}
    return changed(with_miniature(workflow(name)), LoadMiniatureWorld=world, **inputs)


def train(server: ComfyServer, steps: int) -> Path:
    """Trains on the picture and saves; returns the identity's file in models/sefi."""
    graph = in_miniature(
        "train_identity",
        LoadImage={"image": PICTURE},
        TrainSeFiID={
            "class_word": CLASS_WORD,
            "steps": steps,
            "learning_rate": METHODS["default"].config.learning_rate,
            "resolution": 64,
            "preview_every": max(1, steps // PREVIEWS),
            "name": "miniature",
        },
        SaveSeFiEmbedding={"filename_prefix": "miniature"},
    )
    run = queue(server, graph)
    identity = max((server.folder / "models/sefi").glob("miniature_*_.safetensors"))
    keep(shutil.copyfile(identity, OUT / "identity.safetensors"), "the identity")
    (loss,) = run.outputs[node_of(graph, "LossGraphNode")]["images"]
    download(server, loss, "loss.png", "the loss of every step")
    previews = run.outputs[node_of(graph, "PreviewImage")]["images"]
    for number, preview in enumerate(previews, 1):
        download(server, preview, f"preview_{number}.png", "sampled while it trained")
    return identity


def textual_inversion(world: World, subject: Subject, steps: int) -> Path:
    """Returns the embedding of a Textual Inversion as long as ours; trains it if it is new."""
    method = METHODS["inversion"]
    method = replace(method, config=replace(method.config, steps=steps))
    shaped_by = json.dumps([subject.traits, method.recipe(), SCALE]).encode()
    key = hashlib.sha256(CHECKPOINT.read_bytes() + shaped_by).hexdigest()[:12]
    path = BASE / f"models/embeddings/inversion-{key}.safetensors"
    if not path.is_file():
        say("training a Textual Inversion for comparison, as long")
        path.parent.mkdir(parents=True, exist_ok=True)
        pairs = learn_tokens(world, [method], subject)[method].pairs["clip_l"]
        save_file({"clip_l": pairs[0, 1].contiguous()}, path)
    return path


def sample(server: ComfyServer, column: Column) -> Tensor:
    """Samples every prompt; returns pictures (prompts, BATCH, 64, 64, 3) in [0, 1]."""
    say(f"sampling {len(PROMPTS)} prompts: {column.label}")
    rows = []
    for seed, (prompt, _) in enumerate(PROMPTS):
        graph = sampling_graph(column, prompt, seed)
        shown = queue(server, graph).outputs[node_of(graph, "SaveImage")]["images"]
        files = [Image.open(io.BytesIO(fetched(server, picture))) for picture in shown]
        rows.append(np.stack([np.asarray(file.convert("RGB")) for file in files]))
    return torch.from_numpy(np.stack(rows)).float() / 255.0


def sampling_graph(column: Column, prompt: str, seed: int) -> Graph:
    """Returns the workflow of a prompt; a plain word goes through the host's own text node."""
    text = prompt.format(column.noun)
    graph = in_miniature(
        "apply_identity",
        CLIPTextEncode={"text": ""},
        EmptyLatentImage={"width": SIDE, "height": SIDE, "batch_size": BATCH},
        KSampler={**SAMPLING, "seed": seed},
        SaveImage={"filename_prefix": "miniature"},
    )
    if column.embedding:
        return changed(
            graph,
            LoadSeFiEmbedding={"embedding": column.embedding},
            ApplySeFiConditioning={"text": text},
        )
    plain = copy.deepcopy(graph)
    apply, loader = node_of(graph, "ApplySeFiConditioning"), node_of(graph, "LoadMiniatureWorld")
    plain[apply] |= {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": [loader, 1]}}
    plain[node_of(graph, "KSampler")]["inputs"]["model"] = [loader, 0]
    plain[node_of(graph, "KSampler")]["inputs"]["positive"] = [apply, 0]
    del plain[node_of(graph, "LoadSeFiEmbedding")]
    return plain
