"""A border of one colour is cut off a picture, and nothing that is none."""

from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sefi_pack.benchmarks.world.drawing import Picture, render
from sefi_pack.benchmarks.world.scenery import SCENES
from sefi_pack.benchmarks.world.subjects import split
from sefi_pack.sefi_core.picture.border import within_border

SIDE = 128
WHOLE = (slice(0, SIDE), slice(0, SIDE))


def framed(top=0, bottom=0, left=0, right=0, colour=(0.0, 0.0, 0.0), grain=0.0, side=SIDE):
    """Bright noise with a border of so many pixels on each side."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.tensor(colour).view(3, 1, 1).repeat(1, side, side)
    picture += grain * (2 * torch.rand(picture.shape, generator=generator) - 1)
    inside = picture[:, top : side - bottom, left : side - right]
    inside.copy_(0.3 + 0.4 * torch.rand(inside.shape, generator=generator))
    return picture


@given(
    st.tuples(*[st.integers(0, 32)] * 4),
    st.sampled_from([(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.9, 0.1, 0.1)]),
    st.sampled_from([0.0, 0.02]),
)
def test_what_is_within_a_border_is_found_to_the_pixel(sides, colour, grain):
    top, bottom, left, right = sides
    rows, columns = within_border(framed(*sides, colour, grain))
    assert (rows, columns) == (slice(top, SIDE - bottom), slice(left, SIDE - right))


@pytest.mark.parametrize("quality", [50, 75, 90])
@pytest.mark.parametrize("colour", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
def test_an_edge_that_jpeg_has_blurred_is_cut_off_with_it(colour, quality):
    large = 2 * SIDE
    drawn = framed(20, 20, 24, 13, colour, side=large).movedim(0, -1) * 255
    file = BytesIO()
    Image.fromarray(drawn.byte().numpy()).save(file, "JPEG", quality=quality)
    picture = torch.tensor(np.asarray(Image.open(file))).movedim(-1, 0) / 255.0
    rows, columns = within_border(picture)
    found = rows.start, large - rows.stop, columns.start, large - columns.stop
    assert all(0 <= x - y <= 2 for x, y in zip(found, (20, 20, 24, 13), strict=True)), found


@pytest.mark.parametrize("backdrop", [0.0, 1.0])
def test_a_subject_before_a_plain_backdrop_has_no_border(backdrop):
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    disc = ((y - 64) ** 2 + (x - 64) ** 2 < 45**2).float()
    assert within_border(disc * 0.5 + (1 - disc) * backdrop * torch.ones(3, 1, 1)) == WHOLE


def test_a_backdrop_that_changes_little_by_little_has_no_border():
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    disc = ((y - 90) ** 2 + (x - 64) ** 2 < 30**2).float()
    sky = (1.0 - 0.3 * y / SIDE).expand(3, -1, -1)
    assert within_border(disc * 0.2 + (1 - disc) * sky) == WHOLE


def test_a_picture_of_one_colour_and_what_would_leave_next_to_nothing_stay_whole():
    assert within_border(torch.full((3, SIDE, SIDE), 0.2)) == WHOLE
    assert within_border(framed(50, 50))[0] == WHOLE[0]


def test_the_drawn_world_s_photos_have_no_border():
    people = [*split("person", "development"), *split("dog", "development")]
    for n, subject in enumerate(people):
        for scene in (None, *SCENES):
            drawn = Picture(("face", "bust")[n % 2], (subject,), scene=scene)
            picture = torch.tensor(render(drawn, np.random.default_rng(n))).movedim(-1, 0) / 255.0
            whole = slice(0, picture.shape[-1])
            assert within_border(picture) == (whole, whole), (subject.name, scene)
