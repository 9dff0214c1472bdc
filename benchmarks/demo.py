"""From one portrait to new pictures in a genuine ComfyUI: `make demo`.

The example workflows are queued over HTTP as the page would: train and save, then load, apply and
sample. What comes out lies in demo/out. The portrait is NASA's of Eileen Collins, in the public
domain, as scikit-image ships it.

    CKPT=<path>   an SD 1.x checkpoint; without one, a small one with weights from a seed is made
    STEPS=<n>     training steps
"""

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import skimage.data
import torch
from PIL import Image
from seeded_checkpoint import write

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))
from comfy_server import (  # noqa: E402
    ComfyServer,
    Event,
    Graph,
    Run,
    changed,
    host_folder,
    link,
    node_of,
)

BASE, OUT = ROOT / "demo/comfyui", ROOT / "demo/out"
PORTRAIT = "portrait.png"
HEAD_AND_SHOULDERS = (64, 0, 384, 320)  # left, top, right, bottom
PROMPTS = ("a photo of V*", "a photo of V* at the beach", "a pencil drawing of V*")
LINE_SECONDS = 10  # between lines of progress where they cannot be overwritten


@dataclass(frozen=True)
class Setting:
    """A checkpoint and the sizes that suit it.

    Attributes:
        training: Inputs of Train SeFi ID that differ from its defaults.
        sampling: Those of the sampler that differ from the workflow's.
        side: Width and height of the pictures.
        remark: What to expect of them.
    """

    checkpoint: Path
    remark: str
    side: int = 512
    training: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)


