"""Cross-attention maps of a sampling as it happens, without touching it.

A watched model is a clone with three wrappers, all plain functions over one `Recording`. Per
sampling, `OUTER_SAMPLE` opens a run and keeps it under the latent it ended in; `SAMPLER_SAMPLE`
notes the positive prompts; per model call, `DIFFUSION_MODEL` appends an attn2 patch behind all
others, which projects q and k once more with the layer's own weights and hands everything on as it
is. So it sees what reaches the layer whatever has been patched before, and also where another node
replaces the attention itself.
"""

__all__ = ["KEPT_RUNS", "Recording", "Run", "watch_attention"]

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import torch
from comfy.ldm.modules.attention import CrossAttention, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ...sefi_core.errors import SettingsError
from ...sefi_core.heatmap import AttentionRecord, layer_maps, thinned
from ...sefi_core.maps import MAP_SIDE
from ...sefi_core.stages import even_edges
from .sampling import require_cross_attention

KEY = "sefi_attention"
KEPT_RUNS = 4  # a graph may sample several times before the first maps are drawn


@dataclass(eq=False)
class Run:
    """One sampling.

    Attributes:
        prompts: The positive prompts' records, in their order.
        samples: The latent it ended in, in half precision on the CPU.
        unfinished: Whether it left noise for another sampler to go on from.
    """

    prompts: list[AttentionRecord] = field(default_factory=list)
    table: dict[UUID, AttentionRecord] = field(default_factory=dict)
    samples: Tensor | None = None
    unfinished: bool = False

    def rows(self, uuids: list[UUID], batch: int) -> list[tuple[slice, AttentionRecord]]:
        """Returns which rows of a model call's batch belong to which record."""
        size = batch // max(1, len(uuids))
        return [
            (slice(i * size, (i + 1) * size), self.table[uuid])
            for i, uuid in enumerate(uuids)
            if uuid in self.table
        ]


class Recording:
    """What a watched model's last samplings attended to; the sampler fills it after the node that
    made it has run.
    """

    def __init__(self, stages: int) -> None:
        self.edges = even_edges(stages)
        self.runs: deque[Run] = deque(maxlen=KEPT_RUNS)
        self.current = Run()

    @property
    def nbytes(self) -> int:
        """The bytes that all its maps hold."""
        return sum(record.nbytes for run in self.runs for record in run.prompts)

    def find(self, samples: Tensor) -> Run | None:
        """Returns the run that ended in a latent."""
        half = samples.detach().half().cpu()
        return next((run for run in reversed(self.runs) if torch.equal(run.samples, half)), None)

    def prompt(self, samples: Tensor, number: int) -> AttentionRecord:
        """Returns the record of a latent's n-th positive prompt, counted from 1.

        Raises:
            SettingsError: There is none.
        """
        run = self.find(samples)
        if run is None:
            raise SettingsError(
                "samples: this latent does not come from a sampler that used the watched model; "
                "connect the model of SeFi Attention Map to the sampler and the sampler's LATENT "
                "here, and sample again (with another seed if ComfyUI repeats an old result)."
            )
        found = [record for record in run.prompts if record.sums is not None]
        if not 1 <= number <= len(found):
            raise SettingsError(
                f"prompt_number: it is {number}, the sampler had {len(found)} positive prompt(s) "
                "with text attention; set a number from 1 to that."
            )
        return found[number - 1]


