"""From one picture to new pictures in a genuine ComfyUI: `make demo`.

Train and save, then load, apply and sample, queued over HTTP as the page would. What comes out
lies in demo/out. Without a checkpoint of one's own the trained toy world of benchmarks/world
serves; with one, NASA's portrait of Eileen Collins, in the public domain, as scikit-image ships it.

    CKPT=<path>   an SD 1.x checkpoint
    STEPS=<n>     training steps
    SCALE=<s>     which toy world: its noise schedule is Stable Diffusion's / s; 1, 2, 4 or 8
"""

import os
import shutil
import sys
import time
from pathlib import Path

import skimage.data
import torch
from demo_run import BASE, OUT, download, give, keep, queue, say, workflow
from PIL import Image

from comfy_server import ComfyServer, changed, host_folder, link, node_of  # isort: skip

PORTRAIT = "portrait.png"
HEAD_AND_SHOULDERS = (64, 0, 384, 320)  # left, top, right, bottom
PROMPTS = ("a photo of V*", "a photo of V* at the beach", "a pencil drawing of V*")


def given_steps() -> int | None:
    """Returns STEPS, None if it is not set."""
    given = os.environ.get("STEPS")
    if given and (not given.isdecimal() or int(given) < 2):
        sys.exit(f"STEPS: {given} is no number from 2 on.")
    return int(given) if given else None


def train(server: ComfyServer, checkpoint: str, steps: int | None) -> str:
    """Trains on the portrait and saves; returns the identity's name in models/sefi."""
    length = {"steps": steps, "preview_every": max(1, steps // 3)} if steps else {}
    graph = changed(
        workflow("train_identity"),
        CheckpointLoaderSimple={"ckpt_name": checkpoint},
        LoadImage={"image": PORTRAIT},
        TrainSeFiID={**length, "name": "demo"},
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


def sample(server: ComfyServer, checkpoint: str, identity: str) -> None:
    """Loads the identity and samples every prompt with it, and the first one without."""
    cases = [(prompt, 1.0, f"picture_{i}.png") for i, prompt in enumerate(PROMPTS, 1)]
    cases.append((PROMPTS[0], 0.0, "picture_1_without.png"))
    for prompt, strength, name in cases:
        graph = changed(
            workflow("apply_identity"),
            CheckpointLoaderSimple={"ckpt_name": checkpoint},
            LoadSeFiEmbedding={"embedding": identity},
            ApplySeFiConditioning={"text": prompt, "strength": strength},
        )
        run = queue(server, graph)
        (picture,) = run.outputs[node_of(graph, "SaveImage")]["images"]
        download(server, picture, name, f'"{prompt}", strength {strength:g}')


def portrait_demo(checkpoint: Path, steps: int | None) -> str:
    """Learns the portrait on a checkpoint and samples; returns what to make of it."""
    if not checkpoint.is_file():
        sys.exit(f"CKPT: there is no file {checkpoint}; give the path of an SD 1.x checkpoint.")
    portrait = Image.fromarray(skimage.data.astronaut()).crop(HEAD_AND_SHOULDERS)
    portrait.save(OUT / PORTRAIT)
    link(checkpoint, BASE / "models/checkpoints" / checkpoint.name)
    give(OUT / PORTRAIT)
    keep(OUT / PORTRAIT, "the portrait: Eileen Collins, NASA, public domain")

    say(f"starting the ComfyUI in {host_folder()} with {checkpoint.name}")
    with ComfyServer(BASE, flags=() if torch.accelerator.is_available() else ("--cpu",)) as server:
        say("training, as in workflows/train_identity.json")
        identity = train(server, checkpoint.name, steps)
        say("sampling, as in workflows/apply_identity.json")
        sample(server, checkpoint.name, identity)
    return "Compare the pictures with the portrait."


def main() -> None:
    """Runs the demo that the environment asks for."""
    started = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    if given := os.environ.get("CKPT"):
        remark = portrait_demo(Path(given), given_steps())
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
