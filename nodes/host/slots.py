"""A tokenised prompt with its placeholder's slots open.

Prompt weights, long prompts and embeddings are the host's tokenizer's business: the slots are found
by a mark that the tokenizer has been through like any word.
"""

__all__ = ["END_TOKEN", "SlottedPrompt"]

from dataclasses import dataclass

from comfy.sd import CLIP
from torch import Tensor

from ...sefi_core.errors import PromptError, one_line
from ...sefi_core.prompts import replace_placeholder, require_noun

END_TOKEN = 49407  # of every CLIP vocabulary

# Words of one token each that hardly anyone writes: one of them marks the slot while the host
# tokenises.
SLOT_WORDS = ("sks", "hta", "olis", "xjw", "phol")


@dataclass(frozen=True)
class SlottedPrompt:
    """A tokenised prompt: as it reads with the class word, and with its slots open.

    Attributes:
        reference: The host's tokens of the text with the class word.
        tokens: The host's tokens with a one-token mark in every slot.
        slots: By the tokenizer's name, (chunk, position) of each mark.
        word: By the tokenizer's name, the class word's token ids.
    """

    reference: dict
    tokens: dict
    slots: dict[str, list[tuple[int, int]]]
    word: dict[str, list[int]]

    @classmethod
    def read(cls, clip: CLIP, text: str, placeholder: str, class_word: str) -> "SlottedPrompt":
        """Tokenises `text` around its placeholder.

        Raises:
            PromptError: The placeholder is missing, or the class word is no noun.
        """
        require_noun(class_word)
        reference = clip.tokenize(replace_placeholder(text, placeholder, class_word))
        word = {name: word_ids(clip, name, class_word) for name in reference}
        for mark in SLOT_WORDS:
            ids = {name: word_ids(clip, name, mark) for name in reference}
            if any(
                len(found) != 1 or positions(reference[name], found[0])
                for name, found in ids.items()
            ):
                continue
            tokens = clip.tokenize(replace_placeholder(text, placeholder, mark))
            slots = {name: positions(chunks, ids[name][0]) for name, chunks in tokens.items()}
            if all(slots.values()):
                return cls(reference, tokens, slots, word)
        raise PromptError(
            f'text: the place of "{one_line(placeholder)}" in "{one_line(text)}" could not be '
            "found; put spaces around it and simplify what stands beside it."
        )

    def filled(self, variants: dict[str, list[Tensor]]) -> dict:
        """Returns host tokens of all variants, one prompt after the other as sections of one.

        Arguments:
            variants: By tokenizer name, one (T, E) tensor of tokens per variant.
        """
        return {
            name: [
                fill_chunk(chunk, [p for c, p in self.slots[name] if c == i], tokens)
                for tokens in variants[name]
                for i, chunk in enumerate(chunks)
            ]
            for name, chunks in self.tokens.items()
        }


def word_ids(clip: CLIP, name: str, word: str) -> list[int]:
    """Returns a word's token ids without start, end and padding."""
    tokenizer = getattr(clip.tokenizer, f"clip_{name}")
    ids = [token for token, *_ in tokenizer.tokenize_with_weights(word, disable_weights=True)[0]]
    return ids[1 : ids.index(END_TOKEN)]


def positions(chunks: list[list[tuple]], token_id: int) -> list[tuple[int, int]]:
    """Returns (chunk, position) of every `token_id`; entries may be embeddings in place of ids."""
    return [
        (i, p)
        for i, chunk in enumerate(chunks)
        for p, (token, *_) in enumerate(chunk)
        if isinstance(token, int) and token == token_id
    ]


def fill_chunk(chunk: list[tuple], slots: list[int], tokens: Tensor) -> list[tuple]:
    """Returns a chunk with tokens (T, E) in each slot; they may push out padding only."""
    filled = list(chunk)
    for slot in reversed(slots):
        filled[slot : slot + 1] = [(token, *chunk[slot][1:]) for token in tokens]
    if any(entry is not chunk[-1] and entry != chunk[-1] for entry in filled[len(chunk) - 1 :]):
        raise PromptError(
            f"text: an identity of {len(tokens)} tokens does not fit into this part of the "
            f"prompt; take out {len(tokens) - 1} words or more."
        )
    return filled[: len(chunk)]
