"""The miniature's networks: ComfyUI's own classes in a small configuration.

eps-prediction on Stable Diffusion's schedule, by the host's `ModelSamplingDiscrete`, at a scale s:

    sigma(t) = SD's sigma(t) / s

The same noise hides more of a small picture: the mean of the k x k latents that a feature covers
has 1/k of it, and the feature covers fewer latents here. With s = SD's latents a side over the
miniature's 16, every stage hides what it hides there: 4 is SD 1.5 at 512 pixels, 8 SDXL at 1024.

A named subject needs no row of its own while training: the row in its slot is

    row(class word) + code(subject) @ basis(kind)        (T,) @ (T, E)

with a learned basis, as if the text encoder had read about every person there could be. The
written file holds the rows of the world's named subjects; any other subject's row can be made.
"""

__all__ = [
    "LATENT_CHANNELS",
    "TOKEN_WIDTH",
    "Miniature",
    "base_model",
    "encode_text",
    "initialise",
    "text_model",
]

from collections.abc import Callable
from typing import ClassVar

import comfy.clip_model
import comfy.latent_formats
import comfy.model_base
import comfy.model_sampling
import comfy.ops
import comfy.supported_models_base
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
from torch import Tensor, nn

from .patches import CHANNELS as LATENT_CHANNELS
from .subjects import KINDS, TRAITS

TOKEN_WIDTH, PROMPT_TOKENS = 128, 77

UNET_CONFIG: dict[str, object] = {
    "image_size": 16,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "model_channels": 64,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1],
    "context_dim": TOKEN_WIDTH,
    "use_spatial_transformer": True,
    "legacy": False,
    "dtype": torch.float32,
}
TEXT_CONFIG: dict[str, object] = {
    "num_hidden_layers": 4,
    "hidden_size": TOKEN_WIDTH,
    "num_attention_heads": 4,
    "intermediate_size": 4 * TOKEN_WIDTH,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": PROMPT_TOKENS,
    "eos_token_id": 49407,
}


class MiniatureLatents(comfy.latent_formats.LatentFormat):
    """Sixteen channels; the patch transform has scaled them already."""

    latent_channels = LATENT_CHANNELS


class MiniatureConfig(comfy.supported_models_base.BASE):
    """What the host asks a checkpoint's family: nothing beyond its defaults but the latents."""

    latent_format = MiniatureLatents
    # The host writes these over the configuration; its own would give heads of 64 channels.
    unet_extra_config: ClassVar = {"num_heads": 4, "num_head_channels": -1}


class MiniatureUNet(UNetModel):
    """The host's UNet with one skip around all of it; what comes out is the predicted noise.

        noise = sin * x + cos * UNet(x),  tan = sigma

    Where a picture is nearly all noise, its noise is nearly the picture. A network without the
    skip must learn to copy its input to three digits before it can say anything more, and in a
    small budget does not.

    On any schedule the network inside is asked at the timestep where Stable Diffusion's own has the
    sigma, so that one that learned on another schedule has nothing to unlearn.
    """

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.set_sigmas(comfy.model_sampling.ModelSamplingDiscrete().sigmas)

    def set_sigmas(self, sigmas: Tensor) -> None:
        """Follows a schedule: the noise levels (1000,) of its timesteps."""
        angles = torch.atan(sigmas)
        self.register_buffer("sine", torch.sin(angles), persistent=False)  # (1000,)
        self.register_buffer("cosine", torch.cos(angles), persistent=False)
        self.register_buffer("asked", own_timesteps(sigmas), persistent=False)

    def _forward(self, x: Tensor, timesteps: Tensor, *rest: object, **options: object) -> Tensor:
        index = timesteps.round().long().clamp(0, len(self.sine) - 1)
        inner = super()._forward(x, self.asked[index], *rest, **options)
        sine, cosine = (table[index].view(-1, 1, 1, 1) for table in (self.sine, self.cosine))
        return (sine * x + cosine * inner).to(x.dtype)


def own_timesteps(sigmas: Tensor) -> Tensor:
    """Returns the timesteps at which Stable Diffusion has noise levels sigma, same shape.

    They are fractional, between two timesteps as the host interpolates, and within its own range.
    """
    own = comfy.model_sampling.ModelSamplingDiscrete().sigmas.log()
    log_sigmas = sigmas.log()
    above = torch.searchsorted(own, log_sigmas).clamp(1, len(own) - 1)
    low, high = own[above - 1], own[above]
    return above - 1 + ((log_sigmas - low) / (high - low)).clamp(0.0, 1.0)


