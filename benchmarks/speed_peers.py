"""What is timed against the pack's own training step, on models of the same shape.

    floor       the bare UNet forward and backward, its context requiring grad; nothing else
    literal     the paper's loop as it reads: VAE encode at every step, all 2 S prompts encoded
                with gradient, maps of all layers by a second projection of the reference prompt
    lora        the host's own Train LoRA node, rank 8
    inversion   Textual Inversion's step by diffusers; its VAE encode is left out, in its favour

Each is a contestant: a function of steps that sets up whatever it needs, and returns the seconds
of each step; one before them warms up.
"""
# ruff: noqa: E402 - the pack and the host can be imported after `ensure_pack` only

__all__ = ["Missing", "diffusers_inversion", "floor", "literal", "loaded", "train_lora"]

import functools
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from .pack import ensure_pack

# A torchaudio that was built for another torch ends transformers' imports; one that is not there
# does not. It has to be gone before the host asks.
sys.modules.setdefault("torchaudio", None)  # type: ignore[arg-type]
ensure_pack()
import comfy.utils
from comfy.ldm.modules.attention import attention_pytorch
from sefi_pack.nodes.host.noise_levels import sigmas_at
from sefi_pack.nodes.host.train.backbone import plain_attention
from sefi_pack.nodes.host.unets import layer_of
from sefi_pack.sefi_core.maps import prompt_maps, resize_maps

from .speed_models import fill, make_encoder
from .speed_scene import Scene, clocked

LORA_RANK = 8
INSTALL = ".venv/bin/pip install diffusers transformers 'torch==2.13.0'"


class Missing(Exception):
    """A peer that cannot be timed; the message says why, and what to install if that helps."""


def floor(scene: Scene, steps: int) -> list[float]:
    with scene.training() as ready:
        backbone = ready.backbone
        noised, sigmas = scene.noised(backbone)
        context = backbone_context(scene).requires_grad_()
        first = torch.zeros(len(noised), dtype=torch.long)

        def step() -> None:
            backbone.run(noised, sigmas, context, {}, first).square().mean().backward()
            context.grad = None

        return clocked(step, steps)


def loaded(scene: Scene, steps: int) -> list[float]:
    """The models and views alone, for their memory."""
    with scene.training():
        return []


def backbone_context(scene: Scene) -> Tensor:
    shape = scene.batch, 77, scene.size.context
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def literal(scene: Scene, steps: int) -> list[float]:
    if scene.size.is_sdxl:
        raise Missing("the paper's mean over all layers needs layers with the same heads")
    encode_picture = make_encoder(scene.size)
    with scene.training() as ready:
        encoder, learner, backbone = ready.encoder, ready.learner, ready.backbone
        picture = torch.rand(scene.batch, 3, 8 * scene.size.side, 8 * scene.size.side)
        reference = encoder.reference().to(backbone.dtype)
        projections = cross_attentions(scene)

        def step() -> None:
            with torch.no_grad():
                latents = encode_picture(picture * 2.0 - 1.0)[:, :4]
            timesteps = torch.randint(0, 1000, (scene.batch,))
            stages = learner.phase.rows(timesteps, learner.rng)
            tokens = {name: table.flatten(0, 1) for name, table in learner().items()}
            encoded = encoder.encode(tokens).unflatten(0, (-1, 2))  # (S, 2, L, C), all of them
            keys, values = encoded[stages, 0], encoded[stages, 1].to(backbone.dtype)
            maps: list[tuple[Tensor, Tensor, tuple[int, int]]] = []

            def attend(query: Tensor, key: Tensor, value: Tensor, extra: dict) -> Tensor:
                heads, side = extra["n_heads"], tuple(extra["activations_shape"][-2:])
                with torch.no_grad():
                    again = projections[layer_of(extra)].to_k(reference)
                    reference_map = prompt_maps(query, again, heads)
                maps.append((reference_map, prompt_maps(query, key, heads), side))
                return attention_pytorch(query, key, value, heads)

            options = {
                "patches": {"attn2_patch": [lambda n, context, value, extra: (n, context, values)]},
                "patches_replace": {"attn2": dict.fromkeys(projections, attend)},
                "optimized_attention_override": plain_attention,
            }
            sigmas = sigmas_at(backbone.sampling, timesteps)
            noise = torch.randn_like(latents)
            noised = backbone.sampling.noise_scaling(sigmas, noise, latents)
            predicted = backbone.run(noised, sigmas, keys, options, torch.zeros_like(timesteps))
            expected, found = (
                torch.stack([resize_maps(layer[i], *layer[2]) for layer in maps]).mean(dim=0)
                for i in range(2)
            )
            loss = F.mse_loss(predicted, noise)
            loss = loss + 0.003 * (expected - found).square().sum() / scene.batch
            learner.optimizer.zero_grad()
            loss.backward()
            learner.optimizer.step()
            loss.item()

        return clocked(step, steps)


