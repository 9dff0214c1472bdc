"""An identity: what one training learned, frozen."""

__all__ = ["Identity", "aligned"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import MismatchError
from ..families import family_name
from ..prompts import DEFAULT_PLACEHOLDER
from ..stages import TIMESTEPS, even_edges, stage_of, union_edges
from ..words import cleaned


@dataclass(frozen=True, eq=False)
class Identity:
    """Token pairs (P_i^K, P_i^V) by text encoder.

    Arguments:
        pairs: By encoder name ("clip_l", "clip_g", "clip_h") a float32 tensor (S, 2, T, E) on the
            CPU; index 0 of axis 1 is K, index 1 is V; stage 0 is the noisiest.
        class_word: The general concept that stands where the identity does not act.
        placeholder: The word that stands for it in a prompt.
        edges: The S + 1 timesteps that bound the stages, descending from 1000 to 0; even ones if
            empty.
        metadata: Text about it, by the keys of the identity file.
        strengths: For every stage how far K and V lead from the class word (0) to the pair (1); all
            the way if empty.
    """

    pairs: Mapping[str, Tensor]
    class_word: str = "person"
    placeholder: str = DEFAULT_PLACEHOLDER
    edges: tuple[int, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    strengths: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not self.pairs:
            raise MismatchError(
                "identity: it holds no token pairs for any text encoder; load another or train "
                "it again."
            )
        self.require_pairs()
        if not self.edges:
            object.__setattr__(self, "edges", even_edges(self.stages))
        if not self.strengths:
            object.__setattr__(self, "strengths", ((1.0, 1.0),) * self.stages)
        self.require_stages()

    def require_pairs(self) -> None:
        """Raises MismatchError unless the pairs are of one shape (S, 2, T, ...) and finite."""
        shapes = {name: tuple(pairs.shape) for name, pairs in self.pairs.items()}
        for name, shape in shapes.items():
            if (
                len(shape) != 4
                or shape[1] != 2
                or shape[:3] != next(iter(shapes.values()))[:3]
                or 0 in shape
            ):
                raise MismatchError(
                    f"identity: its numbers for the text encoder {name} are not a K and a V for "
                    "every stage, with as many stages and tokens as for the other encoders; load "
                    "another or train it again."
                )
            if not torch.isfinite(self.pairs[name]).all():
                raise MismatchError(
                    f"identity: the pairs of {name} hold values that are not finite; load another "
                    "or train it again."
                )

    def require_stages(self) -> None:
        """Raises MismatchError unless edges and strengths are those of S stages."""
        descending = all(a > b for a, b in zip(self.edges, self.edges[1:], strict=False))
        if (
            len(self.edges) != self.stages + 1
            or not descending
            or (self.edges[0], self.edges[-1]) != (TIMESTEPS, 0)
        ):
            raise MismatchError(
                f"identity: its stage edges are {list(self.edges)[:60]}, expected "
                f"{self.stages + 1} whole numbers falling from {TIMESTEPS} to 0; load another or "
                "train it again."
            )
        if len(self.strengths) != self.stages or not all(
            len(pair) == 2 and all(0.0 <= strength <= 1.0 for strength in pair)
            for pair in self.strengths
        ):
            raise MismatchError(
                f"identity: its strengths are {str(self.strengths)[:120]}, expected two numbers "
                f"from 0 to 1 for each of {self.stages} stages; load another or edit it again."
            )

    @property
    def stages(self) -> int:
        """The number of stages S."""
        return next(iter(self.pairs.values())).shape[0]

    @property
    def tokens(self) -> int:
        """The number of tokens T that one placeholder takes in the prompt."""
        return next(iter(self.pairs.values())).shape[2]

    @property
    def widths(self) -> dict[str, int]:
        """Token widths E by encoder name: what makes it fit a checkpoint."""
        return {name: pairs.shape[-1] for name, pairs in self.pairs.items()}

    @property
    def members(self) -> tuple["Identity", ...]:
        """Itself: one identity is read like a group of one."""
        return (self,)

    def single(self, field: str) -> "Identity":
        """Returns itself; a group refuses, in the name of the input `field`."""
        return self

    def named(self, placeholder: str) -> "Identity":
        """Returns it with another placeholder, or with its own if that is empty."""
        name = cleaned(placeholder)
        return replace(self, placeholder=name) if name else self

    def without(self, key: str) -> "Identity":
        """Returns it without one entry of its metadata."""
        kept = {name: text for name, text in self.metadata.items() if name != key}
        return replace(self, metadata=kept)

    def require_family(self, widths: Mapping[str, int]) -> None:
        """Raises MismatchError unless the text encoders' token widths are the identity's."""
        if self.widths != dict(widths):
            raise MismatchError(
                f"identity: it was trained for {family_name(self.widths)}, the CLIP is "
                f"{family_name(widths)}; load a checkpoint of the identity's family, or train the "
                "identity again on this one."
            )

    def resampled(self, edges: tuple[int, ...]) -> "Identity":
        """Returns it cut at `edges`, which include its own: at every timestep it is as before."""
        stages = stage_of(torch.tensor(edges[1:]), self.edges)  # (S',)
        return replace(
            self,
            pairs={name: pairs[stages] for name, pairs in self.pairs.items()},
            edges=edges,
            strengths=tuple(self.strengths[stage] for stage in stages.tolist()),
        )

    def within(self, low: int, high: int) -> "Identity":
        """Returns it acting for timesteps low <= t < high alone; elsewhere the class word stands
        in.
        """
        cut = self.resampled(union_edges(self.edges, (t for t in (low, high) if 0 < t < TIMESTEPS)))
        starts = cut.edges[1:]  # the lowest timestep of each stage
        return replace(
            cut,
            strengths=tuple(
                pair if low <= start < high else (0.0, 0.0)
                for pair, start in zip(cut.strengths, starts, strict=True)
            ),
        )

    def acting(self, strengths: tuple[float, float], words: Mapping[str, Tensor]) -> Tensor:
        """Returns (S, 2), bool: where it is anything but the class word, given further strengths of
        K and of V.

        Arguments:
            words: The class word's tokens (n, E) by encoder; their mean is the class word as well.
        """
        acts = torch.zeros(self.stages, 2, dtype=torch.bool)
        means = {name: tokens.mean(dim=0) for name, tokens in words.items()}
        for name, tokens in self.variants(means, strengths).items():
            plain = (tokens == means[name]).flatten(2).all(dim=2)
            if self.tokens == len(words[name]):
                plain |= (tokens == words[name]).flatten(2).all(dim=2)
            acts |= ~plain
        return acts & ((torch.tensor(self.strengths) * torch.tensor(strengths)) != 0.0)

    def variants(
        self, class_tokens: Mapping[str, Tensor], strengths: tuple[float, float]
    ) -> dict[str, Tensor]:
        """Returns tokens (S, 2, T, E) by encoder, on the way from the class word's (E,) (0) to the
        learned (1).

        Arguments:
            strengths: How far for K and for V, on top of its own strengths.
        """
        strength = (torch.tensor(self.strengths) * torch.tensor(strengths)).view(-1, 2, 1, 1)
        return {
            name: torch.lerp(class_tokens[name].expand_as(pairs), pairs, strength.expand_as(pairs))
            for name, pairs in self.pairs.items()
        }


def aligned(identities: Iterable[Identity]) -> list[Identity]:
    """Returns identities cut at the union of their edges, so that all have the same stages."""
    identities = list(identities)
    edges = union_edges(*(identity.edges for identity in identities))
    return [identity.resampled(edges) for identity in identities]
