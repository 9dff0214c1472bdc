"""How a subject looks: its traits and its attributes as polygons.

The origin is the middle of the head, the unit half the head's height.
"""

__all__ = ["draw_body", "draw_head"]

from collections.abc import Callable

from .canvas import Brush, Colour, blend, hsv
from .subjects import Kind, Subject

WHITE, DARK = (255, 255, 255), (38, 30, 34)
VOLUME = 0.2  # of hair around the head


def skin_colour(subject: Subject) -> Colour:
    """Returns the colour of a person's skin or a dog's fur."""
    if subject.kind == "dog":
        return hsv(0.11 * subject.trait("fur_hue"), 0.55, 0.32 + 0.6 * subject.trait("fur_light"))
    return blend((255, 222, 190), (98, 60, 40), subject.trait("skin"))


def hair_colour(subject: Subject, attributes: frozenset[str]) -> Colour:
    """Returns a person's hair; old people are half grey, so that the colour can still be told."""
    light = subject.trait("hair_light")
    colour = hsv(0.8 * subject.trait("hair_hue"), 0.8, 0.3 + 0.65 * light)
    return blend(colour, (205, 205, 205), 0.45) if "old" in attributes else colour


def draw_body(brush: Brush, subject: Subject, clothes: Colour) -> None:
    """Draws neck and shoulders (a dog: chest and collar) below the head."""
    if subject.kind == "dog":
        brush.ellipse(0, 2.0, 0.85, 1.6, skin_colour(subject))
        brush.ellipse(0, 1.0, 0.62, 0.3, hsv(0.8 * subject.trait("collar_hue"), 0.9, 0.9))
        return
    brush.box(0, 1.05, 0.3, 0.4, blend(skin_colour(subject), DARK, 0.15))
    brush.ellipse(0, 2.5, 1.45, 1.25, clothes)


def draw_head(brush: Brush, subject: Subject, attributes: frozenset[str]) -> None:
    """Draws the head with what it wears and shows."""
    draw: dict[Kind, Callable[[Brush, Subject, frozenset[str]], None]]
    draw = {"person": draw_person, "dog": draw_dog}
    draw[subject.kind](brush, subject, attributes)
    if "glasses" in attributes:
        draw_glasses(brush)
    if "hat" in attributes:
        draw_hat(brush)


def draw_person(brush: Brush, subject: Subject, attributes: frozenset[str]) -> None:
    """Draws hair behind, face, beard, mouth, nose, eyes, brows and fringe, in this order."""
    skin, hair = skin_colour(subject), hair_colour(subject, attributes)
    width = 0.66 + 0.34 * subject.trait("face_width")
    brush.ellipse(0, -0.12, width + VOLUME, 0.92 + VOLUME, hair, (0.46, 1.04))
    length = -0.1 + 1.9 * subject.trait("hair_length")
    side = width + 0.8 * VOLUME
    brush.polygon([(-side, -0.25), (side, -0.25), (side, length), (-side, length)], hair)
    brush.ellipse(0, 0, width, 1.0, skin)
    beard = blend(skin, blend(hair, DARK, 0.35), subject.trait("beard"))
    brush.ellipse(0, 0, width, 1.0, beard, (0.04, 0.46))
    brush.ellipse(0, 0.2, 0.6 * width, 0.34, skin)
    draw_mouth(brush, attributes)
    brush.polygon([(0, -0.02), (0.16, 0.27), (-0.16, 0.27)], blend(skin, (150, 40, 30), 0.42))
    fringe = -0.92 + 0.55 * subject.trait("fringe")
    brush.polygon(cap(width, fringe), hair)
    size = 0.17 + 0.14 * subject.trait("eye_size")
    iris = hsv(0.8 * subject.trait("eye_hue"), 0.95, 0.9)
    for sign in (-1, 1):
        draw_eye(brush.at(sign * 0.46 * width, -0.08), size, iris)
        draw_brow(brush, sign, width, size, blend(hair, DARK, 0.5), attributes)
    if "old" in attributes:
        draw_wrinkles(brush, width, blend(skin, DARK, 0.45))


def cap(width: float, edge: float) -> list[tuple[float, float]]:
    """Returns the part of the face's ellipse above `edge`, as a polygon."""
    steps = [-1 + i / 12 for i in range(25)]
    reach = (1 - edge * edge) ** 0.5
    arc = [(s * reach * width, -((1 - (s * reach) ** 2) ** 0.5)) for s in steps]
    return [(-reach * width, edge), *arc, (reach * width, edge)]


def draw_eye(brush: Brush, size: float, iris: Colour) -> None:
    """Draws one eye around the origin."""
    brush.ellipse(0, 0, size * 1.25, size * 1.1, WHITE)
    brush.ellipse(0, 0, size, size, iris)
    brush.ellipse(0, 0, size * 0.3, size * 0.35, DARK)