def cross_attentions(scene: Scene) -> dict[tuple, torch.nn.Module]:
    """Returns every cross-attention of the UNet by the host's key."""
    unet, found = scene.model.model.diffusion_model, {}
    sequences = [("input", i, s) for i, s in enumerate(unet.input_blocks)]
    sequences += [("middle", 0, unet.middle_block)]
    sequences += [("output", i, s) for i, s in enumerate(unet.output_blocks)]
    for block, number, sequence in sequences:
        for layer in sequence:
            for index, transformer in enumerate(getattr(layer, "transformer_blocks", ())):
                found[block, number, index] = transformer.attn2
    return found


def train_lora(scene: Scene, steps: int) -> list[float]:
    from comfy_extras.nodes_train import TrainLoraNode

    count = max(2, scene.batch)  # the node of 0.3.75 does not take a single one
    latents = torch.randn(count, 1, 4, scene.size.side, scene.size.side)
    tokens = scene.clip.tokenize("a photo of the face of person")
    conditioning = scene.clip.encode_from_tokens_scheduled(tokens)
    moments: list[float] = []
    comfy.utils.set_progress_bar_enabled(False)
    comfy.utils.set_progress_bar_global_hook(lambda *_, **__: moments.append(time.perf_counter()))
    numbers = {torch.float32: "fp32", torch.bfloat16: "bf16"}[scene.size.dtype]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            TrainLoraNode.execute(
                model=[scene.model], latents=[{"samples": one} for one in latents],
                positive=[conditioning], batch_size=[scene.batch], steps=[steps + 1],
                grad_accumulation_steps=[1], learning_rate=[5e-4], rank=[LORA_RANK],
                optimizer=["AdamW"], loss_function=["MSE"], seed=[0], training_dtype=[numbers],
                lora_dtype=[numbers], algorithm=["LoRA"], gradient_checkpointing=[False],
                existing_lora=["[None]"],
            )  # fmt: skip
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        scene.reload()
    return [after - before for before, after in pairwise(moments)]


def diffusers_inversion(scene: Scene, steps: int) -> list[float]:
    if scene.size.is_sdxl:
        raise Missing("diffusers' Textual Inversion of SDXL is another script")
    step = diffusers_step(scene.size.channels, scene.size.context, scene.size.side, scene.batch)
    return clocked(step, steps)


@functools.cache
def diffusers_step(channels: int, context: int, side: int, batch: int) -> Callable[[], None]:
    """Returns one step of examples/textual_inversion of diffusers, its VAE encode aside."""
    try:
        from diffusers import DDPMScheduler, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel
    except ImportError as error:
        raise Missing(f"diffusers is not installed; install it with: {INSTALL}") from error
    widths = tuple(channels * factor for factor in (1, 2, 4, 4))
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=side, block_out_channels=widths, cross_attention_dim=context,
            attention_head_dim=8,
        )  # fmt: skip
    unet = fill(unet.to_empty(device="cpu").requires_grad_(False)).train(False)
    layers = 12 if context == 768 else 4
    shape = {"hidden_size": context, "intermediate_size": 4 * context, "num_hidden_layers": layers}
    text = CLIPTextModel(CLIPTextConfig(**shape, num_attention_heads=context // 64))
    text.requires_grad_(False)
    table = text.get_input_embeddings().weight.requires_grad_(True)
    before = table.detach().clone()
    others = torch.ones(len(table), dtype=torch.bool)
    others[265] = False  # the row that learns
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    optimizer = torch.optim.AdamW([table], lr=5e-4)
    latents, ids = torch.randn(batch, 4, side, side), torch.randint(0, 49000, (batch, 77))

    def step() -> None:
        noise, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (batch,))
        noised = scheduler.add_noise(latents, noise, timesteps)
        hidden = text(ids)[0]
        F.mse_loss(unet(noised, timesteps, hidden).sample, noise).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            table[others] = before[others]

    return step
