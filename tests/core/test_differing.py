"""A picture that differs from others: twenty drawings of one subject, and strangers among them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sefi_pack.benchmarks.world.drawing import Picture, draw_attributes, render, silhouette
from sefi_pack.benchmarks.world.scenery import SCENES
from sefi_pack.benchmarks.world.subjects import split
from sefi_pack.sefi_core.picture.differing import LIKE, colours, differing

MANY = 20


def photo(subject, rng):
    """A drawing of a subject in any framing, scene, clothes and mood, with its mask."""
    framing, scene = rng.choice(["face", "bust"]), rng.choice([None, *SCENES])
    drawn = Picture(framing, (subject,), draw_attributes(subject.kind, rng), scene)
    seed = rng.integers(1 << 30)
    image = render(drawn, np.random.default_rng(seed))
    mask = silhouette(drawn, np.random.default_rng(seed))
    return torch.tensor(image).movedim(-1, 0) / 255.0, torch.tensor(mask)[None]


def photos(*subjects):
    rng = np.random.default_rng(7)
    return [torch.stack(each) for each in zip(*(photo(one, rng) for one in subjects), strict=True)]


@pytest.fixture(scope="module")
def sets():
    """Twenty drawings of each of eight people and dogs."""
    chosen = [*split("person", "development")[:5], *split("dog", "development")[:3]]
    return [photos(*[subject] * MANY) for subject in chosen]


def test_of_one_subject_s_pictures_none_is_named(sets):
    assert [differing(*each) for each in sets] == [[]] * len(sets)  # of 160 pictures


def test_strangers_are_often_named_and_alone(sets):
    named = 0
    for i, (pictures, masks) in enumerate(sets):
        other, its_mask = (each[:1] for each in sets[(i + 3) % len(sets)])
        found = differing(torch.cat([pictures, other]), torch.cat([masks, its_mask]))
        assert set(found) <= {MANY}
        named += found == [MANY]
    assert named >= 3  # of eight; some wear the same


def test_a_picture_of_other_colours_is_named_whichever_it_is(sets):
    pictures, masks = sets[0][0][:4], sets[0][1][:4]
    for i in range(4):
        others = pictures.clone()
        others[i] = 1.0 - others[i]
        assert differing(others, masks) == [i]


def test_it_is_never_guessed(sets):
    """Of two nobody knows which is meant, and without a mask the scene would be compared."""
    (first, masks), other = sets[0], 1.0 - sets[0][0]
    assert differing(torch.cat([first[:1], other[:1]]), masks[:2]) == []
    assert differing(torch.cat([first[:2], other[:1]]), torch.ones_like(masks[:3])) == []


@given(st.integers(0, 10**6), st.floats(0.0, 0.03))
def test_colours_are_shares_that_little_light_changes_little(seed, light):
    generator = torch.Generator().manual_seed(seed)
    pictures, masks = (torch.rand(2, c, 32, 32, generator=generator) * 0.9 for c in (3, 1))
    before, after = colours(pictures, masks), colours(pictures + light, masks)
    torch.testing.assert_close(before.sum(dim=1), torch.ones(2))
    assert ((before * after).sqrt().sum(dim=1) > LIKE).all()
    assert (before >= 0.0).all() and before.shape == (2, 216)
