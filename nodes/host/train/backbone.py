"""The host's diffusion model as sefi_core's Backbone.

Which cross-attention layers enter the attention loss: those on grids of 32 x 32 or coarser, where
the paper compares maps, and of the layers that one spatial transformer stacks only the last, whose
queries have been through all others. SD 1.x and 2.x stack one each, so that is every such layer.
SDXL stacks ten: at 1024 pixels 60 of its 70 layers are on 32 x 32. A layer's maps are 20 heads x
1024 x 77 x 4 bytes = 6.3 MB; A_t, A_r, their difference, its resized copy and A_t in the model's
own dtype are kept for the backward pass, 28 MB a layer and sample. 60 layers would take 1.7 GB;
six, one a block, take 0.17 GB.
"""

__all__ = ["HostBackbone"]

from collections.abc import Callable

import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....sefi_core.devices import sent
from ....sefi_core.maps import attend, map_keys, map_query, maps_of, most_tokens
from ....sefi_core.protocols import Prediction
from ....sefi_core.samples import Samples
from ....sefi_core.stages import TIMESTEPS
from ..noise_levels import near_the_end, nearest_timesteps, sigmas_at
from ..unets import layer_of


class HostBackbone:
    """A loaded, frozen UNet (a sefi_core Backbone).

    Arguments:
        model: The model that `trainable` yields.
        reference: The contexts of the reference prompts, (n, L, C), which `Samples.prompts` counts;
            their keys are projected once, here.
        latent: A latent (1, c, h, w) of the training's size.
        pooled: The reference prompt's pooled vector, as many rows; only SDXL looks at it.
    """

    def __init__(
        self,
        model: ModelPatcher,
        reference: Tensor,
        latent: Tensor,
        dtype: torch.dtype,
        pooled: Tensor | None = None,
    ) -> None:
        self.model, self.dtype = model, dtype
        self.sampling = model.get_model_object("model_sampling")
        # Read once: a step does not wait for the device.
        self.ends = near_the_end(self.sampling, torch.arange(TIMESTEPS))
        self.conditions = {
            name: condition.to(dtype)
            for name, condition in plain_conditions(model, latent, pooled).items()
        }
        # By layer (block, number, index): the sides of its picture tokens, and its K_r (B | 1, H,
        # L, d) as maps are made of it.
        self.layers = self.read_layers(reference[:1], latent)
        self.reference_keys = self.read_keys(reference, latent)

    @torch.no_grad()
    def read_layers(self, reference: Tensor, latent: Tensor) -> dict[tuple, tuple[int, int]]:
        """Returns the cross-attention layers to compare, with their sides."""
        found: dict[tuple, tuple[int, int]] = {}

        def note_layer(
            n: Tensor, context: Tensor, value: Tensor, extra: dict
        ) -> tuple[Tensor, Tensor, Tensor]:
            found[layer_of(extra)] = tuple(extra["activations_shape"][-2:])
            return n, context, value

        self.look(reference, latent, 0, {"patches": {"attn2_patch": [note_layer]}})
        return compared_layers(found)

    @torch.no_grad()
    def read_keys(self, reference: Tensor, latent: Tensor) -> dict[tuple, Tensor]:
        """Returns the reference keys K_r = W_k T(y_r) of the compared layers, (n, H, L, d)."""
        found: dict[tuple, list[Tensor]] = {layer: [] for layer in self.layers}

        def note_key(query: Tensor, key: Tensor, value: Tensor, extra: dict) -> Tensor:
            found[layer_of(extra)].append(map_keys(key, extra["n_heads"]))
            return attention_pytorch(query, key, value, extra["n_heads"])

        replace = {"attn2": dict.fromkeys(self.layers, note_key)}
        for i, one in enumerate(reference.split(1)):  # memory does not grow with the prompts
            self.look(one, latent, i, {"patches_replace": replace})
        return {layer: torch.cat(keys) for layer, keys in found.items()}

    def look(self, reference: Tensor, latent: Tensor, prompt: int, options: dict) -> None:
        """Runs one reference prompt (1, L, C) for what `options` note of it."""
        prompts = torch.full((1,), prompt, device=latent.device)
        sigma = sigmas_at(self.sampling, torch.zeros_like(prompts))
        self.run(latent, sigma, reference, options, prompts)

    def run(
        self, noised: Tensor, sigmas: Tensor, context: Tensor, options: dict, prompts: Tensor
    ) -> Tensor:
        """Returns the UNet's output (B, c, h, w), float32, for noised latents at sigmas (B,)."""
        options["optimized_attention_override"] = plain_attention
        beside = {
            name: own_rows(condition, prompts).expand(len(noised), *condition.shape[1:])
            for name, condition in self.conditions.items()
        }
        inputs = self.sampling.calculate_input(sigmas, noised).to(self.dtype)
        if (concat := beside.pop("c_concat", None)) is not None:
            inputs = torch.cat([inputs, concat], dim=1)
        out = self.model.model.diffusion_model(
            inputs,
            self.sampling.timestep(sigmas).float(),
            context=context.to(self.dtype),
            transformer_options=options,
            **beside,
        )
        return out.float() if out.itemsize < 4 else out

    def nearest(self, timesteps: Tensor) -> Tensor:
        return nearest_timesteps(self.sampling, timesteps)

    def near_the_end(self, timesteps: Tensor) -> Tensor:
        return self.ends[timesteps]

    def predict(
        self, samples: Samples, keys: Tensor, values: Tensor, with_maps: bool
    ) -> Prediction:
        values = values.to(self.dtype)
        maps: dict[tuple, tuple[Tensor, Tensor]] = {}

        def take_values(
            n: Tensor, context: Tensor, value: Tensor, extra: dict
        ) -> tuple[Tensor, Tensor, Tensor]:
            return n, context, values

        def attend_and_note(query: Tensor, key: Tensor, value: Tensor, extra: dict) -> Tensor:
            layer, heads = layer_of(extra), extra["n_heads"]
            query = map_query(query, heads)
            target = maps_of(query, map_keys(key, heads))  # A_t; the output uses the same softmax
            if layer not in maps:  # a block computed again comes by twice
                with torch.no_grad():
                    key = own_rows(self.reference_keys[layer], prompts)
                    reference = maps_of(query, key)  # A_r, the same q
                maps[layer] = reference, target
            return attend(target, value)

        options = {"patches": {"attn2_patch": [take_values]}}
        noted = list(self.layers) if with_maps else []
        options["patches_replace"] = {"attn2": dict.fromkeys(noted, attend_and_note)}

        latents = samples.latents
        prompts = sent(samples.prompts, latents.device)
        sigma, noised = self.noised(samples)
        output = self.run(noised, sigma, keys, options, prompts)
        offset, slope = self.denoising(sigma, noised)
        return Prediction(
            output,
            (latents - offset) / slope,
            [maps[layer] for layer in noted],
            [self.layers[layer] for layer in noted],
            slope[:, 0, 0, 0].abs() * (1.0 + sigma**-2).sqrt(),
        )

    def noised(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """Returns noise levels (B,) and the latents (B, c, h, w) with that much noise in them."""
        latents, device = samples.latents, samples.latents.device
        sigma = sigmas_at(self.sampling, sent(samples.timesteps, device)).to(latents)
        noise = sent(samples.noise, device).to(latents)
        seen = sent(samples.seen, device).to(latents).view(-1, 1, 1, 1)
        return sigma, self.sampling.noise_scaling(sigma, noise, latents * seen)

    def denoising(self, sigma: Tensor, noised: Tensor) -> tuple[Tensor, Tensor]:
        """Returns offset and slope (B, c, h, w) of the affine map by which the host makes the
        denoised picture of the model's output: the noise, the velocity, whatever it predicts.
        """
        offset = self.sampling.calculate_denoised(sigma, torch.zeros_like(noised), noised)
        slope = self.sampling.calculate_denoised(sigma, torch.ones_like(noised), noised) - offset
        return offset, slope


def own_rows(table: Tensor, prompts: Tensor) -> Tensor:
    """Returns what samples of reference prompts (B,) have in a table (n, ...) of these: (1, ...)
    where there is one for all.
    """
    return table if len(table) == 1 else table.index_select(0, prompts)


def plain_conditions(
    model: ModelPatcher, latent: Tensor, pooled: Tensor | None
) -> dict[str, Tensor]:
    """Returns what the UNet reads beside timestep and context, (1, ...) each, as the host makes it
    of a plain prompt.

    SDXL: the pooled vector with the picture's size, no crop, and the same size as target ("y").
    Inpainting: a mask of ones and a blank picture ("c_concat"). unCLIP: zeros ("y").
    """
    size = {"height": 8 * latent.shape[-2], "width": 8 * latent.shape[-1]}
    made = model.model.extra_conds(
        noise=latent, latent_image=latent, device=latent.device, pooled_output=pooled, **size
    )
    return {name: condition.cond.to(latent.device) for name, condition in made.items()}


def compared_layers(found: dict[tuple, tuple[int, int]]) -> dict[tuple, tuple[int, int]]:
    """Returns the layers (block, number, index) whose maps are compared, with their sides, of all.

    Where every grid is finer than 32 x 32, the coarsest counts.
    """
    finest = most_tokens(min(height * width for height, width in found.values()))
    last = {layer[:-1]: layer for layer, (h, w) in found.items() if h * w <= finest}
    return {layer: found[layer] for layer in last.values()}


def plain_attention(function: Callable, *args, **kwargs) -> Tensor:
    """Attention with a backward, whatever the host would choose for sampling."""
    return attention_pytorch(*args, **kwargs)
