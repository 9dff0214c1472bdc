"""Drawing in unit coordinates on a supersampled canvas, tilted and scaled in one place.

Everything in the world is a filled polygon. A `Brush` maps unit coordinates (x right, y down)
to pixels by a similarity: head-centred for faces, canvas-centred for scenes.
"""

__all__ = ["SIDE", "Brush", "Colour", "blank", "blend", "finish", "hsv"]

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64
SUPERSAMPLING = 4

Colour = tuple[int, int, int]
Point = tuple[float, float]


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Returns an RGB colour from hue, saturation and value in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def blend(first: Colour, second: Colour, amount: float) -> Colour:
    """Returns `first` at amount 0 and `second` at amount 1."""
    mixed = [round(a + (b - a) * amount) for a, b in zip(first, second, strict=True)]
    return mixed[0], mixed[1], mixed[2]


@dataclass(frozen=True)
class Brush:
    """A canvas, and where unit coordinates land on it: centre and unit in pixels of the picture."""

    pen: ImageDraw.ImageDraw
    x: float
    y: float
    unit: float
    tilt: float = 0.0

    def at(self, x: float, y: float, unit: float = 1.0, tilt: float = 0.0) -> "Brush":
        """Returns a brush whose origin is this one's (x, y) and whose unit is scaled."""
        (px, py), *_ = self.pixels([(x, y)])
        return Brush(self.pen, px, py, self.unit * unit, self.tilt + tilt)

    def pixels(self, points: Sequence[Point]) -> list[Point]:
        """Maps unit coordinates to picture coordinates."""
        c, s = cos(self.tilt) * self.unit, sin(self.tilt) * self.unit
        return [(self.x + c * px - s * py, self.y + s * px + c * py) for px, py in points]

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Fills a polygon."""
        scaled = [(SUPERSAMPLING * px, SUPERSAMPLING * py) for px, py in self.pixels(points)]
        self.pen.polygon(scaled, fill=colour)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, part: Point = (0.0, 1.0)
    ) -> None:
        """Fills an ellipse, or the segment between two angles given as parts of a turn."""
        first, last = part
        angles = [2 * pi * (first + (last - first) * i / 28) for i in range(29)]
        self.polygon([(x + rx * cos(a), y + ry * sin(a)) for a in angles], colour)

    def box(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fills a rectangle around (x, y)."""
        corners = [(x - rx, y - ry), (x + rx, y - ry), (x + rx, y + ry), (x - rx, y + ry)]
        self.polygon(corners, colour)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draws a thick line through points."""
        scaled = [(SUPERSAMPLING * px, SUPERSAMPLING * py) for px, py in self.pixels(points)]
        pixels = max(1, round(width * self.unit * SUPERSAMPLING))
        self.pen.line(scaled, fill=colour, width=pixels, joint="curve")


def blank(colour: Colour) -> tuple[Image.Image, Brush]:
    """Returns a canvas and a brush over it: unit 1 is the picture's side, origin top left."""
    image = Image.new("RGB", (SIDE * SUPERSAMPLING,) * 2, colour)
    return image, Brush(ImageDraw.Draw(image), 0.0, 0.0, float(SIDE))


def finish(image: Image.Image) -> np.ndarray:
    """Averages the supersamples, returns shape (N, N, 3), uint8."""
    return np.asarray(image.reduce(SUPERSAMPLING))
