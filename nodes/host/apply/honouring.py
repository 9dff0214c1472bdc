"""What other nodes did to a prompt's plain tensor, done to every stage of its contexts; what cannot
be followed is refused.
"""

__all__ = ["honoured", "stands_in"]

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ....sefi_core.contexts import StagedContext, concatenated
from ....sefi_core.errors import MismatchError
from ....sefi_core.stages import TIMESTEPS
from .arrivals import Applied

CHUNK = 77  # tokens; prompts are whole chunks


def honoured(
    contexts: StagedContext,
    plain: Tensor,
    name: str,
    others: Mapping[Applied, StagedContext],
) -> tuple[StagedContext | None, list[Applied]]:
    """Returns the contexts with what other nodes did to the plain tensor (1, L', C) done to every
    stage, and whose prompts stand in it as well.

    Appended tokens are appended, with their identity if it is known; an average's difference is
    added; a zeroed entry has no identity left (None).

    Arguments:
        name: Of the list that the entry is in, "positive" for one.
        others: Applies whose prompts another node may have appended.
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
        return None, []
    if not torch.equal(own, reference):
        times = contexts.keys.shape[1] // length  # contexts are whole repetitions of the prompt
        own, reference = own.repeat(1, times, 1), reference.repeat(1, times, 1)
        contexts = contexts.map(lambda x: own + (x - reference))
    if not appended.shape[1]:
        return contexts, []
    parts = list(appended_parts(appended, others))
    found = [applied for applied, _ in parts if applied is not None]
    return concatenated([contexts, *(part for _, part in parts)]), found


def appended_parts(
    appended: Tensor, others: Mapping[Applied, StagedContext]
) -> Iterator[tuple[Applied | None, StagedContext]]:
    """Yields the prompts that tokens (1, L, C) consist of, in their order, with whose each is: one
    that is an Apply's own bit for bit brings its contexts, others stand for themselves.
    """
    start = at = 0
    while at < appended.shape[1]:
        rest = appended[:, at:]
        for applied, contexts in others.items():
            length = contexts.reference.shape[1]
            if torch.equal(rest[:, :length], contexts.reference.to(rest)):
                if start < at:
                    yield None, alone(appended[:, start:at])
                yield applied, contexts.map(lambda x: x.to(appended))
                start = at = at + length
                break
        else:
            at += CHUNK
    if start < appended.shape[1]:
        yield None, alone(appended[:, start:])


def stands_in(prompt: Tensor, plain: Tensor) -> bool:
    """Returns whether a prompt (1, L, C) is another (1, L', C), or bit for bit a part of it. One of
    the same words that was encoded by itself is not it.
    """
    length = prompt.shape[1]
    if plain.shape == prompt.shape:
        return plain.data_ptr() == prompt.data_ptr()
    return any(
        torch.equal(plain[:, at : at + length], prompt.to(plain))
        for at in range(0, plain.shape[1], CHUNK)
    )


def alone(plain: Tensor) -> StagedContext:
    """Returns a plain prompt (1, L, C) as contexts of one stage."""
    return StagedContext(plain, plain, plain, (TIMESTEPS, 0))
