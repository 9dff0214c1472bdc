"""Where placeholders stand in a text, and the text with class words in their places."""

__all__ = [
    "DEFAULT_PLACEHOLDER",
    "FACE_PROMPT",
    "THING_PROMPT",
    "occurrences",
    "placeholders_in",
    "plain_noun",
    "replace_placeholders",
    "training_prompt",
]

import re
from collections.abc import Iterable, Iterator, Mapping
from unicodedata import normalize

from .errors import PromptError, one_line
from .words import cleaned, is_noun, is_word_sign, may_touch, narrowed

DEFAULT_PLACEHOLDER = "V*"
FAR = 32  # signs to look at beside a placeholder; no letter has as many marks
FACE_PROMPT, THING_PROMPT = "a photo of the face of {}", "a photo of {}"  # Sec. III-B; the rest
# What has a face that is meant, in the languages of CLIP: the last word of a class word.
FACES = frozenset(
    "person human face man woman lady gentleman guy male female adult girl boy child kid "
    "baby toddler teenager".split()
)


def training_prompt(word: str, class_word: str = "") -> str:
    """Returns the training prompt that is chosen for a class word, with a word in it: the target
    prompt y_t of a placeholder, the reference prompt y_r of the class word itself.

    Arguments:
        class_word: That which chooses; `word` if empty.
    """
    *_, noun = ["", *(class_word or word).casefold().split()]
    return (FACE_PROMPT if noun in FACES else THING_PROMPT).format(word)


def plain_noun(class_word: str) -> str:
    """Returns the class word cleaned; raises PromptError unless it is plain words: it stands in
    prompts, where syntax has meaning.
    """
    noun = cleaned(class_word)
    if not is_noun(noun):
        raise PromptError(
            f'class_word: "{one_line(class_word, 60)}" is not a plain noun; '
            "write a word such as person, dog or car."
        )
    return noun


def placeholders_in(text: str, placeholders: Iterable[str]) -> list[str]:
    """Returns those of the placeholders that stand in `text` as words of their own.

    Punctuation may touch one (`V*,` `(V*:1.2)` `V*'s`), and so may letters of scripts without
    spaces, as `may_touch` has it. Full-width signs count as the plain ones.

    Raises:
        PromptError: None of them stands in the text.
    """
    placeholders = list(placeholders)
    found = {placeholder for _, _, placeholder in occurrences(text, placeholders)}
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
    """Returns `text` with its word wherever a placeholder of `words` stands, all at once; spaces
    part it from letters, which would make another word of it.
    """
    text, parts, at = normalize("NFC", text), [], 0
    for start, end, placeholder in occurrences(text, words):
        left, right = text[start - 1 : start], text[end : end + 1]
        parts += [text[at:start], gap(left), words[placeholder], gap(right)]
        at = end
    return "".join([*parts, text[at:]])


def gap(sign: str) -> str:
    return " " if sign and is_word_sign(sign) else ""


def occurrences(text: str, placeholders: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    """Yields (start, end, placeholder) of every one in the text's NFC; of two that begin alike, the
    longer one.
    """
    text = narrowed(normalize("NFC", text))
    forms = {placeholder: narrowed(cleaned(placeholder)) for placeholder in placeholders}
    longest_first = sorted(filter(forms.get, forms), key=lambda n: len(forms[n]), reverse=True)
    either = re.compile("|".join(re.escape(forms[name]) for name in longest_first) or r"(?!)")
    at = 0
    while found := either.search(text, at):
        start = found.start()
        fitting = (name for name in longest_first if text.startswith(forms[name], start))
        for name in fitting:
            end = start + len(forms[name])
            if may_touch(forms[name], text[max(0, start - FAR) : start], text[end : end + FAR]):
                yield start, end, name
                at = end
                break
        else:
            at = start + 1
