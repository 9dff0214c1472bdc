"""The drawn world of the benchmarks: what a mask of a subject covers."""

import numpy as np
import pytest
from sefi_pack.benchmarks.world.drawing import Picture, render, silhouette
from sefi_pack.benchmarks.world.scenery import SCENES
from sefi_pack.benchmarks.world.subjects import split

HELEN = split("person", "development")[0]


@pytest.mark.parametrize("scene", SCENES)
def test_beside_its_silhouette_a_subject_leaves_the_scene_as_it_is(scene):
    photo = Picture("face", (HELEN,), scene=scene)
    mask = silhouette(photo, np.random.default_rng(3))
    drawn = render(photo, np.random.default_rng(3)).astype(float)
    behind = render(Picture("empty", scene=scene), np.random.default_rng(3)).astype(float)
    assert mask.shape == drawn.shape[:2] and 0.2 < mask.mean() < 0.8
    assert (drawn == behind)[mask == 0.0].all()
    assert not (drawn == behind)[mask == 1.0].all()
