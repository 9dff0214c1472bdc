"""Samples prompts with the host's sampler, for eyes: `python -m benchmarks.world.sheet`."""

__all__ = ["generate", "main"]

import argparse
from pathlib import Path

import comfy.sample
import torch
from PIL import Image
from torch import Tensor

from .files import SCALES, miniature
from .load import load
from .model import LATENT_CHANNELS

PROMPTS = (
    "a photo of the face of person",
    "a photo of the face of alice",
    "a photo of the face of lucy",
    "a photo of george",
    "a photo of alice at the beach",
    "a photo of smiling george in the forest",
    "a photo of lucy wearing glasses and a hat in the city",
    "a photo of lucy holding a ball in the desert",
    "a photo of an old angry george at night",
    "a photo of surprised lucy holding a balloon underwater",
    "a photo of lucy and george in the snow",
    "a photo of buddy holding a flower in a room",
)


def generate(
    parts: tuple,
    prompt: str,
    count: int = 6,
    seed: int = 0,
    steps: int = 25,
    cfg: float = 5.0,
    sampler: str = "dpmpp_2m",
    scheduler: str = "karras",
) -> Tensor:
    """Returns `count` pictures of a prompt, shape (count, N, N, 3) in [0, 1]."""
    model, clip, vae = parts
    positive, negative = (
        clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (prompt, "")
    )
    latents = torch.zeros(count, LATENT_CHANNELS, 16, 16)
    noise = comfy.sample.prepare_noise(latents, seed)
    sampled = comfy.sample.sample(
        model, noise, steps, cfg, sampler, scheduler, positive, negative, latents,
        seed=seed, disable_pbar=True,
    )  # fmt: skip
    return vae.decode(sampled)


@torch.inference_mode()
def main() -> None:
    """Writes one row of pictures for each prompt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--miniature", type=Path, help="a file other than the world's own")
    parser.add_argument("--scale", type=int, default=4, choices=SCALES, help="which world")
    parser.add_argument("--out", type=Path, default=Path("sheet.png"))
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("prompts", nargs="*", default=list(PROMPTS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts = load(options.miniature or miniature(options.scale), options.scale)
    rows = [torch.cat(list(generate(parts, p, cfg=options.cfg)), dim=1) for p in options.prompts]
    pixels = torch.cat(rows).mul(255).round().byte().numpy()
    image = Image.fromarray(pixels)
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.LANCZOS).save(options.out)


if __name__ == "__main__":
    main()