def watch_attention(model: ModelPatcher, stages: int = 5) -> tuple[ModelPatcher, Recording]:
    """Returns a clone that samples bit for bit as `model` does, and what will be recorded."""
    require_cross_attention(model)
    if not 1 <= stages <= 50:
        raise SettingsError(f"stages: it is {stages}; set it between 1 and 50.")
    recording = Recording(stages)
    watched, key = model.clone(), f"{KEY}_{uuid4().hex}"

    def outer_sample(
        executor: WrapperExecutor,
        noise: Tensor,
        latent_image: Tensor,
        sampler: object,
        sigmas: Tensor,
        *args,
        **kwargs,
    ) -> Tensor:
        run = recording.current = Run(unfinished=bool(sigmas[-1] > 0))
        try:
            samples = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
            if isinstance(samples, Tensor):  # models of several parts make nested ones
                keep(recording, run, latent_image, samples)
        finally:
            recording.current = Run()
        return samples

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
        note_prompts(recording, guider, noise.shape[-2:])
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)

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
        rows = recording.current.rows(options.get("uuids", []), len(x))
        if rows:
            note = attention_patch(executor.class_obj, rows, x, timesteps, context.shape[1])
            patches = options.get("patches", {})
            patches = {**patches, "attn2_patch": [*patches.get("attn2_patch", []), note]}
            options = {**options, "patches": patches}
        return executor(x, timesteps, context, y, control, options, **kwargs)

    watched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, outer_sample)
    watched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, key, sampler_sample)
    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, key, diffusion_model)
    return watched, recording


def note_prompts(recording: Recording, guider: object, sides: tuple[int, int]) -> None:
    """Opens a record for every positive prompt of a sampling whose latents have these sides."""
    run = recording.current
    numbers = {entry["uuid"]: i for i, entry in enumerate(guider.original_conds["positive"])}
    found = {}
    for name, entries in guider.conds.items():
        for entry in entries or ():
            if entry["uuid"] not in numbers or entry.get("cross_attn") is None:
                continue
            if name != "positive":
                entry["uuid"] = uuid4()  # the host's copy of an area prompt in an opposite list
                continue
            tokens = entry["cross_attn"].shape[1]
            record = AttentionRecord(recording.edges, tokens, box_of(entry.get("area"), sides))
            found[numbers[entry["uuid"]]] = run.table[entry["uuid"]] = record
    run.prompts = [found[number] for number in sorted(found)]


def box_of(area: tuple[int, ...] | None, sides: tuple[int, int]) -> tuple[float, ...]:
    """Returns the host's area (height, width, top, left), in latent pixels, as shares of the
    sides.
    """
    if area is None:
        return 0.0, 0.0, 1.0, 1.0
    starts = area[2:]
    ends = [min(a + length, side) for a, length, side in zip(starts, area, sides, strict=False)]
    return (*(a / b for a, b in zip(starts, sides, strict=True)),
            *(a / b for a, b in zip(ends, sides, strict=True)))  # fmt: skip


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
    coarsest = math.prod(math.ceil(side / halvings) for side in x.shape[-2:])
    limit = max(MAP_SIDE**2, coarsest)

    def note(
        n: Tensor, context: Tensor, value: Tensor, extra: dict
    ) -> tuple[Tensor, Tensor, Tensor]:
        if n.shape[1] <= limit:
            layer, side = layer_of(unet, extra), tuple(extra["activations_shape"][-2:])
            for at, record in rows:
                if length % record.tokens == 0:
                    few, sides = thinned(n[at], side)
                    query, key = layer.to_q(few), layer.to_k(context[at])
                    maps = layer_maps(query, key, layer.heads, sides, record.tokens, length)
                    record.add(maps, timestep)
        return n, context, value

    return note


def layer_of(unet: UNetModel, extra: dict) -> CrossAttention:
    """Returns the cross-attention layer that an attn2 patch is called for."""
    kind, number = extra["block"]
    block = unet.middle_block if kind == "middle" else getattr(unet, f"{kind}_blocks")[number]
    (transformer,) = [part for part in block if isinstance(part, SpatialTransformer)]
    return transformer.transformer_blocks[extra["block_index"]].attn2


def keep(recording: Recording, run: Run, latent_image: Tensor, samples: Tensor) -> None:
    """Keeps a run under its latent, together with the unfinished one it went on from."""
    cpu = torch.device("cpu")
    run.table.clear()
    run.prompts = [record.copied(cpu) for record in run.prompts]
    run.samples = samples.detach().half().cpu()
    before = recording.find(latent_image)
    if before is not None and before.unfinished:
        for record, earlier in zip(run.prompts, before.prompts, strict=False):
            record.join(earlier)
    recording.runs.append(run)
