"""Where placeholders stand in a text, and the text with class words in their places."""

__all__ = [
    "DEFAULT_PLACEHOLDER",
    "TRAINING_TEMPLATE",
    "placeholders_in",
    "replace_placeholders",
    "require_noun",
    "training_prompt",
]

import re
from collections.abc import Iterable, Mapping

from .errors import PromptError, one_line

DEFAULT_PLACEHOLDER = "V*"
TRAINING_TEMPLATE = "a photo of the face of {}"  # Sec. III-B


def training_prompt(word: str) -> str:
    """Returns the target prompt y_t of a placeholder, the reference prompt y_r of a word."""
    return TRAINING_TEMPLATE.format(word)


def require_noun(class_word: str) -> None:
    """Raises PromptError unless the class word is plain words: it stands in prompts, where syntax
    has meaning.
    """
    if not re.fullmatch(r"\w[\w '-]{0,60}", class_word):
        raise PromptError(
            f'class_word: "{one_line(class_word, 60)}" is not a plain noun; '
            "write a word such as person, dog or car."
        )


def placeholders_in(text: str, placeholders: Iterable[str]) -> list[str]:
    """Returns those of the placeholders that stand in `text` as words of their own.

    Punctuation may touch one (`V*,` `(V*:1.2)` `V*'s`); letters, digits and underscores may not.

    Raises:
        PromptError: None of them stands in the text.
    """
    placeholders = list(placeholders)
    found = set(pattern_of(placeholders).findall(text))
    if not found:
        listed = ", ".join(f'"{one_line(placeholder)}"' for placeholder in placeholders)
        absent, one = (
            (f"the placeholder {listed} does not stand", "it")
            if len(placeholders) == 1
            else (f"none of the placeholders {listed} stands", "one")
        )
        raise PromptError(
            f'text: {absent} in "{one_line(text)}"; write {one} where the identity should appear, '
            f'for example "a photo of {one_line(placeholders[0])}".'
        )
    return [placeholder for placeholder in placeholders if placeholder in found]


def replace_placeholders(text: str, words: Mapping[str, str]) -> str:
    """Returns `text` with its word wherever a placeholder of `words` stands, all at once."""
    return pattern_of(words).sub(lambda match: words[match[0]], text)


def pattern_of(placeholders: Iterable[str]) -> re.Pattern[str]:
    """Returns what finds every placeholder; of two that begin alike, the longer one."""
    either = "|".join(map(re.escape, sorted(placeholders, key=len, reverse=True)))
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)")
