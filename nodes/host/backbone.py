"""The host's diffusion model as sefi_core's Backbone."""

__all__ = ["HostBackbone", "compute_dtype", "own_side", "require_trainable"]

from collections.abc import Callable

import comfy.model_management as mm
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_base import ModelType
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...sefi_core.backbone import Prediction
from ...sefi_core.errors import MismatchError, SettingsError, one_line
from ...sefi_core.maps import MAP_SIDE, attend, prompt_maps
from .sampling import require_cross_attention

SD2_CONTEXT = 1024  # the width of SD 2.x's text contexts; its 768-pixel models predict velocity
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def require_trainable(model: ModelPatcher) -> None:
    """Raises MismatchError unless the model denoises by text alone, as SD 1.x and 2.x do."""
    require_cross_attention(model)
    config = model.model.model_config.unet_config
    channels = config["in_channels"]
    if config.get("adm_in_channels") or config.get("out_channels", channels) != channels:
        raise MismatchError(
            f"model: the checkpoint is {type(model.model).__name__}, which reads more than text; "
            "this version trains on ordinary SD 1.x and SD 2.x checkpoints, use one of those."
        )


def own_side(model: ModelPatcher) -> int:
    """Returns the side in pixels of the pictures that a model was made for."""
    wide = model.model.model_config.unet_config["context_dim"] == SD2_CONTEXT
    return 768 if wide and model.model.model_type == ModelType.V_PREDICTION else 512


def compute_dtype(model: ModelPatcher, choice: str) -> torch.dtype:
    """Returns the dtype to compute in.

    "auto" is the model's own, but bf16 in place of fp16 where the device has it: token gradients
    are too small for fp16 without loss scaling.
    """
    if choice in list(DTYPES):
        return DTYPES[choice]
    if choice != "auto":
        raise SettingsError(
            f'dtype: "{one_line(str(choice))}" is unknown; choose auto, {", ".join(DTYPES)}.'
        )
    own = model.model.manual_cast_dtype or model.model.get_dtype()
    if own == torch.float16 and mm.should_use_bf16(model.load_device):
        return torch.bfloat16
    return own if own in (torch.float16, torch.bfloat16, torch.float64) else torch.float32


class HostBackbone:
    """A loaded, frozen UNet (a sefi_core Backbone).

    Arguments:
        model: The model that `trainable` yields.
        reference: The reference prompt's context, (1, L, C); its keys are projected once, here.
        latent: A latent (1, c, h, w) of the training's size.
    """

    def __init__(
        self, model: ModelPatcher, reference: Tensor, latent: Tensor, dtype: torch.dtype
    ) -> None:
        self.model, self.dtype = model, dtype
        self.sampling = model.get_model_object("model_sampling")
        # By layer (block, number, index): the sides of its picture tokens, and its K_r.
        self.layers: dict[tuple, tuple[int, int]] = {}
        self.reference_keys: dict[tuple, Tensor] = {}
        self.read_layers(reference, latent)

    @torch.no_grad()
    def read_layers(self, reference: Tensor, latent: Tensor) -> None:
        """Notes every cross-attention layer and its reference key K_r = W_k T(y_r)."""

        def note_layer(
            n: Tensor, context: Tensor, value: Tensor, extra: dict
        ) -> tuple[Tensor, Tensor, Tensor]:
            self.layers[layer_of(extra)] = tuple(extra["activations_shape"][-2:])
            return n, context, value

        def note_key(query: Tensor, key: Tensor, value: Tensor, extra: dict) -> Tensor:
            self.reference_keys[layer_of(extra)] = key
            return attention_pytorch(query, key, value, extra["n_heads"])

        timestep = torch.zeros(1, dtype=torch.long, device=latent.device)
        for options in (
            lambda: {"patches": {"attn2_patch": [note_layer]}},
            lambda: {"patches_replace": {"attn2": dict.fromkeys(self.layers, note_key)}},
        ):
            self.run(latent, timestep, reference, options())

    def run(self, latents: Tensor, timesteps: Tensor, context: Tensor, options: dict) -> Tensor:
        """Returns the UNet's output (B, c, h, w), float32, for its inputs at timesteps (B,)."""
        options["optimized_attention_override"] = plain_attention
        out = self.model.model.diffusion_model(
            latents.to(self.dtype),
            timesteps.float(),
            context=context.to(self.dtype),
            transformer_options=options,
        )
        return out.float() if out.itemsize < 4 else out

    def predict(
        self,
        latents: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        keys: Tensor,
        values: Tensor,
        with_maps: bool,
    ) -> Prediction:
        values = values.to(self.dtype)
        maps: dict[tuple, tuple[Tensor, Tensor]] = {}

        def take_values(
            n: Tensor, context: Tensor, value: Tensor, extra: dict
        ) -> tuple[Tensor, Tensor, Tensor]:
            return n, context, values

        def attend_and_note(query: Tensor, key: Tensor, value: Tensor, extra: dict) -> Tensor:
            layer, heads = layer_of(extra), extra["n_heads"]
            target = prompt_maps(query, key, heads)  # A_t; the output uses the same softmax
            with torch.no_grad():
                maps[layer] = (
                    prompt_maps(query, self.reference_keys[layer], heads),
                    target,
                )  # A_r, the same q
            return attend(target, value)

        options = {"patches": {"attn2_patch": [take_values]}}
        noted = [
            layer for layer, (h, w) in self.layers.items() if with_maps and h * w <= MAP_SIDE**2
        ]
        options["patches_replace"] = {"attn2": dict.fromkeys(noted, attend_and_note)}

        sigma = self.sampling.sigma(timesteps).to(latents)
        noised = self.sampling.noise_scaling(sigma, noise, latents)
        output = self.run(self.sampling.calculate_input(sigma, noised), timesteps, keys, options)
        return Prediction(
            output,
            self.target(sigma, noised, latents),
            [maps[layer] for layer in noted],
            [self.layers[layer] for layer in noted],
        )

    def target(self, sigma: Tensor, noised: Tensor, latents: Tensor) -> Tensor:
        """Returns the output that denoises to `latents`: the noise, the velocity, whatever the
        model predicts.

        The host's denoised picture is affine in the model's output, so two evaluations invert it.
        """
        offset = self.sampling.calculate_denoised(sigma, torch.zeros_like(noised), noised)
        slope = self.sampling.calculate_denoised(sigma, torch.ones_like(noised), noised) - offset
        return (latents - offset) / slope


def layer_of(extra: dict) -> tuple:
    """Returns the host's key of a cross-attention layer for `patches_replace`."""
    return (*extra["block"], extra["block_index"])


def plain_attention(function: Callable, *args, **kwargs) -> Tensor:
    """Attention with a backward, whatever the host would choose for sampling."""
    return attention_pytorch(*args, **kwargs)
