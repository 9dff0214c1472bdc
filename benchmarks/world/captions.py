"""What a picture is called: simple varied captions, with a slot for every subject.

A caption names nothing that cannot be seen, and all that can, but the scene behind somebody, which
one caption in ten leaves out as people do. A subject's slot holds its class word; whether the
subject is named (its traits are said) is drawn by the caption, and is what the text encoder is told
beside the words. "person" and "dog" come bare ("the face of person"), as in identity training, and
with an article.
"""

__all__ = ["FILLERS", "PLACES", "Caption", "caption", "vocabulary"]

from dataclasses import dataclass

import numpy as np

from .drawing import ATTRIBUTES, Picture
from .scenery import OBJECTS, SCENES
from .subjects import KINDS, Subject

NAMED_SHARE = 0.75
SCENE_UNSAID = 0.1
FILLERS = ("nice", "good", "detailed")

PLACES = {
    "beach": ("at the beach", "on the beach"),
    "forest": ("in the forest", "in a forest"),
    "city": ("in the city", "in a city"),
    "snow": ("in the snow", "in snow"),
    "desert": ("in the desert", "in a desert"),
    "room": ("in a room", "in the room"),
    "night": ("at night", "in the night"),
    "underwater": ("underwater", "underwater"),
}


@dataclass(frozen=True)
class Caption:
    """Words in order, and which of them are slots of named subjects."""

    words: tuple[str, ...]
    named: dict[int, Subject]

    @property
    def text(self) -> str:
        """The caption as a prompt, class words in the slots."""
        return " ".join(self.words)


def pick(rng: np.random.Generator, *choices: str) -> str:
    """Draws one of the choices."""
    return choices[rng.integers(len(choices))]


def article(word: str) -> str:
    """Returns the word with "a" or "an" before it."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def noun(attributes: list[str], named: bool, slot: str, rng: np.random.Generator) -> str:
    """Puts adjectives, and sometimes an article, before a subject's slot."""
    adjectives = [a for a in ("old", "smiling", "surprised", "angry") if a in attributes]
    if rng.random() < 0.3:
        adjectives.reverse()
    phrase = " ".join([*adjectives, slot])
    bare = 0.75 if named and not adjectives else 0.5
    return phrase if rng.random() < bare else article(phrase)


def wearing(attributes: frozenset[str], rng: np.random.Generator) -> list[str]:
    """Returns the phrases for what is worn."""
    words = {"glasses": "glasses", "hat": "a hat"}
    found = [words[name] for name in sorted(words) if name in attributes]
    if len(found) == 2 and rng.random() < 0.5:
        found.reverse()
    return [f"{pick(rng, 'wearing', 'with')} {' and '.join(found)}"] if found else []


def caption(picture: Picture, rng: np.random.Generator) -> Caption:
    """Draws a caption for a picture."""
    slots = [f"<{i}>" for i in range(len(picture.subjects))]
    named = [bool(rng.random() < NAMED_SHARE) for _ in slots]
    attributes = [a for a in ATTRIBUTES if a in picture.attributes]
    nouns = [noun(attributes, n, s, rng) for s, n in zip(slots, named, strict=True)]
    tail = wearing(picture.attributes, rng)
    if picture.thing is not None and slots:
        tail.append(f"holding {article(picture.thing)}")
    if rng.random() < 0.3:
        tail.reverse()
    said = picture.scene and not (slots and rng.random() < SCENE_UNSAID)
    place = [pick(rng, *PLACES[picture.scene])] if said else []
    filler = pick(rng, *FILLERS) + " " if rng.random() < 0.06 else ""
    opening = pick(rng, f"a {filler}photo of", f"a {filler}photo of", f"a {filler}picture of")
    if picture.framing == "face":
        opening += pick(rng, " the face of", " the face of", " the face of", " a face of")
    if picture.framing == "empty":
        things = [article(picture.thing)] if picture.thing else []
        nouns = things or [""]
    body = [" and ".join(nouns), *tail, *place]
    if place and rng.random() < 0.1:
        body = [*place, *body[:-1]]
    words = " ".join([opening, *body] if rng.random() < 0.93 else body).split()
    return fill(words, dict(zip(slots, zip(picture.subjects, named, strict=True), strict=True)))


def fill(words: list[str], slots: dict[str, tuple[Subject, bool]]) -> Caption:
    """Puts class words into the slots and notes which of them are named."""
    found = {i: slots[w] for i, w in enumerate(words) if w in slots}
    plain = tuple(slots[w][0].kind if w in slots else w for w in words)
    return Caption(plain, {i: subject for i, (subject, named) in found.items() if named})


def vocabulary() -> list[str]:
    """Returns every word a caption can hold, sorted."""
    places = [phrase for phrases in PLACES.values() for phrase in phrases]
    rest = "a an the of and photo picture face wearing with holding in at on".split()
    words = {*" ".join(places).split(), *rest, *FILLERS, *KINDS, *ATTRIBUTES, *SCENES, *OBJECTS}
    return sorted(words)
