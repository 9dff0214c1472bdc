"""The families of checkpoints that identities are made for, by their text encoders."""

__all__ = [
    "ENCODERS",
    "FAMILIES",
    "SD1",
    "SD2",
    "SDXL",
    "Family",
    "family_name",
    "family_of_context",
    "family_of_widths",
]

from collections.abc import Mapping
from dataclasses import dataclass

ENCODERS = ("clip_l", "clip_g", "clip_h")


@dataclass(frozen=True)
class Family:
    """What is known of a family.

    Attributes:
        name: As artists call it.
        widths: Token width E by encoder name; cross-attention reads their contexts side by side.
        architecture: By the model-metadata specification; `velocity_architecture` where the model
            predicts velocity.
        side: Of the pictures it was made for, in pixels; `velocity_side` likewise.
        pooled: The encoder whose pooled vector the UNet reads beside the context, if any.
        recomputed: Whether its trainings always compute blocks again in the backward pass.
    """

    name: str
    widths: tuple[tuple[str, int], ...]
    architecture: str = "custom"
    velocity_architecture: str = ""
    side: int = 512
    velocity_side: int = 0
    pooled: str = ""
    recomputed: bool = False

    @property
    def context(self) -> int:
        """The width of the contexts that cross-attention reads."""
        return sum(width for _, width in self.widths)

    def named(self, velocity: bool) -> str:
        """Returns the architecture of a model that predicts velocity, or does not."""
        return (velocity and self.velocity_architecture) or self.architecture

    def own_side(self, velocity: bool) -> int:
        """Returns the side in pixels of the pictures that such a model was made for."""
        return (velocity and self.velocity_side) or self.side


SD1 = Family("SD 1.x", (("clip_l", 768),), "stable-diffusion-v1")
SD2 = Family(
    "SD 2.x",
    (("clip_h", 1024),),
    "stable-diffusion-v2-512",
    velocity_architecture="stable-diffusion-v2-768-v",
    velocity_side=768,
)
SDXL = Family(
    "SDXL",
    (("clip_g", 1280), ("clip_l", 768)),
    "stable-diffusion-xl-v1-base",
    side=1024,
    pooled="clip_g",
    recomputed=True,
)
REFINER = Family("the SDXL refiner", (("clip_g", 1280),), "stable-diffusion-xl-v1-base")
FAMILIES = (SD1, SD2, SDXL, REFINER)


def family_of_widths(widths: Mapping[str, int]) -> Family | None:
    """Returns the family whose text encoders have these token widths."""
    given = tuple(sorted(widths.items()))
    return next((family for family in FAMILIES if family.widths == given), None)


def family_name(widths: Mapping[str, int]) -> str:
    """Returns an artist's name for text encoders of these widths: "SD 1.x (clip_l 768)"."""
    listed = " + ".join(f"{name} {width}" for name, width in sorted(widths.items()))
    known = family_of_widths(widths)
    return f"{known.name} ({listed})" if known else f"a model with {listed}"


def family_of_context(width: int) -> str:
    """Returns an artist's name for a model whose cross-attention reads contexts this wide: the
    widths of its text encoders together.
    """
    known = next((family.name for family in FAMILIES if family.context == width), None)
    return f"{known} (context {width})" if known else f"a model with context {width}"
