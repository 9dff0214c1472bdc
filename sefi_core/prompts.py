"""Where the placeholder stands in a text, and the text with the class word in its place."""

__all__ = [
    "DEFAULT_PLACEHOLDER",
    "TRAINING_TEMPLATE",
    "replace_placeholder",
    "require_noun",
    "training_prompt",
]

import re

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


def replace_placeholder(text: str, placeholder: str, word: str) -> str:
    """Returns `text` with `word` wherever `placeholder` stands as a word of its own.

    Punctuation may touch it (`V*,` `(V*:1.2)` `V*'s`); letters, digits and underscores may not.

    Raises:
        PromptError: It stands nowhere in the text.
    """
    replaced, count = re.subn(rf"(?<!\w){re.escape(placeholder)}(?!\w)", lambda _: word, text)
    if not count:
        raise PromptError(
            f'text: the placeholder "{one_line(placeholder)}" does not stand in '
            f'"{one_line(text)}"; write it where the identity should appear, for example '
            f'"a photo of {one_line(placeholder)}".'
        )
    return replaced
