"""Where a picture is taken and what is held in it.

The origin is the picture's top left corner, the unit its side. Every scene has a colouring of
its own and a little chance of its own, so that it can be told behind a head.
"""

__all__ = ["OBJECTS", "SCENES", "draw_object", "draw_scene"]

from collections.abc import Callable

import numpy as np

from .canvas import Brush, Colour, hsv

WHITE = (255, 255, 255)


def beach(brush: Brush, rng: np.random.Generator) -> None:
    brush.box(0.5, 0.25, 0.5, 0.25, (130, 205, 250))
    brush.ellipse(rng.uniform(0.1, 0.9), 0.12, 0.09, 0.09, (255, 232, 90))
    brush.box(0.5, 0.6, 0.5, 0.17, (24, 110, 200))
    brush.box(0.5, 0.87, 0.5, 0.14, (244, 218, 150))


def forest(brush: Brush, rng: np.random.Generator) -> None:
    brush.box(0.5, 0.5, 0.5, 0.5, (150, 205, 150))
    for x in (0.06, 0.3, 0.7, 0.94):
        x += rng.uniform(-0.05, 0.05)
        brush.box(x, 0.75, 0.03, 0.2, (92, 58, 30))
        brush.polygon([(x - 0.17, 0.66), (x, 0.02), (x + 0.17, 0.66)], (22, 98, 42))
    brush.box(0.5, 0.95, 0.5, 0.07, (50, 130, 50))


def city(brush: Brush, rng: np.random.Generator) -> None:
    brush.box(0.5, 0.5, 0.5, 0.5, (196, 208, 222))
    for i in range(5):
        top, x = rng.uniform(0.1, 0.4), 0.1 + 0.2 * i
        grey = int(rng.integers(88, 128))
        brush.box(x, 0.5 + top / 2, 0.085, 0.5 - top / 2, (grey, grey, grey + 18))
        for row in range(4):
            brush.box(x, top + 0.1 + 0.16 * row, 0.045, 0.03, (250, 226, 120))
    brush.box(0.5, 0.96, 0.5, 0.05, (66, 66, 72))


def snow(brush: Brush, rng: np.random.Generator) -> None:
    brush.box(0.5, 0.5, 0.5, 0.5, (158, 186, 214))
    brush.ellipse(rng.uniform(0.1, 0.9), 0.95, 0.9, 0.4, (246, 250, 255))
    for x, y in rng.random((22, 2)):
        brush.ellipse(x, y * 0.9, 0.02, 0.02, WHITE)


def desert(brush: Brush, rng: np.random.Generator) -> None:
    brush.box(0.5, 0.5, 0.5, 0.5, (252, 190, 110))
    brush.ellipse(rng.uniform(0.0, 1.0), 1.0, 0.8, 0.5, (222, 132, 58))
    for x in (rng.uniform(0.06, 0.14), rng.uniform(0.86, 0.94)):
        brush.box(x, 0.6, 0.03, 0.26, (42, 120, 60))
        brush.box(x, 0.55, 0.09, 0.025, (42, 120, 60))
        brush.box(x + 0.075, 0.47, 0.022, 0.09, (42, 120, 60))


def room(brush: Brush, rng: np.random.Generator) -> None:
    brush.box(0.5, 0.5, 0.5, 0.5, (176, 110, 128))
    for i in range(6):
        brush.box(0.05 + 0.18 * i, 0.4, 0.025, 0.4, (194, 134, 148))
    x = rng.uniform(0.12, 0.2) if rng.random() < 0.5 else rng.uniform(0.8, 0.88)
    brush.box(x, 0.28, 0.13, 0.17, (120, 72, 40))
    brush.box(x, 0.28, 0.1, 0.14, (190, 232, 250))
    brush.box(0.5, 0.9, 0.5, 0.1, (126, 78, 46))