def chosen_setting() -> Setting:
    """Returns the setting for CKPT and STEPS."""
    given = os.environ.get("CKPT")
    setting = given_setting(Path(given)) if given else seeded_setting()
    if given_steps := os.environ.get("STEPS"):
        if not given_steps.isdecimal() or int(given_steps) < 2:
            sys.exit(f"STEPS: {given_steps} is no number from 2 on.")
        steps = int(given_steps)
        setting.training.update(steps=steps, preview_every=max(1, steps // 3))
    return setting


def given_setting(checkpoint: Path) -> Setting:
    if not checkpoint.is_file():
        sys.exit(f"CKPT: there is no file {checkpoint}; give the path of an SD 1.x checkpoint.")
    return Setting(checkpoint, remark="Compare the pictures with the portrait.")


def seeded_setting() -> Setting:
    say("no CKPT: a small checkpoint with weights from a seed takes its place")
    return Setting(
        write(ROOT / ".host/seeded-sd15.safetensors"),
        remark="The weights of this checkpoint are random, so THE PICTURES ARE NOISE: "
        "all parts work, but nobody can be seen.\n"
        "       For a likeness: make demo CKPT=/path/to/an-sd15-checkpoint.safetensors",
        side=128,
        training={"steps": 60, "resolution": 128, "preview_every": 20},
        sampling={"steps": 10},
    )


class Terminal:
    """Shows where a graph is: a line that is overwritten, or one now and then."""

    def __init__(self, graph: Graph) -> None:
        self.titles = {number: node["_meta"]["title"] for number, node in graph.items()}
        self.node, self.shown = "", 0.0

    def watch(self, event: Event) -> None:
        """Takes an event of the server."""
        if event.kind == "executing" and event.data["node"]:
            self.node = event.data["node"]
            self.show("")
        elif event.kind == "text":
            self.node = event.data["node"]
            self.show(event.data["text"].replace("\n", "   "))

    def show(self, text: str) -> None:
        line = f"  {self.titles.get(self.node, self.node)}  {text}"
        if sys.stdout.isatty():
            print(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
        elif text and (time.monotonic() - self.shown > LINE_SECONDS or text.startswith("Saved")):
            self.shown = time.monotonic()
            print(line, flush=True)

    def end(self) -> None:
        if sys.stdout.isatty():
            print("\r\033[K", end="", flush=True)


def say(text: str) -> None:
    print(f"[demo] {text}", flush=True)


def queue(server: ComfyServer, graph: Graph) -> Run:
    """Runs a graph in view; ends the demo if it fails."""
    terminal = Terminal(graph)
    run = server.run(graph, terminal.watch)
    terminal.end()
    if run.status != "success":
        sys.exit(f"[demo] {run.status}: {run.error}\n{server.log_tail()}")
    return run


def workflow(name: str) -> Graph:
    return json.loads((ROOT / f"workflows/api/{name}.json").read_text())


def train(server: ComfyServer, setting: Setting) -> str:
    """Trains on the portrait and saves; returns the identity's name in models/sefi."""
    graph = changed(
        workflow("train_identity"),
        CheckpointLoaderSimple={"ckpt_name": setting.checkpoint.name},
        LoadImage={"image": PORTRAIT},
        TrainSeFiID={**setting.training, "name": "demo"},
        SaveSeFiEmbedding={"filename_prefix": "demo"},
    )
    run = queue(server, graph)
    folder = server.folder / "models/sefi"
    identity = max(folder.glob("demo_*_.safetensors"))
    keep(shutil.copyfile(identity, OUT / "identity.safetensors"), "the identity")
    (loss,) = run.outputs[node_of(graph, "LossGraphNode")]["images"]
    download(server, loss, "loss.png", "the loss of every step")
    previews = run.outputs[node_of(graph, "PreviewImage")]["images"]
    for number, preview in enumerate(previews, 1):
        download(server, preview, f"preview_{number}.png", "sampled while it trained")
    return identity.name


def sample(server: ComfyServer, setting: Setting, identity: str) -> None:
    """Loads the identity and samples every prompt with it, and the first one without."""
    cases = [(prompt, 1.0, f"picture_{i}.png") for i, prompt in enumerate(PROMPTS, 1)]
    cases.append((PROMPTS[0], 0.0, "picture_1_without.png"))
    for prompt, strength, name in cases:
        graph = changed(
            workflow("apply_identity"),
            CheckpointLoaderSimple={"ckpt_name": setting.checkpoint.name},
            LoadSeFiEmbedding={"embedding": identity},
            ApplySeFiConditioning={"text": prompt, "strength": strength},
            EmptyLatentImage={"width": setting.side, "height": setting.side},
            KSampler=setting.sampling,
        )
        run = queue(server, graph)
        (picture,) = run.outputs[node_of(graph, "SaveImage")]["images"]
        download(server, picture, name, f'"{prompt}", strength {strength:g}')


def download(server: ComfyServer, picture: dict[str, str], name: str, what: str) -> None:
    (OUT / name).write_bytes(server.fetch(f"view?{urlencode(picture)}").content)
    keep(OUT / name, what)


def keep(path: Path, what: str) -> None:
    say(f"{path}  {what}")


def main() -> None:
    """Prepares folders and checkpoint, then trains and samples."""
    started = time.monotonic()
    setting = chosen_setting()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    portrait = Image.fromarray(skimage.data.astronaut()).crop(HEAD_AND_SHOULDERS)
    portrait.save(OUT / PORTRAIT)
    link(setting.checkpoint, BASE / "models/checkpoints" / setting.checkpoint.name)
    link(OUT / PORTRAIT, BASE / "input" / PORTRAIT)
    keep(OUT / PORTRAIT, "the portrait: Eileen Collins, NASA, public domain")

    say(f"starting the ComfyUI in {host_folder()} with {setting.checkpoint.name}")
    with ComfyServer(BASE, flags=() if torch.accelerator.is_available() else ("--cpu",)) as server:
        say("training, as in workflows/train_identity.json")
        identity = train(server, setting)
        say("sampling, as in workflows/apply_identity.json")
        sample(server, setting, identity)
    say(f"done in {time.monotonic() - started:.0f} s; all of it is in {OUT}")
    say(setting.remark)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\n[demo] stopped")
