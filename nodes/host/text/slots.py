"""A tokenised prompt with its placeholders' slots open.

Prompt weights, long prompts and embeddings are the host's tokenizer's business: the slots are found
by marks that the tokenizer has been through like any word.
"""

__all__ = ["END_TOKEN", "SlottedPrompt", "chunks_of", "word_ids"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from comfy.sd import CLIP
from torch import Tensor

from ....sefi_core.errors import PromptError, one_line
from ....sefi_core.families import ENCODERS
from ....sefi_core.prompts import placeholders_in, plain_noun, replace_placeholders

END_TOKEN = 49407  # of every CLIP vocabulary
# What the host's tokenizers call the encoders of identity files; no other file knows it.
HOST_NAMES = {name: name.removeprefix("clip_") for name in ENCODERS}

# Words of one token each that hardly anyone writes: they mark the slots while the host tokenises.
SLOT_WORDS = ("sks", "hta", "olis", "phol", "ohwx", "bnha", "jfc", "nlwx")


@dataclass(frozen=True)
class SlottedPrompt:
    """A tokenised prompt: as it reads with the class words, and with its slots open.

    Attributes:
        placed: The placeholders that stand in the text.
        reference: The host's tokens of the text with the class words.
        tokens: By encoder, the chunks of tokens with a mark of one token in every slot.
        slots: By encoder, {(chunk, position): placeholder}, in the text's order.
    """

    placed: list[str]
    reference: dict
    tokens: dict
    slots: dict[str, dict[tuple[int, int], str]]

    @classmethod
    def read(
        cls, clip: CLIP, text: str, words: Mapping[str, str], field: str = "text"
    ) -> "SlottedPrompt":
        """Tokenises `text` around its placeholders.

        Arguments:
            words: The class word of every placeholder that may stand in the text.
            field: The input that the text is from.

        Raises:
            PromptError: None of them does, or a class word is no noun.
        """
        words = {placeholder: plain_noun(word) for placeholder, word in words.items()}
        placed = placeholders_in(text, words)
        reference = replace_placeholders(text, words)
        for marks in marks_beside(clip, reference, len(placed)):
            marked = dict(zip(placed, marks, strict=True))
            tokens = tokens_of(clip, replace_placeholders(text, marked))
            slots = {name: slots_of(clip, name, tokens[name], marked) for name in tokens}
            if all(set(found.values()) == set(placed) for found in slots.values()):
                return cls(placed, clip.tokenize(reference), tokens, slots)
        raise PromptError(
            f'{field}: the place of "{one_line(" and ".join(placed))}" in "{one_line(text)}" '
            "could not be found; put spaces around it and simplify what stands beside it."
        )

    def filled(self, variants: Mapping[str, list[Mapping[str, Tensor]]]) -> dict:
        """Returns host tokens of all variants, one prompt after the other as sections of one.

        Arguments:
            variants: By encoder, for every variant the tokens (T, E) of each placeholder.
        """
        return {
            HOST_NAMES[name]: [
                fill_chunk(
                    chunk, {p: tokens[s] for (c, p), s in self.slots[name].items() if c == i}
                )
                for tokens in variants[name]
                for i, chunk in enumerate(chunks)
            ]
            for name, chunks in self.tokens.items()
        }


def marks_beside(clip: CLIP, text: str, count: int) -> Iterator[tuple[str, ...]]:
    """Yields choices of `count` marks that are one token each and do not stand in a text."""
    tokens = tokens_of(clip, text)
    free = [
        mark
        for mark in SLOT_WORDS
        if all(
            len(ids := word_ids(clip, name, mark)) == 1 and not positions(chunks, ids[0])
            for name, chunks in tokens.items()
        )
    ]
    for i in range(len(free) - count + 1):
        yield tuple(free[i : i + count])


def tokens_of(clip: CLIP, text: str) -> dict[str, list[list[tuple]]]:
    """Returns the host's chunks of tokens by the names that encoders have in identity files."""
    return chunks_of(clip.tokenize(text))


def chunks_of(tokens: dict) -> dict[str, list[list[tuple]]]:
    """Returns the host's tokens by the names that encoders have in identity files."""
    return {name: tokens[own] for name, own in HOST_NAMES.items() if own in tokens}


def word_ids(clip: CLIP, name: str, word: str) -> list[int]:
    """Returns a word's token ids for an encoder, without start, end and padding."""
    tokenizer = getattr(clip.tokenizer, name)
    ids = [token for token, *_ in tokenizer.tokenize_with_weights(word, disable_weights=True)[0]]
    return ids[1 : ids.index(END_TOKEN)]


def slots_of(
    clip: CLIP, name: str, chunks: list[list[tuple]], marked: Mapping[str, str]
) -> dict[tuple[int, int], str]:
    """Returns {(chunk, position): placeholder} of every mark."""
    found = {
        place: placeholder
        for placeholder, mark in marked.items()
        for place in positions(chunks, word_ids(clip, name, mark)[0])
    }
    return dict(sorted(found.items()))


def positions(chunks: list[list[tuple]], token_id: int) -> list[tuple[int, int]]:
    """Returns (chunk, position) of every `token_id`; entries may be embeddings in place of ids."""
    return [
        (i, p)
        for i, chunk in enumerate(chunks)
        for p, (token, *_) in enumerate(chunk)
        if isinstance(token, int) and token == token_id
    ]


def fill_chunk(chunk: list[tuple], slots: Mapping[int, Tensor]) -> list[tuple]:
    """Returns a chunk with tokens (T, E) in each slot; they may push out padding only."""
    filled = []
    for position, (token, *rest) in enumerate(chunk):
        filled += [(each, *rest) for each in slots.get(position, (token,))]
    padding = chunk[-1][0]
    lost = [
        token
        for token, *_ in filled[len(chunk) - 1 :]
        if torch.is_tensor(token) or token != padding
    ]
    if lost:
        most = max(len(tokens) for tokens in slots.values())
        raise PromptError(
            f"text: an identity of {most} tokens does not fit into this part of the prompt; take "
            f"out {len(lost)} words or more."
        )
    return filled[: len(chunk)]
