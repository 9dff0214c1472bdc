"""A picture as a value, drawn at random or by hand, and its rendering.

`sample` draws what is in a picture, `render` draws it. Both take a numpy generator: equal seeds
give equal pictures.
"""

__all__ = ["ATTRIBUTES", "EXPRESSIONS", "Framing", "Picture", "render", "sample", "silhouette"]

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .canvas import Brush, blank, finish, hsv
from .figures import draw_body, draw_head, skin_colour
from .scenery import OBJECTS, SCENES, draw_object, draw_scene
from .subjects import Kind, Subject, random_subject, split

Framing = Literal["face", "bust", "pair", "empty"]

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
EXPRESSIONS = ("smiling", "surprised", "angry")
ATTRIBUTES = (*EXPRESSIONS, "glasses", "hat", "old")


@dataclass(frozen=True)
class Picture:
    """What is in a picture. A pair has two subjects, left one first; an empty one has none."""

    framing: Framing
    subjects: tuple[Subject, ...] = ()
    attributes: frozenset[str] = frozenset()
    scene: str | None = None
    thing: str | None = None


def sample(rng: np.random.Generator) -> Picture:
    """Draws a picture from the world's distribution of training pictures."""
    framing: Framing = rng.choice(["face", "bust", "pair", "empty"], p=[0.38, 0.49, 0.08, 0.05])
    kind: Kind = "dog" if rng.random() < 0.15 else "person"
    scene = str(rng.choice(list(SCENES))) if rng.random() < 0.75 else None
    thing = str(rng.choice(list(OBJECTS))) if rng.random() < 0.35 else None
    if framing == "face":
        scene = scene if rng.random() < 0.6 else None
        return Picture(framing, (draw_subject(kind, rng),), draw_attributes(kind, rng), scene)
    if framing == "bust":
        subjects = (draw_subject(kind, rng),)
        return Picture(framing, subjects, draw_attributes(kind, rng), scene, thing)
    if framing == "pair":
        other: Kind = "dog" if rng.random() < 0.3 else "person"
        subjects = (draw_subject("person", rng), draw_subject(other, rng))
        return Picture(framing, subjects, scene=scene)
    return Picture(framing, scene=str(rng.choice(list(SCENES))), thing=thing)


def draw_subject(kind: Kind, rng: np.random.Generator) -> Subject:
    """Draws one of the named training subjects one time in five, somebody new otherwise."""
    if rng.random() < 0.2:
        known = split(kind, "train")
        return known[rng.integers(len(known))]
    return random_subject(kind, rng)


def draw_attributes(kind: Kind, rng: np.random.Generator) -> frozenset[str]:
    """Draws at most one expression and at most two of the other attributes."""
    found = {name for name in ("glasses", "hat") if rng.random() < 0.2}
    if kind == "person":
        if rng.random() < 0.45:
            found.add(str(rng.choice(EXPRESSIONS)))
        if len(found) < 3 and rng.random() < 0.15:
            found.add("old")
    return frozenset(found)


def render(picture: Picture, rng: np.random.Generator) -> np.ndarray:
    """Draws a picture with small accidents of place, size and tilt; shape (N, N, 3), uint8."""
    image, brush = blank(WHITE)
    draw_scene(brush, picture.scene, rng)
    draw_front(brush, picture, rng)
    return finish(image)


def silhouette(picture: Picture, rng: np.random.Generator) -> np.ndarray:
    """Returns where `render` draws what is before the scene; shape (N, N), float32 in [0, 1]."""
    _, behind = blank(WHITE)
    draw_scene(behind, picture.scene, rng)  # takes from the generator what `render` takes
    state = rng.bit_generator.state
    drawn = []
    for ground in (BLACK, WHITE):
        rng.bit_generator.state = state
        image, brush = blank(ground)
        draw_front(brush, picture, rng)
        drawn.append(finish(image).astype(np.float32) / 255.0)
    return 1.0 - abs(drawn[1] - drawn[0]).max(axis=-1)


def draw_front(brush: Brush, picture: Picture, rng: np.random.Generator) -> None:
    """Draws the subjects, and the thing that is held or stands before the scene."""
    for place, subject in zip(places(picture, brush, rng), picture.subjects, strict=True):
        draw_body(place, subject, hsv(rng.random(), rng.uniform(0.2, 0.8), rng.uniform(0.4, 1.0)))
        draw_head(place, subject, picture.attributes)
    if picture.thing is not None:
        x = 0.82 if picture.subjects else rng.uniform(0.3, 0.7)
        size = rng.uniform(0.115, 0.13) * (1.0 if picture.subjects else 1.8)
        spot = brush.at(x + rng.uniform(-0.03, 0.03), rng.uniform(0.75, 0.79), size)
        hand = skin_colour(picture.subjects[0]) if picture.subjects else None
        draw_object(spot, picture.thing, hand)


def places(picture: Picture, brush: Brush, rng: np.random.Generator) -> list[Brush]:
    """Returns where each head goes."""
    centres = {
        "face": [(0.5, 0.53, 0.34)],
        "bust": [(0.43, 0.46, 0.28)],
        "pair": [(0.26, 0.5, 0.19), (0.74, 0.5, 0.19)],
        "empty": [],
    }[picture.framing]
    return [
        brush.at(
            x + rng.uniform(-0.03, 0.03),
            y + rng.uniform(-0.03, 0.03),
            unit * rng.uniform(0.93, 1.07),
            rng.uniform(-0.1, 0.1),
        )
        for x, y, unit in centres
    ]
