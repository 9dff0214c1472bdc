"""A checkpoint in the layout of SD 1.x with weights from a seed, small enough for any machine.

The host's own loader takes it for SD 1.5: a UNet 320 channels wide with a context 768 wide, of two
levels and seven cross-attention layers; the whole CLIP-L; a tiny autoencoder. Its pictures are
noise, but every node works on it and a training on it lowers the loss.
"""

__all__ = ["write"]

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

RECIPE = "2"  # raise it when the weights change: files of another recipe are written anew

CHANNELS, TIME, CONTEXT = 320, 1280, 768  # by which the host knows SD 1.x
TEXT, TEXT_MLP, TEXT_LAYERS, WORDS, POSITIONS = 768, 3072, 12, 49408, 77  # CLIP-L
TINY = 64  # channels of the tiny autoencoder
# Latents as large as those of a trained autoencoder, an output that a training can make better, and
# pictures that are not all black and white.
FACTORS = {
    "first_stage_model.taesd_encoder.14.weight": 5.0,
    "model.diffusion_model.out.2.weight": 2.0,
    "first_stage_model.taesd_decoder.19.weight": 0.3,
}
LATENT_SCALE = 0.18215  # from the autoencoder's latents to the UNet's, as SD 1.x has it

Shape = tuple[str, tuple[int, ...]]


