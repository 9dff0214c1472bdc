"""The one place that patches a model: cross-attention takes K from one context and V from another,
stage by stage.

The patched clone knows no identity: a conditioning entry brings its own StagedContext under "sefi".
Per run, `SAMPLER_SAMPLE` collects them; per model call, `APPLY_MODEL` puts the stage's key context
into the rows of the batch that belong to an entry and hands its value context to the attn2 patch.
The patch runs before any `attn2_replace`, which therefore receives our K and V. All three are plain
functions, because a clone of the model deep-copies objects and their tensors.
"""

__all__ = ["apply_identity", "require_cross_attention", "with_staged_attention"]

import math
from uuid import UUID, uuid4

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.sd import CLIP
from torch import Tensor

from ...sefi_core.contexts import StagedContext
from ...sefi_core.errors import MismatchError, SettingsError
from ...sefi_core.identity import Identity
from ...sefi_core.stages import active_range
from .text import encode_staged

KEY = "sefi"  # our wrappers, our entry in a conditioning, our table in transformer_options
VALUES = "sefi_values"  # this model call's value context, in transformer_options


def apply_identity(
    model: ModelPatcher,
    clip: CLIP,
    identity: Identity,
    text: str,
    strength: float = 1.0,
    key_strength: float = 1.0,
    value_strength: float = 1.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    placeholder: str = "",
) -> tuple[ModelPatcher, list]:
    """Returns (MODEL, CONDITIONING) of a prompt with the identity in its placeholder's place.

    Arguments are the inputs of the node.
    """
    require_cross_attention(model)
    require_numbers(
        strength=strength,
        key_strength=key_strength,
        value_strength=value_strength,
        start_percent=start_percent,
        end_percent=end_percent,
    )
    conditioning = encode_staged(
        clip,
        identity,
        text,
        (strength * key_strength, strength * value_strength),
        active_range(start_percent, end_percent),
        placeholder or identity.placeholder,
    )
    require_context_width(model, conditioning[0][0].shape[-1])
    return with_staged_attention(model), conditioning


def require_numbers(**inputs: float) -> None:
    """Raises SettingsError for an input that is no number: the host lets NaN through its limits."""
    for name, value in inputs.items():
        if not math.isfinite(value):
            raise SettingsError(f"{name}: it is {value}; set a number within its limits.")


def require_cross_attention(model: ModelPatcher) -> None:
    """Raises MismatchError unless the model is a UNet whose cross-attention reads text."""
    unet = getattr(model.model, "diffusion_model", None)
    if not isinstance(unet, UNetModel) or not model.model.model_config.unet_config.get(
        "context_dim"
    ):
        raise MismatchError(
            f"model: the checkpoint is {type(model.model).__name__}, which has no cross-attention "
            "that reads CLIP text; use an SD 1.x, SD 2.x or SDXL checkpoint."
        )


def require_context_width(model: ModelPatcher, width: int) -> None:
    """Raises MismatchError unless the model's cross-attention reads contexts this wide."""
    expected = model.model.model_config.unet_config["context_dim"]
    if width != expected:
        raise MismatchError(
            f"clip: it gives text contexts of width {width}, the model reads width {expected}; "
            "take MODEL and CLIP from the same checkpoint."
        )


def with_staged_attention(model: ModelPatcher) -> ModelPatcher:
    """Returns a clone whose prompts may carry a StagedContext; `model` is not changed. Twice is as
    good as once.
    """
    patched = model.clone()
    if not patched.get_wrappers(WrappersMP.APPLY_MODEL, KEY):
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, collect_contexts)
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, stage_model_call)
        patched.set_model_attn2_patch(staged_values)
    return patched


def collect_contexts(
    executor: WrapperExecutor, guider: object, sigmas: Tensor, extra_args: dict, *args, **kwargs
) -> Tensor:
    """SAMPLER_SAMPLE: conditionings are encoded and areas resolved; builds this run's uuid ->
    StagedContext.
    """
    # An area or mask prompt makes the host copy its entry, ours with it, into the opposite list:
    # the copy must act plain there. Entries have been born in the list that the guider was given
    # them in.
    born = {
        entry["uuid"]: name for name, entries in guider.original_conds.items() for entry in entries
    }
    model = guider.inner_model
    dtype = model.manual_cast_dtype or model.get_dtype()
    table: dict[UUID, StagedContext] = {}
    for name, entries in guider.conds.items():
        for entry in entries or ():
            if KEY not in entry:
                continue
            if born.get(entry["uuid"]) != name:
                entry["uuid"] = uuid4()
            elif (contexts := honoured(entry[KEY], entry["cross_attn"])) is not None:
                table[entry["uuid"]] = contexts.map(
                    lambda x: x.to(device=sigmas.device, dtype=dtype)
                )
    # A tuple, because the host merges nested dicts of these options by copy.
    extra_args["model_options"]["transformer_options"][KEY] = (table,)
    return executor(guider, sigmas, extra_args, *args, **kwargs)


def honoured(contexts: StagedContext, plain: Tensor) -> StagedContext | None:
    """Returns the contexts with what other nodes did to the plain tensor (1, L, C) done to every
    stage.

    Appended tokens are appended, an average's difference is added, a zeroed entry has no identity
    left (None).
    """
    if not plain.any():
        return None
    plain = plain.to(contexts.reference)
    own, appended = plain.tensor_split([contexts.reference.shape[1]], dim=1)
    if not torch.equal(own, contexts.reference):
        reference = contexts.reference
        contexts = contexts.map(lambda x: own + (x - reference))
    return contexts.map(lambda x: torch.cat([x, appended.expand(len(x), -1, -1)], dim=1))


def stage_model_call(
    executor: WrapperExecutor,
    x: Tensor,
    t: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: object = None,
    transformer_options: dict | None = None,
    **kwargs,
) -> Tensor:
    """APPLY_MODEL: the stage's key context into our rows of (B, L, C), the value one beside."""
    options = transformer_options or {}
    (table,) = options.get(KEY, ({},))
    chunks = [(i, table[uuid]) for i, uuid in enumerate(options.get("uuids", ())) if uuid in table]
    if chunks:
        timestep = executor.class_obj.model_sampling.timestep(t[:1])
        rows = len(x) // len(options["uuids"])
        keys, values = c_crossattn.clone(), c_crossattn.clone()
        for i, contexts in chunks:
            at = slice(i * rows, (i + 1) * rows)
            for context, staged in zip((keys, values), contexts.at(timestep), strict=True):
                # The host repeats contexts to a common length, which attention does not notice.
                context[at] = staged.repeat(1, context.shape[1] // staged.shape[1], 1)
        dtype = executor.class_obj.manual_cast_dtype or executor.class_obj.get_dtype()
        c_crossattn, options = keys, {**options, VALUES: values.to(dtype)}
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def staged_values(
    n: Tensor, context: Tensor, value: Tensor, extra_options: dict
) -> tuple[Tensor, Tensor, Tensor]:
    """The attn2 patch: V from the value context, with whatever other patches have appended."""
    values = extra_options.get(VALUES)
    if values is None:
        return n, context, value
    appended = value[:, values.shape[1] :]
    return n, context, torch.cat([values, appended], dim=1) if appended.shape[1] else values
