"""Operations and bytes of a training step, counted on shapes alone: nothing is computed.

    python -m benchmarks.speed_count

One multiplication with its addition is two operations. Backward passes are those of frozen
weights: gradients of inputs alone.
"""
# ruff: noqa: E402 - the pack and the host can be imported after `ensure_pack` only

__all__ = ["main"]

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .pack import ensure_pack

ensure_pack()
import comfy.ops
from comfy.clip_model import CLIPTextModel
from comfy.ldm.modules.attention import attention_pytorch
from comfy.ldm.modules.diffusionmodules.model import pytorch_attention
from sefi_pack.nodes.host.text.layers import text_layer
from sefi_pack.nodes.host.train.backbone import compared_layers, plain_attention
from sefi_pack.nodes.host.unets import layer_of

from .speed_account import (
    activation_bytes,
    cast_bytes,
    loss_bytes,
    recomputed_bytes,
    text_of,
    unet_parts,
)
from .speed_models import SIZES, Size, make_base, make_encoder

META = torch.device("meta")
PROMPT = 77
CLIP_L = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20}
# By setting: size, side of the picture, dtype to compute in, dtype of the file.
MEMORY = (
    ("sd15", 512, torch.float32, torch.float32),
    ("sd15", 512, torch.bfloat16, torch.bfloat16),
    ("sd15", 512, torch.bfloat16, torch.float16),
    ("sdxl", 1024, torch.bfloat16, torch.float16),
)


def operations(run: Callable[[], Tensor]) -> tuple[float, float]:
    """Returns the operations, in units of 10^9, of `run()`, and of it with its backward pass."""
    counted = []
    for backward in (False, True):
        with FlopCounterMode(display=False) as counter:
            out = run()
            if backward:
                out.float().square().mean().backward()
        counted.append(counter.get_total_flops() / 1e9)
    return counted[0], counted[1]


def unet_of(size: Size, dtype: torch.dtype) -> nn.Module:
    return make_base(size, META).diffusion_model.to(dtype).requires_grad_(False)