def draw_brow(
    brush: Brush,
    sign: int,
    width: float,
    eye: float,
    colour: Colour,
    attributes: frozenset[str],
) -> None:
    """Draws one brow: raised when surprised, slanting inwards when angry."""
    height = -0.14 - 1.1 * eye - (0.14 if "surprised" in attributes else 0.0)
    slant = 0.16 if "angry" in attributes else 0.0
    inner, outer = (sign * 0.22 * width, height + slant), (sign * 0.72 * width, height - slant)
    brush.stroke([inner, outer], 0.11, colour)


def draw_mouth(brush: Brush, attributes: frozenset[str]) -> None:
    """Draws the mouth: a line, or what the expression makes of it."""
    lips = (176, 40, 52)
    if "surprised" in attributes:
        brush.ellipse(0, 0.62, 0.22, 0.26, (96, 16, 28))
    elif "smiling" in attributes:
        brush.ellipse(0, 0.46, 0.44, 0.38, lips, (0.0, 0.5))
        brush.ellipse(0, 0.46, 0.34, 0.17, WHITE, (0.0, 0.5))
    elif "angry" in attributes:
        brush.ellipse(0, 0.8, 0.36, 0.26, lips, (0.5, 1.0))
    else:
        brush.box(0, 0.6, 0.22, 0.055, lips)


def draw_wrinkles(brush: Brush, width: float, colour: Colour) -> None:
    """Draws the lines of age on cheeks and forehead."""
    for sign in (-1, 1):
        for i in range(2):
            x = sign * width * (0.62 - 0.16 * i)
            brush.stroke([(x, 0.16 + 0.04 * i), (x * 0.86, 0.46)], 0.085, colour)


def draw_glasses(brush: Brush) -> None:
    """Draws two rings and a bridge: the eyes stay visible."""
    for sign in (-1, 1):
        ring = [(sign * 0.38 + 0.31 * x, -0.08 + 0.31 * y) for x, y in RING]
        brush.stroke(ring, 0.09, DARK)
    brush.stroke([(-0.1, -0.1), (0.1, -0.1)], 0.09, DARK)


def draw_hat(brush: Brush) -> None:
    """Draws a red hat above the forehead: the fringe and the hair's sides stay visible."""
    brush.polygon([(-0.66, -0.72), (-0.5, -1.55), (0.5, -1.55), (0.66, -0.72)], (214, 32, 40))
    brush.box(0, -0.92, 0.62, 0.1, (250, 220, 60))
    brush.box(0, -0.76, 1.15, 0.09, (214, 32, 40))


def draw_dog(brush: Brush, subject: Subject, attributes: frozenset[str]) -> None:
    """Draws ears, head, patch, eyes, snout and nose."""
    fur = skin_colour(subject)
    dark = blend(fur, DARK, 0.45)
    length, droop = 0.5 + 0.7 * subject.trait("ear_length"), subject.trait("ear_droop")
    for sign in (-1, 1):
        tip = (sign * (0.75 + 0.45 * droop), -0.75 - length + (1.5 + length) * droop)
        brush.polygon([(sign * 0.3, -0.85), (sign * 0.95, -0.45), tip], dark)
    brush.ellipse(0, 0, 0.92, 0.98, fur)
    patch = blend(fur, WHITE, 0.95 * subject.trait("patch"))
    brush.ellipse(0.42, -0.22, 0.38, 0.46, patch)
    size = 0.14 + 0.12 * subject.trait("eye_size")
    for sign in (-1, 1):
        brush.ellipse(sign * 0.4, -0.2, size, size, DARK)
        brush.ellipse(sign * 0.4 + 0.3 * size, -0.2 - 0.3 * size, 0.35 * size, 0.35 * size, WHITE)
    snout = 0.24 + 0.34 * subject.trait("snout")
    brush.ellipse(0, 0.45, snout + 0.08, snout, blend(fur, WHITE, 0.45))
    brush.ellipse(0, 0.45 - 0.5 * snout, 0.2, 0.14, DARK)
    brush.stroke([(0, 0.4 - 0.3 * snout), (0, 0.45 + 0.5 * snout)], 0.05, DARK)


RING = [
    (1.0, 0.0),
    (0.87, 0.5),
    (0.5, 0.87),
    (0.0, 1.0),
    (-0.5, 0.87),
    (-0.87, 0.5),
    (-1.0, 0.0),
    (-0.87, -0.5),
    (-0.5, -0.87),
    (0.0, -1.0),
    (0.5, -0.87),
    (0.87, -0.5),
    (1.0, 0.0),
    (0.87, 0.5),
]
