"""What the training prompts say: their lines, and what else is in each picture.

A caption is appended to the target prompt and to the reference prompt alike, so that what it names
is not learned as the subject.
"""

__all__ = ["Wording"]

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import PromptError, one_line
from ..prompts import DEFAULT_PLACEHOLDER, occurrences, replace_placeholders, training_prompt
from ..words import cleaned

NOTHING = "-"  # a caption's line for a picture with nothing more to say
MOST_LINES, MOST_PROMPTS = 64, 256  # of each prompt the reference keys are kept
LONGEST = 2000  # signs of a line: far more than a text encoder takes
SYNTAX = {
    r"(?<!\\)\(.*(?<!\\)\)": "weights in brackets",
    r"(?:^|\s)embedding:": "an embedding",
    r"<\|(?:start|end)oftext\|>": "a mark of the text encoder",
}


@dataclass(frozen=True)
class Wording:
    """The training prompts of one subject.

    Attributes:
        lines: Target prompts, each with the placeholder; one is drawn for each sample.
        captions: What else is in the pictures: one for all, or one for each.
    """

    lines: tuple[str, ...]
    captions: tuple[str, ...] = ("",)

    @classmethod
    def read(cls, class_word: str, training_prompts: str, caption: str) -> "Wording":
        """Reads what an artist has written, one prompt and one caption a line.

        Arguments:
            class_word: Empty where it is not known yet.

        Raises:
            PromptError: A line cannot be trained with.
        """
        lines = tuple(lines_of("training_prompts", training_prompts))
        captions = tuple(lines_of("caption", caption))
        for line in lines:
            require_placeholder(line)
        for line in captions:
            require_beside(line, class_word)
        chosen = training_prompt(DEFAULT_PLACEHOLDER, class_word)
        said = tuple("" if line == NOTHING else line for line in captions)
        return cls(lines or (chosen,), said or ("",))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The captions that differ, in order."""
        return tuple(dict.fromkeys(self.captions))

    @property
    def prompts(self) -> tuple[str, ...]:
        """All target prompts: every line with the first caption, then with the next."""
        return tuple(
            f"{line}, {caption}" if caption else line
            for caption in self.kinds
            for line in self.lines
        )

    @property
    def recorded(self) -> dict[str, object]:
        """What files tell of it: the lines as templates, and the captions if there are any."""
        templates = [template(line) for line in self.lines]
        told: dict[str, object] = {"prompt": templates[0] if len(templates) == 1 else templates}
        if any(self.captions):
            told["captions"] = list(self.kinds if len(self.kinds) == 1 else self.captions)
        return told

    def of_pictures(self, count: int) -> list[int]:
        """Returns which of `kinds` each of `count` pictures has.

        Raises:
            PromptError: There are neither one caption nor as many as pictures, or too many prompts.
        """
        if len(self.captions) not in (1, count):
            raise PromptError(
                f"caption: it has {len(self.captions)} lines for {count} pictures; write one line "
                f"for all of them, or one for each ({NOTHING} where there is nothing to say)."
            )
        if len(self.prompts) > MOST_PROMPTS:
            raise PromptError(
                f"training_prompts: {len(self.lines)} lines with {len(self.kinds)} captions make "
                f"{len(self.prompts)} prompts; write fewer, so that they are {MOST_PROMPTS} at "
                "most."
            )
        places = [self.kinds.index(caption) for caption in self.captions]
        return places if len(places) == count else places * count


def lines_of(field: str, text: str) -> Iterator[str]:
    """Yields the lines of a text that are not blank, cleaned; raises PromptError for one that
    cannot be trained with as it is.
    """
    lines = [line for each in text.splitlines() if (line := cleaned(each))]
    if len(lines) > MOST_PROMPTS or (field == "training_prompts" and len(lines) > MOST_LINES):
        most = MOST_LINES if field == "training_prompts" else MOST_PROMPTS
        raise PromptError(f"{field}: it has {len(lines)} lines; write {most} at most.")
    for line in lines:
        if len(line) > LONGEST:
            raise PromptError(
                f"{field}: a line has {len(line)} signs, which no text encoder takes; write a few "
                "words."
            )
        if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in line):
            raise PromptError(
                f'{field}: "{one_line(line, 60)}" has signs that are no text; write it anew.'
            )
        for pattern, what in SYNTAX.items():
            if re.search(pattern, line):
                raise PromptError(
                    f'{field}: "{one_line(line, 60)}" has {what}, which a training does not take; '
                    r"write plain words, and \( \) for brackets that are meant as such."
                )
        yield line


def require_placeholder(line: str) -> None:
    """Raises PromptError for a training prompt without the placeholder."""
    if not any(occurrences(line, [DEFAULT_PLACEHOLDER])):
        raise PromptError(
            f'training_prompts: the line "{one_line(line, 60)}" lacks {DEFAULT_PLACEHOLDER}; write '
            "it where the subject is, in every line."
        )


def require_beside(line: str, class_word: str) -> None:
    """Raises PromptError for a caption that names the subject, which the prompt does already."""
    noun = cleaned(class_word)
    for word, text in ((DEFAULT_PLACEHOLDER, line), (noun.casefold(), line.casefold())):
        if any(occurrences(text, [word])):
            raise PromptError(
                f'caption: "{one_line(line, 60)}" has "{one_line(word)}", for which the training '
                "prompt stands already; write only what else is in the picture."
            )


def template(line: str) -> str:
    """Returns a line with {} in the placeholder's place and its own braces doubled."""
    doubled = line.replace("{", "{{").replace("}", "}}")
    return replace_placeholders(doubled, {DEFAULT_PLACEHOLDER: "{}"})
