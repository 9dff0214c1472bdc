"""New identities out of learned ones, without training (the paper's Fig. 4 as arithmetic).

Where the class word shall stand in, the strength is 0 and the pair, which then means nothing, is
zero: an identity keeps nothing that it does not use.
"""

__all__ = ["AXES", "SOURCES", "blend", "edit", "require_edit", "stage_mean"]

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import MismatchError, SettingsError, one_line
from ..families import family_name
from ..stages import chosen_stages, stage_of
from .group import IdentityGroup
from .identity import Identity, aligned

AXES = ("keys", "values")
MOST_STAGES = 50
CLASS_WORD, SECOND = "class word", "second identity"
SOURCES = {
    "keys": ("keep", "values", CLASS_WORD, SECOND),
    "values": ("keep", "keys", CLASS_WORD, SECOND),
}


def edit(
    identity: Identity | IdentityGroup,
    keys: str,
    values: str,
    stages: str,
    second_identity: Identity | IdentityGroup | None = None,
) -> Identity:
    """Returns the identity with keys and values of the chosen stages from elsewhere.

    Arguments:
        keys, values: One of SOURCES each. Keys from "values" and values from "keys" swap them.
        stages: Of the first identity, counted from 1: "all", "1", "1-2, 5".
    """
    identity = identity.single("identity")
    chosen = torch.tensor(chosen_stages(stages, identity.stages))  # (S,)
    sources = {"keys": keys, "values": values}
    require_edit(keys, values, None)
    second = identity
    if SECOND in (keys, values):
        edges = identity.edges
        identity, second = aligned([identity, required_second(identity, second_identity)])
        chosen = chosen[stage_of(torch.tensor(identity.edges[1:]), edges)]  # (S',)
    pairs = {name: tensor.clone() for name, tensor in identity.pairs.items()}
    strengths = strengths_of(identity)
    for axis, field in enumerate(AXES):
        source = sources[field]
        origin = second if source == SECOND else identity
        taken = AXES.index(source) if source in AXES else axis
        acts = 0.0 if source == CLASS_WORD else 1.0
        strengths[chosen, axis] = strengths_of(origin)[chosen, taken] * acts
        for name, tensor in pairs.items():
            tensor[chosen, axis] = origin.pairs[name][chosen, taken] * acts
    return derived(identity, pairs, strengths, [identity, second])


def require_edit(keys: str | None, values: str | None, stages: str | None) -> None:
    """Raises SettingsError for inputs of an edit that no identity can have; None is one that comes
    later.
    """
    for field, source in (("keys", keys), ("values", values)):
        if source is not None and source not in SOURCES[field]:
            raise SettingsError(
                f'{field}: "{one_line(str(source))}" is unknown; choose '
                f"{', '.join(SOURCES[field])}."
            )
    if stages is not None:
        chosen_stages(stages, MOST_STAGES)


def required_second(first: Identity, second: Identity | IdentityGroup | None) -> Identity:
    """Returns the second identity of an edit.

    Raises:
        SettingsError: There is none.
    """
    if second is None:
        raise SettingsError(
            "second_identity: keys or values are to come from it, but nothing is connected; "
            "connect an identity, or choose something else for them."
        )
    second = second.single("second_identity")
    require_alike({"identity": first, "second_identity": second})
    return second


def blend(
    identities: Iterable[Identity | IdentityGroup | None],
    key_weights: Sequence[float],
    value_weights: Sequence[float],
) -> Identity:
    """Returns the weighted mean of identities; class word and placeholder are those of the first
    one that takes part.

    Arguments:
        identities: By inputs identity_1, identity_2 ...; None is one with nothing connected.
        key_weights, value_weights: Each one's share in K and in V, 0 or more; the shares need not
            add up to 1.
    """
    shares = torch.tensor([key_weights, value_weights], dtype=torch.float64).T  # (n, 2)
    used = {
        f"identity_{i}": (identity.single(f"identity_{i}"), share)
        for i, (identity, share) in enumerate(zip(identities, shares, strict=True), 1)
        if identity is not None and share.any()
    }
    total = sum((share for _, share in used.values()), torch.zeros(2, dtype=torch.float64))
    if (shares < 0.0).any() or not (total > 0.0).all():
        raise SettingsError(
            "key_weight_1, value_weight_1 and so on: over the connected identities the shares in "
            "keys, or in values, add up to nothing, or one is below 0; set at least one above 0."
        )
    require_alike({field: identity for field, (identity, _) in used.items()})
    members = aligned(identity for identity, _ in used.values())
    share = torch.stack([share / total for _, share in used.values()])[:, None]  # (M, 1, 2)
    acting = share * torch.stack([strengths_of(member) for member in members])  # (M, S, 2)
    # With P for the class word, the mean of all P + s (x - P) is again of this form.
    strengths = acting.sum(dim=0) / share.sum(dim=0)  # (S, 2)
    parts = (acting / acting.sum(dim=0).where(strengths > 0.0, 1.0)).float()[..., None, None]
    pairs = {
        name: weighted(parts, torch.stack([member.pairs[name] for member in members]))
        for name in members[0].pairs
    }
    return derived(members[0], pairs, strengths, members)


def weighted(parts: Tensor, pairs: Tensor) -> Tensor:
    """Returns the sum over axis 0 of parts * pairs, (M, S, 2, T, E); where all that take part are
    one pair, that pair to the last bit.
    """
    takes = parts > 0.0
    leading = pairs.gather(0, parts.argmax(dim=0, keepdim=True).expand_as(pairs[:1]))
    alike = ((pairs == leading) | ~takes).all(dim=0) & takes.any(dim=0)
    return leading[0].where(alike, (parts * pairs).sum(dim=0))


def stage_mean(identity: Identity, axis: int) -> dict[str, Tensor]:
    """Returns the mean token over the stages that act, (T, E) by encoder; nothing if none acts.

    Arguments:
        axis: 0 for the K tokens, 1 for the V tokens.
    """
    acts = strengths_of(identity)[:, axis] > 0.0
    if not acts.any():
        return {}
    return {name: pairs[acts, axis].mean(dim=0) for name, pairs in identity.pairs.items()}


def strengths_of(identity: Identity) -> Tensor:
    """Returns its strengths, (S, 2), in the precision of Python's numbers."""
    return torch.tensor(identity.strengths, dtype=torch.float64)


def derived(
    identity: Identity,
    pairs: Mapping[str, Tensor],
    strengths: Tensor,
    origins: Sequence[Identity],
) -> Identity:
    """Returns the identity with other pairs and strengths (S, 2), and the metadata that all its
    origins agree on.
    """
    first, *others = (origin.metadata for origin in origins)
    agreed = {
        name: text
        for name, text in first.items()
        if all(other.get(name) == text for other in others)
    }
    return replace(
        identity,
        pairs=pairs,
        strengths=tuple((key, value) for key, value in strengths.tolist()),
        metadata=agreed,
    )


def require_alike(identities: Mapping[str, Identity]) -> None:
    """Raises MismatchError unless identities, by their inputs, have tokens that can be mixed."""
    (field, first), *others = identities.items()
    for other_field, other in others:
        if other.widths != first.widths:
            raise MismatchError(
                f"{other_field}: it was trained for {family_name(other.widths)}, {field} for "
                f"{family_name(first.widths)}; connect identities of one family."
            )
        if other.tokens != first.tokens:
            raise MismatchError(
                f"{other_field}: it takes {other.tokens} tokens in a prompt, {field} takes "
                f"{first.tokens}; only identities of as many tokens can be mixed."
            )
