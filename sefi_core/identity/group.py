"""Several identities for one prompt, each with a placeholder of its own.

A group is read like a single identity, through `members`: whoever encodes or saves one needs to
know no difference.
"""

__all__ = ["IdentityGroup", "combine", "joined", "require_names"]

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

from ..errors import MismatchError, PromptError
from ..families import family_name
from ..prompts import occurrences
from ..words import cleaned, narrowed
from .identity import Identity

MOST = 4  # identities in one prompt; the paper's authors find that three already run together


@dataclass(frozen=True, eq=False)
class IdentityGroup:
    """Two to four identities of one family.

    Arguments:
        members: Each with its own placeholder, none of which can be taken for another.
        metadata: Text about all of them, by the keys of the identity file.
    """

    members: tuple[Identity, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 2 <= len(self.members) <= MOST:
            raise MismatchError(
                f"identity: it holds {len(self.members)} identities, one prompt takes 2 to {MOST}; "
                "combine fewer."
            )
        first, *others = self.members
        for other in others:
            if other.widths != first.widths:
                raise MismatchError(
                    f'identity: "{first.placeholder}" was trained for {family_name(first.widths)}, '
                    f'"{other.placeholder}" for {family_name(other.widths)}; combine identities of '
                    "one family."
                )
        require_names(member.placeholder for member in self.members)

    @property
    def widths(self) -> dict[str, int]:
        """Token widths E by encoder name: what makes it fit a checkpoint."""
        return self.members[0].widths

    @property
    def placeholder(self) -> str:
        """All placeholders, for people to read."""
        return ", ".join(member.placeholder for member in self.members)

    def single(self, field: str) -> Identity:
        """Refuses, in the name of the input `field`, which takes a single identity."""
        raise MismatchError(
            f"{field}: it holds {len(self.members)} identities ({self.placeholder}), this node "
            "takes a single one; connect each before they are combined."
        )

    def named(self, placeholder: str) -> "IdentityGroup":
        """Returns itself; refuses another placeholder."""
        if cleaned(placeholder):
            raise PromptError(
                f"placeholder: the identity holds {len(self.members)} with names of their own "
                f"({self.placeholder}); leave it empty, and change names in Combine SeFi "
                "Identities."
            )
        return self

    def without(self, key: str) -> "IdentityGroup":
        """Returns it without one entry of its metadata and of its members'."""
        kept = {name: text for name, text in self.metadata.items() if name != key}
        return IdentityGroup(tuple(member.without(key) for member in self.members), kept)

    def require_family(self, widths: Mapping[str, int]) -> None:
        """Raises MismatchError unless the text encoders' token widths are the identities'."""
        self.members[0].require_family(widths)


def require_names(names: Iterable[str]) -> None:
    """Raises PromptError unless each name can stand in a prompt and is in none of the others."""
    names = [cleaned(name) for name in names]
    for name in names:
        if not re.fullmatch(r"[^\s(){}|\\]{1,40}", narrowed(name)):
            raise PromptError(
                f'name: "{" ".join(name[:60].split())}" cannot stand in a '
                "prompt; write 1 to 40 signs without spaces, brackets, | and \\, such as <a>."
            )
    for one, other in permutations(names, 2):
        if any(occurrences(other, [one])):
            raise PromptError(
                f'name: "{one}" would also be found in "{other}"; '
                "give every identity a name of its own, such as <a> and <b>."
            )


def combine(
    identities: Iterable[Identity | IdentityGroup | None], names: Sequence[str]
) -> IdentityGroup:
    """Returns the identities, by inputs identity_1, identity_2 ..., under the names of name_1 ...;
    None is an input with nothing connected.
    """
    return IdentityGroup(
        tuple(
            replace(identity.single(f"identity_{i}"), placeholder=cleaned(name))
            for i, (identity, name) in enumerate(zip(identities, names, strict=True), 1)
            if identity is not None
        )
    )


def joined(members: Sequence[Identity], metadata: Mapping[str, str]) -> Identity | IdentityGroup:
    """Returns a single identity as itself, several as a group with `metadata`."""
    return members[0] if len(members) == 1 else IdentityGroup(tuple(members), metadata)