def write(path: Path, seed: int = 0) -> Path:
    """Writes the checkpoint of a seed, or keeps the one that is there; returns its path."""
    recipe = f"{RECIPE}, seed {seed}"
    if recipe != written_recipe(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file(weights(seed), partial, metadata={"recipe": recipe})
        partial.replace(path)
    return path


def written_recipe(path: Path) -> str | None:
    """Returns the recipe that a file was written by; None if it is none of ours."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("recipe")
    except (OSError, SafetensorError):
        return None


def weights(seed: int) -> dict[str, Tensor]:
    """Returns every weight, float16, of a size that keeps activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [*unet("model.diffusion_model."), *text_encoder("cond_stage_model.transformer.")]
    shapes += autoencoder("first_stage_model.")
    tensors = {name: seeded(name, shape, generator).half() for name, shape in shapes}
    tensors["first_stage_model.vae_scale"] = torch.tensor(LATENT_SCALE)
    tensors["first_stage_model.vae_shift"] = torch.tensor(0.0)
    # The decoder's last layer gives pixels from 0 to 1: grey, and noise around it.
    tensors["first_stage_model.taesd_decoder.19.bias"].fill_(0.5)
    for name, factor in FACTORS.items():
        tensors[name] *= factor
    return tensors


def seeded(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Returns one weight: noise by its fan-in, ones for a norm's scale, zeros for a bias."""
    if len(shape) == 1:
        return torch.full(shape, float(name.endswith("weight")))
    if "embedding" in name:
        return torch.randn(shape, generator=generator) * 0.02
    fan_in = torch.Size(shape[1:]).numel()
    return torch.randn(shape, generator=generator) * fan_in**-0.5


def layer(name: str, *shape: int, bias: bool = True) -> Iterator[Shape]:
    """Yields the weight of a linear layer or convolution (out, in, ...), and its bias (out)."""
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def unet(at: str) -> Iterator[Shape]:
    """Yields the shapes of a UNet of two levels, one residual block and one transformer in each."""
    c = CHANNELS
    yield from layer(f"{at}time_embed.0", TIME, c)
    yield from layer(f"{at}time_embed.2", TIME, TIME)
    yield from layer(f"{at}input_blocks.0.0", c, 4, 3, 3)
    for block in ("input_blocks.1", "input_blocks.3", "middle_block"):
        yield from residual(f"{at}{block}.0", c)
        yield from transformer(f"{at}{block}.1")
    yield from layer(f"{at}input_blocks.2.0.op", c, c, 3, 3)
    yield from residual(f"{at}middle_block.2", c)
    for number in range(4):
        yield from residual(f"{at}output_blocks.{number}.0", 2 * c)  # with the skip connection
        yield from transformer(f"{at}output_blocks.{number}.1")
    yield from layer(f"{at}output_blocks.1.2.conv", c, c, 3, 3)
    yield from layer(f"{at}out.0", c)
    yield from layer(f"{at}out.2", 4, c, 3, 3)


def residual(at: str, channels: int) -> Iterator[Shape]:
    """Yields the shapes of a residual block from `channels` to CHANNELS."""
    yield from layer(f"{at}.in_layers.0", channels)
    yield from layer(f"{at}.in_layers.2", CHANNELS, channels, 3, 3)
    yield from layer(f"{at}.emb_layers.1", CHANNELS, TIME)
    yield from layer(f"{at}.out_layers.0", CHANNELS)
    yield from layer(f"{at}.out_layers.3", CHANNELS, CHANNELS, 3, 3)
    if channels != CHANNELS:
        yield from layer(f"{at}.skip_connection", CHANNELS, channels, 1, 1)


def transformer(at: str) -> Iterator[Shape]:
    """Yields the shapes of a spatial transformer of one block."""
    c, block = CHANNELS, f"{at}.transformer_blocks.0"
    yield from layer(f"{at}.norm", c)
    yield from layer(f"{at}.proj_in", c, c, 1, 1)
    for attention, context in (("attn1", c), ("attn2", CONTEXT)):
        yield from layer(f"{block}.{attention}.to_q", c, c, bias=False)
        yield from layer(f"{block}.{attention}.to_k", c, context, bias=False)
        yield from layer(f"{block}.{attention}.to_v", c, context, bias=False)
        yield from layer(f"{block}.{attention}.to_out.0", c, c)
    for norm in ("norm1", "norm2", "norm3"):
        yield from layer(f"{block}.{norm}", c)
    yield from layer(f"{block}.ff.net.0.proj", 8 * c, c)
    yield from layer(f"{block}.ff.net.2", c, 4 * c)
    yield from layer(f"{at}.proj_out", c, c, 1, 1)


def text_encoder(at: str) -> Iterator[Shape]:
    """Yields the shapes of CLIP-L's text model."""
    model = f"{at}text_model."
    yield f"{model}embeddings.token_embedding.weight", (WORDS, TEXT)
    yield f"{model}embeddings.position_embedding.weight", (POSITIONS, TEXT)
    for number in range(TEXT_LAYERS):
        block = f"{model}encoder.layers.{number}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from layer(f"{block}.self_attn.{projection}", TEXT, TEXT)
        yield from layer(f"{block}.layer_norm1", TEXT)
        yield from layer(f"{block}.mlp.fc1", TEXT_MLP, TEXT)
        yield from layer(f"{block}.mlp.fc2", TEXT, TEXT_MLP)
        yield from layer(f"{block}.layer_norm2", TEXT)
    yield from layer(f"{model}final_layer_norm", TEXT)


def autoencoder(at: str) -> Iterator[Shape]:
    """Yields the shapes of the host's tiny autoencoder, by their places in its two sequences."""
    encoder = {0: (3, True), 2: (TINY, False), 6: (TINY, False), 10: (TINY, False)}
    decoder = {1: (4, True), 7: (TINY, False), 12: (TINY, False), 17: (TINY, False)}
    for part, convolutions, blocks in (
        ("taesd_encoder", encoder, (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)),
        ("taesd_decoder", decoder, (3, 4, 5, 8, 9, 10, 13, 14, 15, 18)),
    ):
        for place, (channels, bias) in convolutions.items():
            yield from layer(f"{at}{part}.{place}", TINY, channels, 3, 3, bias=bias)
        for place in blocks:
            for step in (0, 2, 4):
                yield from layer(f"{at}{part}.{place}.conv.{step}", TINY, TINY, 3, 3)
    yield from layer(f"{at}taesd_encoder.14", 4, TINY, 3, 3)
    yield from layer(f"{at}taesd_decoder.19", 3, TINY, 3, 3)


def main() -> None:
    """Reads the command line and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    path = write(options.path, options.seed)
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
