"""From one picture to new pictures in a genuine ComfyUI: `make demo`.

Train and save, then load, apply and sample, queued over HTTP as the page would. What comes out
lies in demo/out. The portrait is NASA's of Eileen Collins, in the public domain, as scikit-image
ships it. Without a checkpoint of one's own, a small one with weights from a seed is made: noise,
but every node works.

    CKPT=<path>   an SD 1.x checkpoint
    TOY=1         the trained toy world of benchmarks/world
    STEPS=<n>     training steps
"""

import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import skimage.data
import torch
from demo_run import BASE, OUT, ROOT, download, keep, queue, say, workflow
from PIL import Image
from seeded_checkpoint import write

from comfy_server import ComfyServer, changed, host_folder, link, node_of  # isort: skip

MINIATURE = ROOT / "benchmarks/world/miniature.safetensors"
PORTRAIT = "portrait.png"
HEAD_AND_SHOULDERS = (64, 0, 384, 320)  # left, top, right, bottom
PROMPTS = ("a photo of V*", "a photo of V* at the beach", "a pencil drawing of V*")


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


def given_steps() -> int | None:
    """Returns STEPS, None if it is not set."""
    given = os.environ.get("STEPS")
    if given and (not given.isdecimal() or int(given) < 2):
        sys.exit(f"STEPS: {given} is no number from 2 on.")
    return int(given) if given else None


def chosen_setting() -> Setting:
    """Returns the setting for CKPT and STEPS."""
    given = os.environ.get("CKPT")
    setting = given_setting(Path(given)) if given else seeded_setting()
    if steps := given_steps():
        setting.training.update(steps=steps, preview_every=max(1, steps // 3))
    return setting


def given_setting(checkpoint: Path) -> Setting:
    if not checkpoint.is_file():
        sys.exit(f"CKPT: there is no file {checkpoint}; give the path of an SD 1.x checkpoint.")
    return Setting(checkpoint, remark="Compare the pictures with the portrait.")


def seeded_setting() -> Setting:
    say("a small checkpoint with weights from a seed takes the place of a real one")
    return Setting(
        write(ROOT / ".host/seeded-sd15.safetensors"),
        remark="The weights of this checkpoint are random, so THE PICTURES ARE NOISE: "
        "all parts work, but nobody can be seen.\n"
        "       For a likeness: make demo CKPT=/path/to/an-sd15-checkpoint.safetensors",
        side=128,
        training={"steps": 60, "resolution": 128, "preview_every": 20},
        sampling={"steps": 10},
    )


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


def portrait_demo() -> str:
    """Prepares folders and checkpoint, then trains and samples; returns what to make of it."""
    setting = chosen_setting()
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
    return setting.remark


def main() -> None:
    """Runs the demo that the environment asks for."""
    started = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    if os.environ.get("CKPT") or not (os.environ.get("TOY") and MINIATURE.is_file()):
        remark = portrait_demo()
    else:
        from demo_miniature import miniature_demo  # only here: it puts a host into this process

        remark = miniature_demo(given_steps())
    say(f"done in {time.monotonic() - started:.0f} s; all of it is in {OUT}")
    say(remark)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\n[demo] stopped")
