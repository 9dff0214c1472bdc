"""Trainings through the pack's own door, as digests: two checkouts whose results are equal to the
last bit print the same lines.

    python -m benchmarks.oracle > after.txt        # the same in another checkout, then diff

It asks for nothing that a change of rooms or names may move: `train_identity` as Train SeFi ID
calls it, the node's own inputs, and torch's hook on optimisers to stop at a step.
"""
# ruff: noqa: E402 - the pack and the host can be imported after `ensure_pack` only

__all__ = ["main"]

import argparse
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor

from .pack import ROOT, ensure_pack

ensure_pack()
sys.path.append(str(ROOT / "tests"))
import comfy.model_management as management
import comfy.sample
import folder_paths
import seeded
from asking import stopped_at
from sefi_pack.nodes import NODES

from .world.load import load

TRAIN = next(node for node in NODES if node.__name__ == "TrainSeFiID")
APPLY = next(node for node in NODES if node.__name__ == "ApplySeFiConditioning")
# Steps of the miniature and the tiny model, and where each training is stopped and resumed.
CASES: dict[str, dict[str, object]] = {
    "default": {},
    "paper": {"preset": "paper", "attention_loss": "all tokens", "steps": 60},
    "600 steps": {"steps": 600},
    "stages 10": {"stages": 10, "steps": 200},
    "batch 5": {"batch_size": 5, "steps": 200},
    "fp16": {"dtype": "fp16", "steps": 60, "learning_rate": 5e-3},
    "all tokens": {"attention_loss": "all tokens", "steps": 60},
    "off": {"attention_loss": "off", "steps": 60},
    "stopped inside the selection": {"steps": 200, "stop": 50},
    "stopped at its end": {"steps": 200, "stop": 96},
    "stopped after it": {"steps": 200, "stop": 130},
    "stages 1": {"stages": 1, "steps": 200},
    "stages 3": {"stages": 3, "steps": 200},
}


def digest(*tensors: Tensor) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return found.hexdigest()[:16]


def trained(request: dict, case: dict[str, object]) -> tuple:
    """Returns what the node gives, stopped and resumed where the case says so."""
    train_identity: Callable = sys.modules[TRAIN.__module__].train_identity
    settings = {**request, **case}
    stop = settings.pop("stop", None)
    if stop is None:
        return train_identity(**settings)
    with stopped_at(stop):
        try:
            train_identity(**settings)
        except management.InterruptProcessingException:
            pass
    resume = next(one for one in TRAIN.define_schema().inputs if one.id == "resume")
    (name,) = (option for option in resume.options if option != "[none]")
    return train_identity(**settings, resume=name)


def sampled(request: dict, identity: object, side: int) -> Tensor:
    """Returns latents of a prompt with the identity."""
    model, positive = APPLY.execute(
        model=request["model"],
        clip=request["clip"],
        identity=identity,
        text="a photo of V*, smiling",
    ).args
    channels = model.model.latent_format.latent_channels
    noise = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(3))
    return comfy.sample.sample(
        model, noise, 4, 5.0, "euler", "normal", positive, positive, torch.zeros_like(noise),
        disable_pbar=True, seed=3,
    )  # fmt: skip


def models(which: str) -> tuple[dict, int]:
    """Returns the inputs of a model and the side of its latents."""
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    if which == "miniature":
        model, clip, vae = load()
        return {"model": model, "clip": clip, "vae": vae, "image": picture, "resolution": 64,
                "learning_rate": 4e-2}, 16  # fmt: skip
    parts = seeded.tiny_model(), seeded.tiny_clip(), seeded.seeded_vae()
    return dict(zip(("model", "clip", "vae"), parts, strict=True)) | {
        "image": picture, "resolution": 64, "learning_rate": 5e-3
    }, 8  # fmt: skip


@torch.inference_mode()
def main() -> None:
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="tiny,miniature")
    parser.add_argument("--cases", default=",".join(CASES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for which in given.models.split(","):
        inputs, side = models(which)
        common = {
            "class_word": "person", "train_seed": 0, "preset": "default", "steps": 1000,
            "attention_loss": "prompt tokens", "attention_loss_weight": 0.001,
            "preview_every": 100, "checkpoint_every": 0,
        }  # fmt: skip
        for name in given.cases.split(","):
            folder = tempfile.mkdtemp(prefix="sefi-oracle-")
            folder_paths.set_output_directory(folder)
            identity, losses, samples, _ = trained({**inputs, **common}, CASES[name])
            pairs = digest(*(identity.pairs[key] for key in sorted(identity.pairs)))
            curve = digest(torch.tensor([losses["denoising"], losses["attention"]]))
            latents = digest(sampled({**inputs}, identity, side))
            print(f"{which:9s} {name:30s} pairs {pairs} losses {curve} previews "
                  f"{digest(samples)} sampled {latents}", flush=True)  # fmt: skip
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