def base_model(scale: int = 1) -> comfy.model_base.BaseModel:
    """Makes the diffusion model on a schedule; its weights are not set yet."""
    model = comfy.model_base.BaseModel(MiniatureConfig(UNET_CONFIG), unet_model=MiniatureUNet)
    if scale != 1:
        model.model_sampling.set_sigmas(model.model_sampling.sigmas / scale)
        model.diffusion_model.set_sigmas(model.model_sampling.sigmas)
    return model


def text_model(dtype: torch.dtype = torch.float32) -> comfy.clip_model.CLIPTextModel:
    """Makes CLIP's text model; its weights are not set yet."""
    return comfy.clip_model.CLIPTextModel(TEXT_CONFIG, dtype, "cpu", comfy.ops.disable_weight_init)


def initialise(module: nn.Module) -> None:
    """Sets every weight at random: the host's classes leave them as memory was."""
    for part in module.modules():
        for layer in (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm):
            if isinstance(part, layer):
                layer.reset_parameters(part)  # the host's subclass does nothing here
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.05)
    # Every residual branch begins as nothing, as in the original UNet.
    for part in module.modules():
        if isinstance(part, ResBlock):
            nn.init.zeros_(part.out_layers[-1].weight)
        elif isinstance(part, SpatialTransformer):
            nn.init.zeros_(part.proj_out.weight)


def encode_text(model: comfy.clip_model.CLIPTextModel, embeds: Tensor) -> Tensor:
    """Runs the host's layers out of place, because the host adds in place and autograd refuses.

    Arguments:
        embeds: Token rows without positions, shape (B, L, E).

    Returns:
        The prompt's context after the final layer norm, shape (B, L, E).
    """
    text = model.text_model
    x = embeds + text.embeddings.position_embedding.weight
    mask = torch.full((x.shape[1],) * 2, -torch.finfo(x.dtype).max).triu_(1)
    for layer in text.encoder.layers:
        x = x + layer.self_attn(layer.layer_norm1(x), mask, plain_attention)
        x = x + layer.mlp(layer.layer_norm2(x))
    return text.final_layer_norm(x)


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None
) -> Tensor:
    """Attention of (B, L, H*d) as two products: on a CPU twice as fast in training as the fused.

    The fused kernel's backward took half of every step.
    """
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    logits = (query * query.shape[-1] ** -0.5) @ key.mT  # (B, H, N, L)
    logits = logits if mask is None else logits + mask
    with torch.autocast("cpu", enabled=False):
        weights = logits.softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2)


def override(
    _: Callable, query: Tensor, key: Tensor, value: Tensor, heads: int, **__: object
) -> Tensor:
    """What the host calls in place of its own attention."""
    return plain_attention(query, key, value, heads)


class Miniature(nn.Module):
    """All that is trained: UNet, text layers, token rows, and the bases of the names.

    `tokens` are the CLIP ids the rows belong to; captions come in as indices into them.
    """

    def __init__(self, tokens: Tensor, scale: int = 1) -> None:
        super().__init__()
        self.register_buffer("tokens", tokens)
        base = base_model(scale)
        self.unet = base.diffusion_model
        self.register_buffer("sigmas", base.model_sampling.sigmas, persistent=False)  # (1000,)
        self.text = text_model()
        self.text.set_input_embeddings(nn.Embedding(len(tokens), TOKEN_WIDTH))
        self.names = nn.ParameterList(
            nn.Parameter(0.03 * torch.randn(len(TRAITS[kind]), TOKEN_WIDTH)) for kind in KINDS
        )
        initialise(self)
        nn.init.zeros_(self.unet.out[-1].weight)

    def embed(self, indices: Tensor, slots: Tensor, codes: Tensor) -> Tensor:
        """Returns the token rows of a batch of captions, named subjects in their slots.

        Arguments:
            indices: Caption tokens, shape (B, L), int64.
            slots: Row, position and kind of each named subject, shape (n, 3), int64.
            codes: Codes of the named subjects, shape (n, 9); dogs use the first 8.

        Returns:
            Token rows, shape (B, L, E).
        """
        rows = self.text.get_input_embeddings()(indices)
        for kind, basis in enumerate(self.names):
            row, position, _ = slots[slots[:, 2] == kind].unbind(dim=1)
            named = codes[slots[:, 2] == kind, : len(basis)] @ basis
            rows = rows.index_put((row, position), named, accumulate=True)
        return rows

    def forward(self, noisy: Tensor, timestep: Tensor, embeds: Tensor) -> Tensor:
        """Predicts the noise (B, C, h, w) in `noisy` at int timesteps (B,)."""
        context = encode_text(self.text, embeds)
        options = {"optimized_attention_override": override}
        return self.unet._forward(noisy, timestep, context, transformer_options=options)
