"""Batches of captioned pictures, drawn while training: batch i depends on the seed and i alone.

Drawing takes 0.6 ms a picture, so there is no pool on disk and no picture comes twice.
"""

__all__ = ["Batch", "Batches", "Words", "pictures_to_range"]

from collections.abc import Iterator
from dataclasses import dataclass

import comfy.sd1_clip
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from .captions import Caption, caption, vocabulary
from .drawing import render, sample
from .model import PROMPT_TOKENS
from .subjects import KINDS, TRAITS, code

CAPTION_DROPOUT = 0.1
WIDEST = max(len(traits) for traits in TRAITS.values())


@dataclass(frozen=True)
class Batch:
    """Pictures (B, N, N, 3) uint8, caption indices (B, L), and named slots as `Miniature.embed`."""

    pictures: Tensor
    indices: Tensor
    slots: Tensor
    codes: Tensor


class Words:
    """CLIP's own tokens of the world's vocabulary, numbered from 0: start and end come first."""

    def __init__(self) -> None:
        self.tokenizer = comfy.sd1_clip.SDTokenizer().tokenizer
        found = {word: self.token(word) for word in vocabulary()}
        ids = [*self.tokenizer("")["input_ids"], *sorted(found.values())]
        self.tokens = torch.tensor(ids)  # (n,)
        self.numbers = {word: ids.index(token) for word, token in found.items()}

    def token(self, word: str) -> int:
        """Returns the CLIP id of a word; the world only uses words that are one token."""
        _, token, _ = self.tokenizer(word)["input_ids"]
        return token

    def indices(self, words: Caption | None) -> list[int]:
        """Returns a padded caption (L,); None is the empty one."""
        found = [0, *(self.numbers[word] for word in (words.words if words else ()))]
        return found + [1] * (PROMPT_TOKENS - len(found))


class Batches(IterableDataset):
    """An endless row of batches, beginning with number `first`."""

    def __init__(self, words: Words, size: int, seed: int, first: int = 0) -> None:
        self.words, self.size, self.seed, self.first = words, size, seed, first

    def __iter__(self) -> Iterator[Batch]:
        number = self.first
        while True:
            yield self.batch(np.random.default_rng((self.seed, number)))
            number += 1

    def batch(self, rng: np.random.Generator) -> Batch:
        """Draws one batch."""
        pictures, indices, slots, codes = [], [], [], []
        for row in range(self.size):
            picture = sample(rng)
            words = caption(picture, rng)
            pictures.append(torch.tensor(render(picture, rng)))
            kept = words if rng.random() >= CAPTION_DROPOUT else None
            indices.append(self.words.indices(kept))
            for word, subject in (kept.named if kept else {}).items():
                slots.append((row, 1 + word, KINDS.index(subject.kind)))
                codes.append(np.resize(code(subject), WIDEST))
        return Batch(
            torch.stack(pictures),
            torch.tensor(indices),
            torch.tensor(slots).reshape(-1, 3),
            torch.from_numpy(np.array(codes, dtype=np.float32).reshape(-1, WIDEST)),
        )


def pictures_to_range(pictures: Tensor) -> Tensor:
    """Returns pictures (B, N, N, 3) uint8 as (B, 3, N, N) float in [-1, 1]."""
    return pictures.movedim(-1, 1).float() / 127.5 - 1.0
