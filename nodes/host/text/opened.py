"""Training prompts as a text encoder takes them: whole, in one chunk, every word as it is.

Prompt weights and embeddings act on contexts and on ids; a training has neither, so a prompt that
brings some in, by whatever tokenizer, is refused rather than trained without them.
"""

__all__ = ["OpenedPrompt", "opened_prompts"]

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from comfy.sd import CLIP
from torch import Tensor

from ....sefi_core.errors import PromptError, one_line
from ....sefi_core.prompts import DEFAULT_PLACEHOLDER
from .slots import END_TOKEN, SlottedPrompt, chunks_of

FIELD = "training_prompts"


@dataclass(frozen=True)
class OpenedPrompt:
    """One training prompt.

    Attributes:
        slotted: Its tokens, as the host gives them.
        ids: By encoder, all of its token ids, with a mark of one token in every slot.
        slots: By encoder, the positions of the marks.
    """

    slotted: SlottedPrompt
    ids: dict[str, list[int]]
    slots: dict[str, list[int]]

    def token_mask(self, name: str, scope: str, tokens: int) -> Tensor:
        """Returns (L,) ones at the tokens that an attention loss of `scope` looks at, where each
        slot holds `tokens` of them; zeros elsewhere.
        """
        ids, more = self.ids[name], tokens - 1
        starts = [slot + i * more for i, slot in enumerate(self.slots[name])]
        counted = {
            "all tokens": range(len(ids)),
            "prompt tokens": range(1, ids.index(END_TOKEN) + more * len(starts)),
            "placeholder only": [i for start in starts for i in range(start, start + tokens)],
            "off": (),
        }[scope]
        return torch.tensor([float(i in counted) for i in range(len(ids))])


def opened_prompts(
    clip: CLIP, texts: Sequence[str], class_word: str, tokens: int = 1
) -> list[OpenedPrompt]:
    """Returns the training prompts with their slots open.

    Arguments:
        tokens: How many of them are to stand in every slot.

    Raises:
        PromptError: One is longer than the text encoder takes, or brings in weights or embeddings.
    """
    return [opened(clip, text, class_word, tokens) for text in texts]


def opened(clip: CLIP, text: str, class_word: str, tokens: int) -> OpenedPrompt:
    slotted = SlottedPrompt.read(clip, text, {DEFAULT_PLACEHOLDER: class_word}, FIELD)
    more = (tokens - 1) * max(map(len, slotted.slots.values()))
    for chunks in slotted.tokens.values():
        require_plain(text, chunks)
        require_room(text, chunks, more)
    for chunks in chunks_of(slotted.reference).values():
        require_room(text, chunks, 0)
    ids = {name: [token for token, *_ in chunks[0]] for name, chunks in slotted.tokens.items()}
    slots = {name: [place for _, place in found] for name, found in slotted.slots.items()}
    return OpenedPrompt(slotted, ids, slots)


def require_plain(text: str, chunks: list[list[tuple]]) -> None:
    """Raises PromptError for tokens with weights, or vectors in place of ids."""
    entries = [entry for chunk in chunks for entry in chunk]
    if any(not isinstance(token, int) or weight != 1.0 for token, weight, *_ in entries):
        raise PromptError(
            f'{FIELD}: "{one_line(text, 60)}" has weights or embeddings, which a training does not '
            r"take; write plain words, and \( \) for brackets that are meant as such."
        )


def require_room(text: str, chunks: list[list[tuple]], more: int) -> None:
    """Raises PromptError for tokens that do not fit into one chunk with `more` of them."""
    room = len(chunks[0]) - 2  # but for its start and its end
    found = more + sum([token for token, *_ in chunk].index(END_TOKEN) - 1 for chunk in chunks)
    if len(chunks) > 1 or found > room:
        raise PromptError(
            f'{FIELD}: "{one_line(text, 60)}" takes {found} tokens with its caption, and the text '
            f"encoder {room}; write fewer words there or in caption."
        )
