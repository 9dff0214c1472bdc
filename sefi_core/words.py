"""What a word is, in every script: the one idea of it for prompts, nouns and names of files.

Scripts differ in what a word is made of: most of Asia writes vowels as combining marks, Sinhala and
Persian need joiners, Tibetan has a dot between syllables, and a dozen scripts have no spaces.
"""

__all__ = ["cleaned", "is_noun", "is_plain_name", "is_word_sign", "may_touch", "narrowed"]

import re
import unicodedata

JOINERS = "\u200c\u200d"  # zero width, within words of Persian and of the scripts of India
# Signs within words: apostrophes, hyphens, dots between names, and between syllables of Tibetan.
WITHIN = "'\u2019\u02bc-\u2010\u2011\u00b7\u30fb\u0f0b\u05be\u05f3\u05f4\u055a\u1361\u1400"
UNSEEN = "\u200b\u200e\u200f\u2060\ufeff"  # what pasting leaves: zero width, directions, a BOM
LONGEST_NOUN, LONGEST_NAME, MOST_BYTES = 61, 80, 180  # with what is added, a name anywhere
WIDE = {0xFF01 + i: 0x21 + i for i in range(94)} | {0x3000: 0x20}
# No file of Windows can be called so, whatever its ending.
RESERVED = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3]", re.IGNORECASE)


def cleaned(text: str) -> str:
    """Returns a text as it is kept and compared: NFC, nothing that cannot be seen at its ends, and
    plain spaces between its words.
    """
    text = unicodedata.normalize("NFC", text)
    text = "".join(" " if unicodedata.category(sign) == "Zs" else sign for sign in text)
    while text != (text := text.strip().strip(UNSEEN)):
        pass
    return text


def narrowed(text: str) -> str:
    """Returns a text with the full-width signs of ASCII, as keyboards of East Asia write them, in
    their plain form; sign for sign, so that places stay.
    """
    return text.translate(WIDE)


def is_word_sign(sign: str) -> bool:
    """Returns whether words are written with it: letters, marks and digits of every script."""
    return sign == "_" or sign in JOINERS or unicodedata.category(sign)[0] in "LMN"


def is_noun(text: str) -> bool:
    """Returns whether a cleaned text is plain words, which have no meaning in a prompt's syntax."""
    return (
        0 < len(text) <= LONGEST_NOUN
        and (text[0] == "_" or unicodedata.category(text[0])[0] in "LN")
        and all(is_word_sign(sign) or sign in WITHIN + " " for sign in text)
    )


def is_plain_name(text: str) -> bool:
    """Returns whether a cleaned text can be one part of a path, on every system and nothing more
    than that.
    """
    return (
        0 < len(text) <= LONGEST_NAME
        and all(is_word_sign(sign) or sign in WITHIN + " ." for sign in text)
        and text[0] not in " ."
        and text[-1] not in " ."
        and len(text.encode()) <= MOST_BYTES
        and not RESERVED.fullmatch(text.split(".")[0].rstrip())
    )


def may_touch(placeholder: str, before: str, after: str) -> bool:
    """Returns whether a placeholder stands as a word of its own between two texts.

    Letters with case, digits and underscores may not touch it: they write words with spaces between
    them. Other letters may, as in Chinese or Thai, if they cannot be taken for a part of it: it has
    a sign that words do not have, or ends in other letters.
    """
    has_sign = not all(is_word_sign(sign) or sign in WITHIN + " " for sign in placeholder)
    sides = (base_of(before), placeholder[0]), (after.lstrip(JOINERS)[:1], base_of(placeholder))
    return all(
        not is_word_sign(beside) or (is_uncased(beside) and (has_sign or not is_uncased(own)))
        for beside, own in sides
        if beside
    )


def base_of(text: str) -> str:
    """Returns the last sign that is no mark or joiner; "" if there is none."""
    for sign in reversed(text):
        if sign not in JOINERS and not unicodedata.category(sign).startswith("M"):
            return sign
    return ""


def is_uncased(sign: str) -> bool:
    return unicodedata.category(sign) in ("Lo", "Lm", "Mn", "Mc", "Me")
