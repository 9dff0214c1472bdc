"""Which identities an execution has lost, each in one sentence for its artist."""

__all__ = ["kept_from_prompt", "losses"]

from collections.abc import Iterator, Mapping

from .arrivals import Applied, Arrival
from .graph import PromptGraph

MODEL = (
    "{who} has not reached {where}, whose model does not come from Apply SeFi Conditioning; "
    "connect its model there as well, after every loader, pipe or plot that brings one of its own."
)
WORDS = (
    "{who} has not reached {where}: a node in between has made a prompt of its own or kept the "
    "words of this one alone (a wildcard, Attention Couple, Average or Concat as "
    "conditioning_from); take it out, and put two people into one picture with Conditioning (Set "
    "Mask) and (Combine)."
)
SECOND = (
    "{who} has reached an earlier pass and not {where}, whose model comes from Apply SeFi "
    "Conditioning; connect its conditioning there as well."
)
FORGOTTEN = (
    "{who} has not reached {where}, though its model comes from Apply SeFi Conditioning; connect "
    "the conditioning of that node as well."
)
ZEROED = (
    "{who} has not reached {where}: a node such as Conditioning Zero Out has emptied its prompt; "
    "take that node out of the positive."
)
STRENGTH = "{who} does not act in {where}: its strength is 0; set strength higher."
RANGE = (
    "{who} does not act in {where}, which samples from {first} to {last} percent; set "
    "start_percent and end_percent so that they meet that."
)


def losses(
    graph: PromptGraph, arrivals: Mapping[str, Mapping[Applied, Arrival]]
) -> Iterator[tuple[str, str]]:
    """Yields (Apply's node, sentence) of every Apply that a sampler should have met and has not.

    Arguments:
        arrivals: What became of each Apply in each sampler that was seen at work.
    """
    for apply in graph.applies():
        names = [a.name for found in arrivals.values() for a in found if a.node == apply]
        for sampler in arrivals:
            if sentence := lost(graph, apply, sampler, arrivals):
                who = names[0] if names else "The identity"
                yield apply, sentence.format(who=who, where=graph.name(sampler))
                break


def kept_from_prompt(graph: PromptGraph, applied: Applied, sampler: str) -> str | None:
    """Returns the sentence about an Apply whose conditioning leads into a sampler by its model
    alone, as through Attention Couple, which can be told before it samples; or None.
    """
    if applied.node is None or graph.ways(applied.node, sampler) != {"MODEL"}:
        return None
    return WORDS.format(who=applied.name, where=graph.name(sampler))


def lost(
    graph: PromptGraph,
    apply: str,
    sampler: str,
    arrivals: Mapping[str, Mapping[Applied, Arrival]],
) -> str | None:
    """Returns the sentence about how a sampler has lost an Apply, None where all is well."""
    here = arrivals[sampler]
    mine = [arrival for applied, arrival in here.items() if applied.node == apply]
    if any(arrival.carried for arrival in mine):
        return idle(apply, sampler, arrivals)
    if any(arrival.given for arrival in mine):
        return MODEL
    if graph.ways(apply, sampler):
        return WORDS
    if graph.ways(apply, sampler, sure=False):  # a switch: it may have been meant to lose it
        return WORDS if any(arrival.words for arrival in mine) else None
    if not any(arrival.on_model for arrival in mine):
        return None
    if not any(arrival.carried for arrival in here.values()):
        if graph.ways(apply, sampler, pictures=True):
            return SECOND
        if not graph.connected(apply):
            return FORGOTTEN
    return None


def idle(apply: str, sampler: str, arrivals: Mapping[str, Mapping[Applied, Arrival]]) -> str | None:
    """Returns the sentence about an Apply that has come to a sampler and done nothing in it."""
    mine = {a: arrival for a, arrival in arrivals[sampler].items() if a.node == apply}
    if any(arrival.acted for arrival in mine.values()):
        return None
    if any(arrival.zeroed for arrival in mine.values()):
        return ZEROED
    for applied, arrival in mine.items():
        if arrival.span is None:
            continue
        if applied.active[0] >= applied.active[1]:
            return STRENGTH
        if not continued(apply, arrival.span, arrivals):
            first, last = (round(100 - t / 9.99) for t in arrival.span)
            return RANGE.replace("{first}", str(first)).replace("{last}", str(last))
    return None


def continued(
    apply: str, span: tuple[int, int], arrivals: Mapping[str, Mapping[Applied, Arrival]]
) -> bool:
    """Returns whether a sampling goes on, below its last timestep, from one in which the Apply has
    acted; or will be gone on from: one sampling in two halves.
    """
    others = [
        arrival.span
        for found in arrivals.values()
        for applied, arrival in found.items()
        if applied.node == apply and arrival.acted and arrival.span
    ]
    return any(last >= span[0] or span[1] >= first for first, last in others)