def unet_run(unet: nn.Module, size: Size, side: int) -> tuple[Callable[[], Tensor], dict]:
    """Returns a pass of the UNet, and its cross-attention layers with their sides, noted by it."""
    dtype, found = next(unet.parameters()).dtype, {}
    options = {"device": META, "dtype": dtype}
    latents, beside = torch.empty(1, 4, side, side, **options), {}
    if size.is_sdxl:
        beside["y"] = torch.empty(1, size.layout["adm_in_channels"], **options)

    def note(n: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple:
        found[layer_of(extra)] = tuple(extra["activations_shape"][-2:])
        return n, context, value

    def run() -> Tensor:
        context = torch.empty(1, PROMPT, size.context, **options, requires_grad=True)
        chosen = {"patches": {"attn2_patch": [note]}}
        chosen["optimized_attention_override"] = plain_attention
        timesteps = torch.empty(1, device=META)
        return unet(latents, timesteps, context=context, transformer_options=chosen, **beside)

    return run, found


def text_model(shape: dict, dtype: torch.dtype) -> nn.Module:
    hidden = shape["hidden_size"]
    config = {**shape, "intermediate_size": 4 * hidden, "max_position_embeddings": PROMPT}
    config |= {"hidden_act": "quick_gelu" if hidden == 768 else "gelu", "eos_token_id": 2}
    ops = comfy.ops.disable_weight_init
    return CLIPTextModel(config, dtype, META, ops).text_model.requires_grad_(False)


def text_run(model: nn.Module, prompts: int) -> Callable[[], Tensor]:
    """Returns prompts' pass through a text model's layers."""
    width = model.final_layer_norm.normalized_shape[0]

    def run() -> Tensor:
        x = torch.empty(prompts, PROMPT, width, device=META, requires_grad=True)
        mask = torch.empty(PROMPT, PROMPT, device=META)
        for block in model.encoder.layers:
            x = text_layer(block, x, mask, attention_pytorch)
        return x

    return run


def operations_of(name: str) -> Iterator[str]:
    """Yields lines about a step of batch 1 at the model's own picture size."""
    size = SIZES[name]
    side = 128 if size.is_sdxl else 64
    unet = unet_of(size, size.dtype)
    run, found = unet_run(unet, size, side)
    forward, both = operations(run)
    shapes = (CLIP_L, CLIP_G) if size.is_sdxl else (CLIP_L,)
    texts = [
        [operations(text_run(text_model(shape, torch.float32), n))[1] for shape in shapes]
        for n in (2, 10)
    ]
    two, ten = map(sum, texts)
    maps = {
        "compared": maps_operations(unet, compared_layers(found)),
        "all": maps_operations(unet, found),
    }
    encoder = make_encoder(size, "meta")
    encoder.mid.attn_1.optimized_attention = pytorch_attention  # others ask for free memory
    picture = torch.empty(1, 3, 8 * side, 8 * side, device=META)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder(picture)
    vae = counter.get_total_flops() / 1e9
    ours = both + two + maps["compared"]
    literal = both + ten + 2 * maps["all"] + vae
    prefix = 7 / PROMPT * two
    yield f"## {size.label}, {8 * side} pixels"
    yield f"UNet forward {forward:.0f}, with backward {both:.0f} (the floor)"
    yield f"two prompts {two:.1f} ({two / both:.1%}), their common beginning {prefix:.1f}"
    yield f"reference maps {maps['compared']:.2f} ({maps['compared'] / both:.2%})"
    yield f"step / floor by operations {ours / both:.3f}"
    yield f"ten prompts {ten:.1f}, VAE encode {vae:.0f}, maps of all layers {2 * maps['all']:.1f}"
    yield f"literal / step by operations {literal / ours:.3f}"


def maps_operations(unet: nn.Module, layers: dict[tuple, tuple[int, int]]) -> float:
    """Returns the operations, 10^9, of A_r = softmax(q k_r): scores of layers, forward alone."""
    sequences = {"input": unet.input_blocks, "output": unet.output_blocks}
    total = 0.0
    for (block, number, _), (height, width) in layers.items():
        sequence = unet.middle_block if block == "middle" else sequences[block][number]
        (channels,) = [x.in_channels for x in sequence if hasattr(x, "transformer_blocks")]
        total += 2 * height * width * PROMPT * channels / 1e9
    return total


def memory_of(name: str, pixels: int, numbers: torch.dtype, stored: torch.dtype) -> str:
    """Returns a row about what a step keeps for its backward pass, GiB."""
    size, side = SIZES[name], pixels // 8
    unet = unet_of(size, stored)
    run, found = unet_run(unet, size, side)
    with torch.no_grad():
        run()
    noted = compared_layers(found)
    heads = [20 if size.is_sdxl else 8 for _ in noted]
    parts = list(unet_parts(unet, (side, side), PROMPT, set(noted)))
    shapes = (CLIP_L, CLIP_G) if size.is_sdxl else (CLIP_L,)
    cells = [f"{size.label.split(',')[0]}, {pixels}", str(numbers)[6:], str(stored)[6:]]
    for batch in (1, 5):
        for again in (False, True):
            count = recomputed_bytes if again else activation_bytes
            kept = count(parts, batch, numbers.itemsize) + loss_bytes(heads, PROMPT, batch)
            kept += 0 if again else cast_bytes(unet, numbers)
            texts = [text_model(shape, stored) for shape in shapes]
            kept += sum(text_of(model, 2 * batch, again) for model in texts)
            cells.append(f"{kept / 2**30:.2f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints operations and bytes."""
    for name in ("sd15", "sdxl"):
        print(*operations_of(name), sep="\n")
    print("| model, pixels | computes in | file in | batch 1 | again | batch 5 | again |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for setting in MEMORY:
        print(memory_of(*setting))


if __name__ == "__main__":
    main()
