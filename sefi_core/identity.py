"""An identity: what one training learned, frozen."""

__all__ = ["Identity", "family_name"]

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .errors import MismatchError
from .prompts import DEFAULT_PLACEHOLDER
from .stages import TIMESTEPS, even_edges

FAMILIES = {
    (("clip_l", 768),): "SD 1.x",
    (("clip_h", 1024),): "SD 2.x",
    (("clip_g", 1280), ("clip_l", 768)): "SDXL",
    (("clip_g", 1280),): "the SDXL refiner",
}


def family_name(widths: Mapping[str, int]) -> str:
    """Returns an artist's name for text encoders of these widths: "SD 1.x (clip_l 768)"."""
    listed = " + ".join(f"{name} {width}" for name, width in sorted(widths.items()))
    known = FAMILIES.get(tuple(sorted(widths.items())))
    return f"{known} ({listed})" if known else f"a model with {listed}"


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
    """

    pairs: Mapping[str, Tensor]
    class_word: str = "person"
    placeholder: str = DEFAULT_PLACEHOLDER
    edges: tuple[int, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.pairs:
            raise MismatchError(
                "identity: it holds no token pairs for any text encoder; load another or train "
                "it again."
            )
        if not self.edges:
            object.__setattr__(self, "edges", even_edges(self.stages))
        shapes = {name: tuple(pairs.shape) for name, pairs in self.pairs.items()}
        for name, shape in shapes.items():
            if (
                len(shape) != 4
                or shape[1] != 2
                or shape[:3] != next(iter(shapes.values()))[:3]
                or 0 in shape
            ):
                raise MismatchError(
                    f"identity: the pairs of {name} have shape {list(shape)}, expected [stages, "
                    "2, tokens, width] with the same stages and tokens for every text encoder; "
                    "load another or train it again."
                )
            if not torch.isfinite(self.pairs[name]).all():
                raise MismatchError(
                    f"identity: the pairs of {name} hold values that are not finite; load another "
                    "or train it again."
                )
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

    def require_family(self, widths: Mapping[str, int]) -> None:
        """Raises MismatchError unless the text encoders' token widths are the identity's."""
        if self.widths != dict(widths):
            raise MismatchError(
                f"identity: it was trained for {family_name(self.widths)}, the CLIP is "
                f"{family_name(widths)}; load a checkpoint of the identity's family, or train the "
                "identity again on this one."
            )

    def variants(
        self, class_tokens: Mapping[str, Tensor], strengths: tuple[float, float]
    ) -> dict[str, Tensor]:
        """Returns tokens (S, 2, T, E) by encoder, on the way from the class word's (E,) (0) to the
        learned (1).

        Arguments:
            strengths: How far for K and for V.
        """
        strength = torch.tensor(strengths, dtype=torch.float32).view(1, 2, 1, 1)
        return {
            name: torch.lerp(class_tokens[name].expand_as(pairs), pairs, strength.expand_as(pairs))
            for name, pairs in self.pairs.items()
        }
