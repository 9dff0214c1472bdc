"""Who and what is in a picture, by a small network trained on drawings alone, never on samples.

A network of 64 x 64 pictures answers: is there a person or a dog, whose traits are these, which
scene, which held thing, which attributes. Dogs are rare among the drawings, and how long an ear is
shows in few pixels, so a second body, begun as the first, went on with dogs alone and tells their
traits. Traits are codes (mean 0, variance 1), so that the identity of two pictures is the cosine of
what it says. Drawings are blurred, noised and passed through the miniature's patches while
training, so that it forgives what a sampler does.
"""

__all__ = ["JUDGE", "Judge", "Verdict", "identity", "load_judge"]

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from .drawing import ATTRIBUTES
from .scenery import OBJECTS, SCENES
from .subjects import KINDS, TRAITS

JUDGE = Path(__file__).with_name("judge.safetensors")

FOUND = (*KINDS, "nobody")
PLACES = (*SCENES, "plain")
THINGS = (*OBJECTS, "nothing")
HEADS = {
    "found": len(FOUND),
    "scene": len(PLACES),
    "thing": len(THINGS),
    "attributes": len(ATTRIBUTES),
    **{kind: len(TRAITS[kind]) for kind in KINDS},
}


@dataclass(frozen=True)
class Verdict:
    """What the judge says about B pictures, all float32.

    found: Probabilities of person, dog, nobody, shape (B, 3); Detect is 1 - the last.
    scene: Probabilities of the scenes and "plain", shape (B, 9).
    thing: Probabilities of the held things and "nothing", shape (B, 6).
    attributes: Probability of each attribute by itself, shape (B, 6).
    codes: Trait codes by kind, shapes (B, 9) and (B, 8); meaningful where the kind was found.
    """

    found: Tensor
    scene: Tensor
    thing: Tensor
    attributes: Tensor
    codes: dict[str, Tensor]

    def probability(self, word: str) -> Tensor:
        """Returns the probability (B,) of a scene, a thing or an attribute by its word."""
        for words, table in (
            (PLACES, self.scene),
            (THINGS, self.thing),
            (ATTRIBUTES, self.attributes),
            (FOUND, self.found),
        ):
            if word in words:
                return table[:, words.index(word)]
        raise KeyError(f"{word}: the judge knows {(*PLACES, *THINGS, *ATTRIBUTES, *FOUND)}")


def block(before: int, after: int, stride: int, size: int = 3) -> nn.Sequential:
    """Makes a convolution with its normalisation."""
    convolution = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.SiLU())


def body() -> nn.Sequential:
    """Makes convolutions to an 8 x 8 grid, pooled to 4 x 4, and 256 features of them."""
    return nn.Sequential(
        block(3, 40, 2, 5), block(40, 80, 2), block(80, 144, 2), block(144, 144, 1),
        nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(144 * 16, 256), nn.SiLU(),
    )  # fmt: skip


class Judge(nn.Module):
    """Two bodies, and one linear head a question."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.dogs = body(), body()
        self.heads = nn.ModuleDict({name: nn.Linear(256, width) for name, width in HEADS.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Returns each head's numbers for pictures (B, 3, 64, 64) in [-1, 1]."""
        features, of_dogs = self.body(pictures), self.dogs(pictures)
        return {
            name: head(of_dogs if name == "dog" else features) for name, head in self.heads.items()
        }

    @torch.no_grad()
    def look(self, pictures: Tensor) -> Verdict:
        """Judges pictures (B, H, W, 3) in [0, 1] of any size, as the host's IMAGE is."""
        pixels = pictures[..., :3].movedim(-1, 1).float() * 2.0 - 1.0
        if pixels.shape[-2:] != (64, 64):
            pixels = F.interpolate(pixels, (64, 64), mode="bilinear", antialias=True)
        answers = self(pixels)
        return Verdict(
            answers["found"].softmax(dim=-1),
            answers["scene"].softmax(dim=-1),
            answers["thing"].softmax(dim=-1),
            answers["attributes"].sigmoid(),
            {kind: answers[kind] for kind in KINDS},
        )


def identity(first: Tensor, second: Tensor) -> Tensor:
    """Returns the ID score: the cosine of two batches of codes (B, T), shape (B,)."""
    return F.cosine_similarity(first, second, dim=-1)


def load_judge(path: Path = JUDGE) -> Judge:
    """Loads the trained judge, ready to look."""
    judge = Judge()
    judge.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=False)
    return judge.requires_grad_(False).train(False)


if __name__ == "__main__":
    from .judge_train import main

    main()
