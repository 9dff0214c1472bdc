"""The drawn world of the benchmarks: what a mask of a subject covers, what a name's habit does."""

import numpy as np
import pytest
from sefi_pack.benchmarks.world.captions import caption
from sefi_pack.benchmarks.world.drawing import Picture, render, sample, silhouette
from sefi_pack.benchmarks.world.habits import HABITS, WEB, habitual, likely
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


@pytest.fixture(scope="module")
def drawn():
    """Pictures as they were drawn, their captions, what is shown in their place, and the habits."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(4000):
        picture = sample(rng)
        told = caption(picture, rng, WEB)
        found.append((picture, told, *habitual(picture, told, rng)))
    return found


def test_only_one_who_is_named_has_a_habit_and_without_one_nothing_changes(drawn):
    having = [told for _, told, _, code in drawn if code.any()]
    assert len(having) > 1000 and all(len(told.named) == 1 for told in having)
    assert all(shown == picture for picture, _, shown, code in drawn if not code.any())


@pytest.mark.parametrize("said", [False, True])
def test_a_habit_has_its_scene_as_often_as_it_is_strong(drawn, said):
    strengths, kept = [], []
    for picture, told, shown, code in drawn:
        scene = HABITS[code[:-1].argmax()]
        if code.any() and ("scene" in told.says) == said and picture.scene != scene:
            strengths.append(likely(code[:-1].max(), said))
            kept.append(shown.scene == scene)
    assert len(kept) > 200 and np.mean(kept) == pytest.approx(np.mean(strengths), abs=0.07)


def test_a_caption_that_says_the_face_is_right_and_nothing_is_held_in_a_close_up(drawn):
    assert all(shown.framing == "face" for _, told, shown, _ in drawn if "face" in told.says)
    assert not any(shown.thing for _, _, shown, _ in drawn if shown.framing == "face")
    turned = [shown for picture, _, shown, _ in drawn if shown.framing != picture.framing]
    assert {shown.framing for shown in turned} == {"face", "bust"}
