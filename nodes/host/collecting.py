"""Which conditionings of a sampler run carry an identity, with what other nodes did to them.

An entry of CONDITIONING brings its StagedContext under "sefi" beside the plain tensor that other
nodes know. What they did to the plain one is done to every stage; what cannot be followed is
refused.
"""

__all__ = ["KEY", "collect_contexts"]

import logging
from uuid import UUID, uuid4

import torch
from comfy.patcher_extension import WrapperExecutor
from torch import Tensor

from ...sefi_core.contexts import StagedContext
from ...sefi_core.errors import MismatchError

log = logging.getLogger("sefi")

UNREACHED = (
    "No identity has reached this sampler, though its model comes from Apply SeFi Conditioning: "
    "connect its conditioning as well; in Concat and Average as conditioning_to."
)
KEY = "sefi"  # our wrappers, our entry in a conditioning, our table in transformer_options


def collect_contexts(
    executor: WrapperExecutor, guider: object, sigmas: Tensor, extra_args: dict, *args, **kwargs
) -> Tensor:
    """SAMPLER_SAMPLE: conditionings are encoded and areas resolved; builds this run's uuid ->
    StagedContext.
    """
    model = guider.inner_model
    dtype = model.manual_cast_dtype or model.get_dtype()
    carrying = own_entries(guider)
    if not carrying:
        log.warning(UNREACHED)
    table: dict[UUID, StagedContext] = {}
    for name, entry in carrying:
        if (contexts := honoured(entry[KEY], entry["cross_attn"], name)) is not None:
            table[entry["uuid"]] = contexts.map(lambda x: x.to(device=sigmas.device, dtype=dtype))
    # A tuple, because the host merges nested dicts of these options by copy.
    extra_args["model_options"]["transformer_options"][KEY] = (table,)
    return executor(guider, sigmas, extra_args, *args, **kwargs)


def own_entries(guider: object) -> list[tuple[str, dict]]:
    """Returns the entries that carry an identity, each with the name of its list.

    An area or mask prompt makes the host copy its entry, ours with it, into the opposite lists: the
    copies must act plain there and get an uuid of their own. Entries have been born in the list
    that the guider was given them in.
    """
    born = {
        entry["uuid"]: name for name, entries in guider.original_conds.items() for entry in entries
    }
    own = []
    for name, entries in guider.conds.items():
        for entry in (entry for entry in entries or () if KEY in entry):
            if born.get(entry["uuid"]) == name:
                own.append((name, entry))
            else:
                entry["uuid"] = uuid4()
    return own


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
            f"{name}: a node after Apply SeFi Conditioning has made its prompt of shape "
            f"{tuple(reference.shape)} into {tuple(plain.shape)}, where the identity has no place; "
            "take that node out."
        )
    plain = plain.to(reference)
    own, appended = plain.tensor_split([length], dim=1)
    if not own.any():
        return None
    times = contexts.keys.shape[1] // length  # contexts are whole repetitions of the prompt
    if not torch.equal(own, reference):
        own, reference = own.repeat(1, times, 1), reference.repeat(1, times, 1)
        contexts = contexts.map(lambda x: own + (x - reference))
    appended = appended.repeat(1, times, 1)
    return contexts.map(lambda x: torch.cat([x, appended.expand(len(x), -1, -1)], dim=1))
