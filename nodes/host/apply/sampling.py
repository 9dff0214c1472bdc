"""The one place that patches a model: cross-attention takes K from one context and V from another,
stage by stage.

The patched clone knows no identity: a conditioning entry brings its own StagedContext under "sefi".
Per run, `SAMPLER_SAMPLE` collects them; per model call, `APPLY_MODEL` puts the stage's key context
into the rows of the batch that belong to an entry and hands its value context to the attn2 patch.
The patch runs before all others and before any `attn2_replace`, which therefore receive our K and
V. All three are plain functions, because a clone of the model deep-copies objects and their
tensors.
"""

__all__ = ["apply_identity", "with_staged_attention"]

import math

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.sd import CLIP
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ....sefi_core.contexts import StagedContext
from ....sefi_core.errors import SettingsError
from ....sefi_core.identity.group import IdentityGroup
from ....sefi_core.identity.identity import Identity
from ....sefi_core.stages import active_range
from ..noise_levels import timesteps_of
from ..text.encoding import KEY, encode_staged
from ..text.matching import require_match
from .account import Given
from .arrivals import Applied, contexts_of
from .clip_skip import tell_other_clip_skip
from .collecting import APPLIED, collect_contexts

VALUES = "sefi_values"  # this model call's value context, in transformer_options


def apply_identity(
    model: ModelPatcher,
    clip: CLIP,
    identity: Identity | IdentityGroup,
    text: str,
    strength: float = 1.0,
    key_strength: float = 1.0,
    value_strength: float = 1.0,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    placeholder: str = "",
    width: int = 0,
    height: int = 0,
) -> tuple[ModelPatcher, list]:
    """Returns (MODEL, CONDITIONING) of a prompt with the identity in its placeholder's place.

    Arguments are the inputs of the node.
    """
    require_match(model, clip)
    require_numbers(
        strength=strength,
        key_strength=key_strength,
        value_strength=value_strength,
        start_percent=start_percent,
        end_percent=end_percent,
    )
    tell_other_clip_skip(clip, identity)
    named = identity.named(placeholder)
    strengths = (strength * key_strength, strength * value_strength)
    active = active_range(start_percent, end_percent)
    conditioning = encode_staged(clip, named, text, strengths, active)
    applied = Applied(
        node=context.node_id if (context := get_executing_context()) else None,
        name=" and ".join(m.placeholder for m in named.members if m.placeholder in text),
        active=active if any(strengths) else (0, 0),
    )
    contexts_of[applied.id] = conditioning[0][1][KEY]
    for _, entry in conditioning:
        entry.update({APPLIED: applied, "model_conds": Given(applied), **sizes(width, height)})
    return with_staged_attention(model, applied), conditioning


def sizes(width: int, height: int) -> dict[str, int]:
    """Returns what an entry tells SDXL of the picture's size; a side of 0 is the latent's. The host
    adds what CLIP Text Encode (SDXL) gives besides: nothing cropped, the same size as target.
    """
    return {name: side for name, side in (("width", width), ("height", height)) if side}


def require_numbers(**inputs: float) -> None:
    """Raises SettingsError for an input that is no number: the host lets NaN through its limits."""
    for name, value in inputs.items():
        if not math.isfinite(value):
            raise SettingsError(f"{name}: it is {value}; set a number within its limits.")


def with_staged_attention(model: ModelPatcher, *applied: Applied) -> ModelPatcher:
    """Returns a clone whose prompts may carry a StagedContext, and which is known to be that of
    `applied` and of all before; `model` is not changed. Twice is as good as once.
    """
    patched = model.clone()
    patched.set_attachments(APPLIED, (*(model.get_attachment(APPLIED) or ()), *applied))
    if not patched.get_wrappers(WrappersMP.APPLY_MODEL, KEY):
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, collect_contexts)
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, stage_model_call)
    return patched


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
    table, reached = options.get(KEY, ({}, set()))
    uuids = options.get("uuids", ())
    chunks = [(i, table[uuid]) for i, uuid in enumerate(uuids) if uuid in table]
    reached.update(uuids)
    if chunks:
        timestep = timesteps_of(executor.class_obj.model_sampling, t[:1]).to(c_crossattn.device)
        # A chunk has as many rows as there are latents; nodes that tile them repeat the whole.
        layout = (-1, len(uuids), len(options["sigmas"]))
        keys, values = staged_rows(c_crossattn, chunks, timestep, layout)
        dtype = executor.class_obj.manual_cast_dtype or executor.class_obj.get_dtype()
        c_crossattn, options = keys, with_values(options, values.to(dtype))
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def staged_rows(
    plain_rows: Tensor,
    chunks: list[tuple[int, StagedContext]],
    timestep: Tensor,
    layout: tuple[int, int, int],
) -> tuple[Tensor, Tensor]:
    """Returns key and value contexts of a call: its plain (B, L, C), the stage's rows in chunks.

    Arguments:
        layout: How the rows are laid out: tiles, chunks, latents.
    """
    # Two cards may share a run: a call's contexts are wanted where its own tensors are.
    chunks = [(i, contexts.on(plain_rows.device)) for i, contexts in chunks]
    # The host repeats contexts to a common length, which attention does not notice.
    lengths = [plain_rows.shape[1], *(contexts.keys.shape[1] for _, contexts in chunks)]
    length = math.lcm(*lengths)
    keys, values = (plain_rows.repeat(1, length // lengths[0], 1) for _ in range(2))
    for i, contexts in chunks:
        plain = contexts.reference
        if lengths[0] % plain.shape[1]:
            plain = None  # its tokens are no longer where they were
        for context, staged in zip((keys, values), contexts.at(timestep), strict=True):
            rows = context.unflatten(0, layout)  # (tiles, chunks, B, L, C)
            rows[:, i] = changed_alike(staged, plain, rows[:, i])
    return keys, values


def changed_alike(staged: Tensor, plain: Tensor | None, rows: Tensor) -> Tensor:
    """Returns a stage's context (1, L', C) with what other nodes did to `plain` (1, L'', C) on its
    way to `rows` (..., L, C): noise of this step, a scale. L is a multiple of both lengths.

    Exactly staged where nobody did anything, exactly rows where staged is plain.
    """
    length = rows.shape[-2]
    staged = staged.repeat(1, length // staged.shape[1], 1)
    if plain is None:
        return staged
    plain = plain.repeat(1, length // plain.shape[1], 1)
    return torch.where(rows == plain, staged, rows + (staged - plain))


def with_values(options: dict, values: Tensor) -> dict:
    """Returns transformer_options whose first attn2 patch takes V from a value context.

    The first, so that other patches change or lengthen our K and V as they would the host's.
    """
    patches = options.get("patches", {})
    first = [staged_values, *patches.get("attn2_patch", ())]
    return {**options, VALUES: values, "patches": {**patches, "attn2_patch": first}}


def staged_values(
    n: Tensor, context: Tensor, value: Tensor, extra_options: dict
) -> tuple[Tensor, Tensor, Tensor]:
    """The attn2 patch: V from the value context."""
    return n, context, extra_options[VALUES]
