"""Which columns of a prompt's attention maps belong to a word of its text."""

__all__ = ["split_words", "without_placeholders", "word_columns"]

import re
from collections.abc import Mapping
from dataclasses import dataclass

from comfy.sd import CLIP

from ....sefi_core.errors import PromptError, SettingsError
from ....sefi_core.identity.identity import Identity
from ....sefi_core.prompts import DEFAULT_PLACEHOLDER, replace_placeholders
from ....sefi_core.words import cleaned
from ..text.encoder import text_encoders
from ..text.slots import SLOT_WORDS, positions, tokens_of, word_ids

MAX_WORDS = 16


def split_words(words: str) -> list[str]:
    """Returns the words of a field, which commas, those of East Asia too, or line breaks part, each
    once.
    """
    found = [cleaned(word) for word in re.split(r"[,\n\uff0c\u3001]", words)]
    found = list(dict.fromkeys(word for word in found if word))
    if not 1 <= len(found) <= MAX_WORDS:
        raise SettingsError(
            f"words: there are {len(found)}; write 1 to {MAX_WORDS} words of the prompt, with "
            "commas between them, for example: V*, hat."
        )
    return found


@dataclass(frozen=True)
class Named:
    """What stands for a placeholder: how many tokens, and which class word."""

    tokens: int = 1
    class_word: str = Identity.class_word


def named(identity: Identity | None, placeholder: str) -> dict[str, Named]:
    """Returns what every placeholder of a text stands for; V* for a person if nothing tells.

    Arguments:
        placeholder: The word that Apply SeFi Conditioning was told to use; empty: the identity's
            own.
    """
    placeholder = cleaned(placeholder)
    if identity is None:
        return {placeholder or DEFAULT_PLACEHOLDER: Named()}
    return {
        member.placeholder: Named(member.tokens, member.class_word)
        for member in identity.named(placeholder).members
    }


def word_columns(
    clip: CLIP, text: str, words: list[str], identity: Identity | None, placeholder: str = ""
) -> dict[str, list[int]]:
    """Returns the columns of each word (or run of words), wherever it stands in the text.

    The text is tokenised as when it was encoded, with stand-ins of as many tokens for the
    placeholders; weights and chunks of long prompts are the host's business.

    Raises:
        PromptError: A word is not in the text.
    """
    name = next(iter(text_encoders(clip)))
    marks = stand_ins(clip, name, text, named(identity, placeholder))
    chunks = tokens_of(clip, replace_placeholders(text, marks))[name]
    ids = [entry[0] if isinstance(entry[0], int) else -1 for chunk in chunks for entry in chunk]
    columns = {}
    for word in words:
        target = word_ids(clip, name, replace_placeholders(word, marks))
        starts = [i for i in range(len(ids)) if target and ids[i : i + len(target)] == target]
        if not starts:
            raise PromptError(
                f'words: "{word[:60]}" does not stand in the text "{text[:120]}"; write words of '
                "the prompt as they stand there, with commas between them."
            )
        columns[word] = sorted({start + i for start in starts for i in range(len(target))})
    return columns


def stand_ins(clip: CLIP, name: str, text: str, meant: Mapping[str, Named]) -> dict[str, str]:
    """Returns for each placeholder words of as many tokens, which are not in the text."""
    chunks = tokens_of(clip, text)[name]
    free = (
        word
        for word in SLOT_WORDS
        if len(found := word_ids(clip, name, word)) == 1 and not positions(chunks, found[0])
    )
    return {
        placeholder: " ".join([next(free, SLOT_WORDS[0])] * what.tokens)
        for placeholder, what in meant.items()
    }


def without_placeholders(text: str, identity: Identity | None, placeholder: str = "") -> str:
    """Returns a text with the class word for every placeholder."""
    meant = named(identity, placeholder)
    return replace_placeholders(text, {name: what.class_word for name, what in meant.items()})
