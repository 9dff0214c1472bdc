"""Which conditionings of a sampler run carry an identity, with what other nodes did to them.

An entry of CONDITIONING brings its StagedContext under "sefi" beside the plain tensor that other
nodes know.
"""

__all__ = ["collect_contexts"]

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from uuid import UUID, uuid4

import torch
from comfy.patcher_extension import WrapperExecutor
from torch import Tensor

from ....sefi_core.contexts import StagedContext
from ..noise_levels import timesteps_of
from ..text.encoding import KEY
from .account import account_here
from .arrivals import Applied
from .equality import require_free_values
from .honouring import honoured

log = logging.getLogger("sefi")

UNREACHED = (
    "No identity has reached this sampler, though its model comes from Apply SeFi Conditioning: "
    "connect its conditioning as well; in Concat and Average as conditioning_to."
)
APPLIED = "sefi_applied"  # whose conditioning it is; whose the model is


def collect_contexts(
    executor: WrapperExecutor, guider: object, sigmas: Tensor, extra_args: dict, *args, **kwargs
) -> Tensor:
    """SAMPLER_SAMPLE: conditionings are encoded and areas resolved; builds this run's uuid ->
    StagedContext.
    """
    here, carrying = account_here(), carrying_entries(guider)
    if not carrying and not here:
        log.warning(UNREACHED)
    on_model = guider.model_patcher.get_attachment(APPLIED) or ()
    others = here[0].others(here[1], on_model) if here else {}
    table, bringing = gathered(carrying, others, sigmas.device)
    options = extra_args["model_options"]["transformer_options"]
    require_free_values(options, ((n, table[u]) for n, u, _ in carrying if u in table))
    reached: set[UUID] = set()
    # A tuple, because the host merges nested dicts of these options by copy.
    options[KEY] = (table, reached)
    if not here:
        return executor(guider, sigmas, extra_args, *args, **kwargs)
    with here[0].run(here[1], on_model, plain_prompts(guider)):
        samples = executor(guider, sigmas, extra_args, *args, **kwargs)
    span = span_of(guider.inner_model.model_sampling, sigmas)
    for name, uuid, applied in bringing:
        arrival = here[0].at(here[1], applied)
        arrival.carried = True
        arrival.zeroed |= uuid not in table and name != "negative"
        if uuid in table:
            arrival.note(uuid in reached, span, table[uuid].edges, applied.active)
    return samples


def gathered(
    carrying: Iterable[tuple[str, UUID, dict]],
    others: Mapping[Applied, StagedContext],
    device: torch.device,
) -> tuple[dict[UUID, StagedContext], list[tuple[str, UUID, Applied]]]:
    """Returns a run's table, on its device, and which Apply each entry of it comes from.

    Arguments:
        carrying: As `carrying_entries` gives them.
        others: Applies whose prompts another node may have appended.
    """
    table: dict[UUID, StagedContext] = {}
    bringing: list[tuple[str, UUID, Applied]] = []
    for name, uuid, entry in carrying:
        contexts, found = honoured(entry[KEY], entry["cross_attn"], name, others)
        if contexts is not None:
            # In the prompt's own dtype, so that what is done to its rows can be told bit by bit.
            plain = entry["model_conds"]["c_crossattn"].cond
            contexts = contexts.map(lambda x: x.to(device))
            table[uuid] = replace(contexts, reference=plain)
        whose = [entry[APPLIED]] if APPLIED in entry else []
        bringing += [(name, uuid, applied) for applied in (*whose, *found)]
    return table, bringing


def plain_prompts(guider: object) -> list[Tensor]:
    """Returns the prompts (1, L, C) without an identity that a run was given, but the negative."""
    return [
        entry["cross_attn"]
        for name, entries in guider.original_conds.items()
        for entry in entries or ()
        if name != "negative" and KEY not in entry and entry.get("cross_attn") is not None
    ]


def span_of(sampling: object, sigmas: Tensor) -> tuple[int, int]:
    """Returns the timesteps at which a run's schedule of noise levels (steps + 1,) first and last
    calls the model.
    """
    ends = sigmas[[0, max(0, len(sigmas) - 2)]]
    first, last = timesteps_of(sampling, ends).tolist()
    return first, last


def carrying_entries(guider: object) -> list[tuple[str, UUID, dict]]:
    """Returns where an identity acts: the name of the list, the uuid, and the entry that brings it.

    An area or mask prompt makes the host append a copy of its entry, uuid and all, to the other
    lists. The copy reads a prompt of the list it has come to, so it gets a uuid of its own, and
    that prompt's identity acts in it.
    """
    found = []
    for name, entries in guider.conds.items():
        given = {entry["uuid"] for entry in guider.original_conds.get(name, ())}
        bringing: dict[int, dict] = {}
        for entry in entries or ():
            prompt = id(entry["model_conds"].get("c_crossattn"))
            if entry["uuid"] not in given:
                entry["uuid"] = uuid4()
            elif KEY in entry:
                bringing[prompt] = entry
            given.discard(entry["uuid"])
            if prompt in bringing:
                found.append((name, entry["uuid"], bringing[prompt]))
    return found
