"""What a host must offer: a frozen text encoder and a frozen diffusion model, both differentiable
in the tokens.
"""

__all__ = ["Backbone", "Prediction", "TextEncoder"]

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from .samples import Samples


@dataclass(frozen=True)
class Prediction:
    """One pass of the diffusion model.

    Attributes:
        output: What the model predicts (noise or velocity), shape (B, c, h, w), float32.
        target: What it should have predicted, same shape.
        maps: (A_r, A_t) of every captured cross-attention layer, each (B, H, N, L), float32; A_r is
            detached.
        sides: Height and width of each layer's picture tokens, N = height * width.
        to_velocity: What turns a difference in what the model predicts into one in velocity, (B,).
    """

    output: Tensor
    target: Tensor
    maps: list[tuple[Tensor, Tensor]]
    sides: list[tuple[int, int]]
    to_velocity: Tensor

    def as_velocity(self) -> "Prediction":
        """Returns the same with output and target in units of velocity (v of progressive
        distillation): their squared difference is then of one size at every noise level, where that
        of noise is the smaller the noisier the sample.
        """
        scale = self.to_velocity.view(-1, 1, 1, 1)
        return replace(self, output=self.output * scale, target=self.target * scale)

    def split(self, sizes: list[int]) -> list["Prediction"]:
        """Returns the predictions of consecutive samples, `sizes` of them each."""
        outputs, targets = self.output.split(sizes), self.target.split(sizes)
        maps = [[side.split(sizes) for side in layer] for layer in self.maps]
        scales = self.to_velocity.split(sizes)
        return [
            Prediction(
                outputs[i], targets[i], [(a[i], b[i]) for a, b in maps], self.sides, scales[i]
            )
            for i in range(len(sizes))
        ]


class TextEncoder(Protocol):
    """Training prompts with their placeholder's slots open: some lines, once for each caption."""

    class_tokens: Mapping[str, Tensor]
    """Embedding P of the class word by encoder name, each (E,)."""
    count: int
    """How many prompts there are."""
    lines: int
    """How many of them for each caption; those of one stand together."""

    def encode(self, tokens: Mapping[str, Tensor], prompts: Tensor) -> Tensor:
        """Returns contexts (B, L, C) of the prompts (B,), which are counted on the CPU, with tokens
        (B, T, E), by encoder name, in their slots.
        """
        ...

    def token_mask(self, scope: str, prompt: int = 0) -> Tensor:
        """Returns (L,) ones at the tokens of a prompt that an attention loss of `scope` looks at,
        zeros elsewhere; on the CPU, where whether there is any is known without waiting for a
        device.
        """
        ...


class Backbone(Protocol):
    """The diffusion model."""

    def nearest(self, timesteps: Tensor) -> Tensor:
        """Returns the timesteps (B,) that the model is made for near these: for most models these
        themselves, for a distilled one every 20th.
        """
        ...

    def near_the_end(self, timesteps: Tensor) -> Tensor:
        """Returns whether the noise of timesteps (B,) is nearly the strongest that the model is
        made for, with which a sampling begins, (B,), bool.
        """
        ...

    def predict(
        self, samples: Samples, keys: Tensor, values: Tensor, with_maps: bool
    ) -> Prediction:
        """Noises what is seen of samples to the timesteps nearest theirs, and denoises with key and
        value contexts (B, L, C); the target is their latents, seen or not.
        """
        ...