def night(brush: Brush, rng: np.random.Generator) -> None:
    brush.box(0.5, 0.5, 0.5, 0.5, (14, 16, 52))
    for x, y in rng.random((16, 2)):
        brush.ellipse(x, y * 0.7, 0.013, 0.013, (255, 250, 200))
    x = rng.uniform(0.08, 0.92)
    brush.ellipse(x, 0.13, 0.09, 0.09, (250, 244, 190))
    brush.ellipse(x + 0.045, 0.11, 0.08, 0.08, (14, 16, 52))
    brush.box(0.5, 0.95, 0.5, 0.06, (24, 34, 40))


def underwater(brush: Brush, rng: np.random.Generator) -> None:
    brush.box(0.5, 0.5, 0.5, 0.5, (0, 138, 150))
    for i in range(4):
        x = 0.08 + 0.28 * i + rng.uniform(-0.04, 0.04)
        points = [(x + 0.03 * (-1) ** k, 1.0 - 0.12 * k) for k in range(6)]
        brush.stroke(points, 0.045, (16, 84, 60))
    for x, y in rng.random((12, 2)):
        brush.ellipse(x, y, 0.028, 0.028, (150, 232, 240))


def ball(brush: Brush) -> None:
    brush.ellipse(0, 0, 1.0, 1.0, (250, 120, 20))
    brush.ellipse(0, 0, 1.0, 0.3, WHITE)


def flower(brush: Brush) -> None:
    brush.box(0, 1.0, 0.14, 1.0, (30, 140, 40))
    for x, y in ((0.62, -0.3), (-0.62, -0.3), (0, -0.9), (0.4, 0.35), (-0.4, 0.35)):
        brush.ellipse(x, y - 0.1, 0.48, 0.48, (250, 90, 190))
    brush.ellipse(0, -0.2, 0.36, 0.36, (255, 225, 40))


def book(brush: Brush) -> None:
    brush.box(0, 0, 1.15, 0.85, (30, 60, 190))
    brush.box(-0.52, -0.05, 0.45, 0.7, (250, 248, 236))
    brush.box(0.52, -0.05, 0.45, 0.7, (250, 248, 236))


def cup(brush: Brush) -> None:
    brush.ellipse(0.8, 0, 0.45, 0.5, (236, 240, 244))
    brush.ellipse(0.8, 0, 0.24, 0.28, (120, 130, 140))
    brush.box(0, 0, 0.75, 0.9, (236, 240, 244))
    brush.ellipse(0, -0.85, 0.75, 0.25, (96, 52, 24))


def balloon(brush: Brush) -> None:
    brush.stroke([(0, 0.4), (0.15, 1.1), (0, 1.9)], 0.12, (60, 60, 60))
    brush.ellipse(0, -0.5, 0.95, 1.15, (140, 40, 220))
    brush.ellipse(-0.3, -0.9, 0.22, 0.3, (206, 150, 250))


SCENES: dict[str, Callable[[Brush, np.random.Generator], None]] = {
    "beach": beach,
    "forest": forest,
    "city": city,
    "snow": snow,
    "desert": desert,
    "room": room,
    "night": night,
    "underwater": underwater,
}
OBJECTS: dict[str, Callable[[Brush], None]] = {
    "ball": ball,
    "flower": flower,
    "book": book,
    "cup": cup,
    "balloon": balloon,
}


def draw_scene(brush: Brush, scene: str | None, rng: np.random.Generator) -> None:
    """Fills the picture: a scene, or one pale colour that means no scene."""
    plain: Colour = hsv(rng.random(), rng.uniform(0.05, 0.3), rng.uniform(0.72, 1.0))
    brush.box(0.5, 0.5, 0.5, 0.5, plain)
    if scene is not None:
        SCENES[scene](brush, rng)


def draw_object(brush: Brush, thing: str, hand: Colour | None) -> None:
    """Draws a held thing around the origin, with the hand that holds it, if there is one."""
    OBJECTS[thing](brush)
    if hand is not None:
        brush.ellipse(0, 1.0, 0.6, 0.42, hand)
