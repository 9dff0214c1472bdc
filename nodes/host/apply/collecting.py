"""Which conditionings of a sampler run carry an identity, with what other nodes did to them.

An entry of CONDITIONING brings its StagedContext under "sefi" beside the plain tensor that other
nodes know. What they did to the plain one is done to every stage; what cannot be followed is
refused.
"""

__all__ = ["KEY", "collect_contexts"]

import logging
from dataclasses import replace
from uuid import UUID, uuid4

import torch
from comfy.patcher_extension import WrapperExecutor
from torch import Tensor

from ....sefi_core.contexts import StagedContext
from ....sefi_core.errors import MismatchError
from ..noise_levels import timesteps_of
from .account import account_here

log = logging.getLogger("sefi")

UNREACHED = (
    "No identity has reached this sampler, though its model comes from Apply SeFi Conditioning: "
    "connect its conditioning as well; in Concat and Average as conditioning_to."
)
KEY = "sefi"  # our wrappers, our entry in a conditioning, our table in transformer_options
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
    table: dict[UUID, StagedContext] = {}
    for name, uuid, entry in carrying:
        if (contexts := honoured(entry[KEY], entry["cross_attn"], name)) is not None:
            # In the prompt's own dtype, so that what is done to its rows can be told bit by bit.
            plain = entry["model_conds"]["c_crossattn"].cond
            contexts = contexts.map(lambda x: x.to(sigmas.device))
            table[uuid] = replace(contexts, reference=plain)
    reached: set[UUID] = set()
    # A tuple, because the host merges nested dicts of these options by copy.
    extra_args["model_options"]["transformer_options"][KEY] = (table, reached)
    if not here:
        return executor(guider, sigmas, extra_args, *args, **kwargs)
    account, sampler = here
    with account.run(sampler, guider.model_patcher.get_attachment(APPLIED) or ()):
        samples = executor(guider, sigmas, extra_args, *args, **kwargs)
    first, last = span_of(guider.inner_model.model_sampling, sigmas)
    for name, uuid, entry in carrying:
        if APPLIED in entry:
            arrival = account.at(sampler, entry[APPLIED])
            arrival.carried = True
            if uuid in table:
                arrival.note(
                    uuid in reached, (first, last), table[uuid].edges, entry[APPLIED].active
                )
            arrival.zeroed |= uuid not in table and name != "negative"
    return samples


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


def honoured(contexts: StagedContext, plain: Tensor, name: str) -> StagedContext | None:
    """Returns the contexts with what other nodes did to the plain tensor (1, L', C) done to every
    stage.

    Appended tokens are appended, an average's difference is added, a zeroed entry has no identity
    left (None).

    Arguments:
        name: Of the list that the entry is in, "positive" for one.
    """
    reference = contexts.reference
    length = reference.shape[1]
    if len(plain) != 1 or plain.shape[1] < length or plain.shape[2] != reference.shape[2]:
        raise MismatchError(
            f"{name}: a node after Apply SeFi Conditioning has made its prompt of {length} tokens, "
            f"{reference.shape[2]} numbers each, into {len(plain)} of {plain.shape[1]} tokens, "
            f"{plain.shape[2]} numbers each, where the identity has no place; take that node out."
        )
    plain = plain.to(reference)
    own, appended = plain.tensor_split([length], dim=1)
    if not own.any():
        return None
    times = contexts.keys.shape[1] // length  # contexts are whole repetitions of the prompt
    if not torch.equal(own, reference):
        own, reference = own.repeat(1, times, 1), reference.repeat(1, times, 1)
        contexts = contexts.map(lambda x: own + (x - reference))
    # After each repetition, so that the whole stays aligned with the repeated plain tensor.
    appended = appended.expand(times, -1, -1)
    return contexts.map(
        lambda x: torch.cat(
            [x.unflatten(1, (times, length)), appended.expand(len(x), -1, -1, -1)], dim=2
        ).flatten(1, 2)
    )
