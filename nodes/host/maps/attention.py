"""Cross-attention maps of a sampling as it happens, without touching it.

A watched model is a clone with three wrappers, all plain functions over one `Recording`. Per
sampling, `OUTER_SAMPLE` opens a run and keeps it under the latent it ended in; `SAMPLER_SAMPLE`
notes the positive prompts; per model call, `DIFFUSION_MODEL` appends an attn2 patch behind all
others, which projects q and k once more with the layer's own weights and hands everything on as it
is. So it sees what reaches the layer whatever has been patched before, and also where another node
replaces the attention itself.
"""

__all__ = ["watch_attention"]

import math
from collections.abc import Callable
from uuid import uuid4

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ....sefi_core.analysis.heatmap import AttentionRecord, layer_maps, thinned
from ....sefi_core.errors import SettingsError
from ....sefi_core.maps import most_tokens
from ..unets import layer_at, require_text_unet
from .recording import Recording, Run

KEY = "sefi_attention"


def watch_attention(
    model: ModelPatcher, stages: int = 5, node_id: str | None = None
) -> tuple[ModelPatcher, Recording]:
    """Returns a clone that samples bit for bit as `model` does, and what will be recorded.

    Arguments:
        node_id: Of the node that asks, by which it knows its own earlier recordings.
    """
    require_text_unet(model)
    if not 1 <= stages <= 50:
        raise SettingsError(f"stages: it is {stages}; set it between 1 and 50.")
    recording = Recording(stages, node_id)
    watched, key = model.clone(), f"{KEY}_{uuid4().hex}"

    watched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, around_sampling(recording))
    watched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, key, around_run(recording))
    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, key, around_call(recording))
    return watched, recording


def around_sampling(recording: Recording) -> Callable:
    """OUTER_SAMPLE: a sampling is under way, and what it made is kept."""

    def outer_sample(
        executor: WrapperExecutor,
        noise: Tensor,
        latent_image: Tensor,
        sampler: object,
        sigmas: Tensor,
        *args,
        **kwargs,
    ) -> Tensor:
        with recording.under_way(Run(unfinished=bool(sigmas[-1] > 0))) as run:
            samples = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
            if isinstance(samples, Tensor):  # models of several parts make nested ones
                recording.keep(run, latent_image, samples)
        return samples

    return outer_sample


def around_run(recording: Recording) -> Callable:
    """SAMPLER_SAMPLE: conditionings are encoded and areas resolved."""

    def sampler_sample(
        executor: WrapperExecutor,
        guider: object,
        sigmas: Tensor,
        extra_args: dict,
        callback: Callable | None,
        noise: Tensor,
        *args,
        **kwargs,
    ) -> Tensor:
        recording.note_prompts(guider, noise.shape[-2:])
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)

    return sampler_sample


def around_call(recording: Recording) -> Callable:
    """DIFFUSION_MODEL: the maps of this call's rows are recorded."""

    def diffusion_model(
        executor: WrapperExecutor,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor | None = None,
        control: dict | None = None,
        transformer_options: dict | None = None,
        **kwargs,
    ) -> Tensor:
        options = transformer_options or {}
        rows = recording.rows(options.get("uuids", []), len(x))
        if rows:
            note = attention_patch(executor.class_obj, rows, x, timesteps, context.shape[1])
            patches = options.get("patches", {})
            patches = {**patches, "attn2_patch": [*patches.get("attn2_patch", []), note]}
            options = {**options, "patches": patches}
        return executor(x, timesteps, context, y, control, options, **kwargs)

    return diffusion_model


def attention_patch(
    unet: UNetModel,
    rows: list[tuple[slice, AttentionRecord]],
    x: Tensor,
    timesteps: Tensor,
    length: int,
) -> Callable:
    """Returns an attn2 patch of one model call that changes nothing and records its rows' maps.

    Layers of more than 32 x 32 picture tokens are left out, as in the attention loss, unless the
    picture is so large that even the coarsest have more.

    Arguments:
        length: Tokens of the context, before other patches append to it.
    """
    timestep = timesteps[:1].round().long()
    halvings = 2 ** (len(unet.channel_mult) - 1)
    limit = most_tokens(math.prod(math.ceil(side / halvings) for side in x.shape[-2:]))

    def note(
        n: Tensor, context: Tensor, value: Tensor, extra: dict
    ) -> tuple[Tensor, Tensor, Tensor]:
        if n.shape[1] <= limit:
            layer, side = layer_at(unet, extra), tuple(extra["activations_shape"][-2:])
            for at, record in rows:
                if length % record.tokens == 0:
                    few, sides = thinned(n[at], side)
                    query, key = layer.to_q(few), layer.to_k(context[at])
                    maps = layer_maps(query, key, layer.heads, sides, record.tokens, length)
                    record.add(maps, timestep)
        return n, context, value

    return note
