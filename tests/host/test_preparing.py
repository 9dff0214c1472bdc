"""What is done to a picture before it is learned, on the host's own classes."""

import pytest
import torch
from comfy.model_management import InterruptProcessingException, interrupt_current_processing
from sefi_pack.benchmarks.methods import METHODS, World
from sefi_pack.benchmarks.world.files import MINIATURE
from sefi_pack.benchmarks.world.subjects import named
from sefi_pack.nodes.host.page.progress import Progress
from sefi_pack.nodes.host.text.encoder import HostTextEncoder
from sefi_pack.nodes.host.train import loaded, pictures, preparing
from sefi_pack.nodes.host.train.borrowing import trainable
from sefi_pack.nodes.host.train.loaded import Loaded
from sefi_pack.nodes.host.train.preparing import subject_masks


@pytest.fixture(scope="module")
def world():
    with torch.inference_mode():
        return World(MINIATURE)


@pytest.fixture
def borrowed(world):
    """The miniature as a training has it, and its text encoder."""
    with trainable(world.model, world.clip.patcher, torch.float32) as (model, load):
        host = Loaded(model, world.clip, world.vae, torch.float32, load)
        yield host, HostTextEncoder(world.clip, "person")


@pytest.fixture
def pools(monkeypatch):
    """The pictures and masks that views are drawn from, training by training."""
    seen, draw = [], pictures.augmented_views
    monkeypatch.setattr(
        pictures, "augmented_views", lambda *a, **k: (seen.append(a[:2]), draw(*a, **k))[1]
    )
    return seen


def test_the_subject_is_found_before_its_scene(world, borrowed):
    person = named("person")["diana"]
    picture, mask = world.picture(person, METHODS["default"])
    found = subject_masks(*borrowed, picture, mask, METHODS["default"].config)
    truth = world.mask(person)[:, None]
    assert (found * truth).sum() > 0.8 * truth.sum()
    assert (found * (1 - truth)).sum() < 0.15 * (1 - truth).sum()


def test_without_a_mask_one_is_found_and_what_an_artist_gives_counts(ask, pools, monkeypatch):
    half = torch.zeros(1, 1, 32, 32)
    half[..., :16] = 1.0
    monkeypatch.setattr(preparing, "find_subject", lambda *_: half)
    painted = torch.zeros(1, 80, 72)
    painted[:, 20:50, 20:50] = 1.0
    opaque = torch.rand(1, 80, 72, 4)
    opaque[..., 3] = 1.0
    ask(steps=1)
    ask(steps=1, image=opaque)
    ask(steps=1, mask=painted)
    ask(steps=1, mask=torch.ones(1, 80, 72))
    masks = [mask for _, mask in pools]
    assert all(
        mask.equal(half.repeat_interleave(2, 2).repeat_interleave(2, 3)) for mask in masks[:2]
    )
    assert 0.1 < masks[2].mean() < 0.3 and masks[3].min() > 0.999


def test_a_border_is_cut_off_the_picture_and_its_mask(ask, pools):
    picture, mask = 0.3 + 0.4 * torch.rand(1, 80, 80, 3), torch.zeros(1, 80, 80)
    mask[:, 10:40, 20:60] = 1.0
    pad = torch.nn.functional.pad
    ask(steps=1, image=picture, mask=mask)
    ask(steps=1, image=pad(picture, (0, 0, 24, 24, 10, 0)), mask=pad(mask, (24, 24, 10, 0)))
    assert len(pools) == 1  # it is the same picture, and finished before


def test_what_an_artist_has_painted_is_never_cut_off_with_a_border(ask, pools):
    bars, painted = torch.zeros(1, 80, 80, 3), torch.zeros(1, 80, 80)
    bars[:, 18:62] = 0.5
    painted[:, :16] = painted[:, 40, 40] = 1.0
    upright, whole = torch.ones(1, 100, 100, 3), torch.zeros(1, 100, 100)
    upright[:, 10:90, 25:75] = 0.4
    whole[:, 10:90, 25:75] = 1.0
    ask(steps=1, image=bars, mask=painted)
    ask(steps=1, image=upright, mask=whole)
    (_, in_a_bar), (_, standing) = pools
    assert 0.19 < in_a_bar.mean() < 0.22 and 0.38 < standing.mean() < 0.42


def test_what_is_not_learned_is_dimmed_in_the_panel(ask, monkeypatch):
    left = torch.zeros(1, 1, 32, 32)
    left[..., :16] = 1.0
    shown = []
    monkeypatch.setattr(preparing, "find_subject", lambda *_: left)
    monkeypatch.setattr(Progress, "reference", lambda _, pictures: shown.append(pictures.clone()))
    ask(steps=1, image=torch.ones(1, 64, 64, 3))
    at_once, found = shown
    assert at_once.min() == 255
    assert found[:, :, :32].min() == 255 and 50 < found[:, :, 32:].max() < 128


def test_the_paper_takes_the_picture_as_it_is(ask, pools, monkeypatch):
    monkeypatch.setattr(loaded, "encode_views", None)  # nothing may be asked of the model
    ask(steps=1, preset="paper")
    ((picture, mask),) = pools
    assert picture.shape == (1, 3, 64, 64) and mask.min() > 0.999


def test_cancel_works_while_the_model_is_asked(ask, pools):
    interrupt_current_processing(True)
    with pytest.raises(InterruptProcessingException):
        ask(steps=1)
    assert not pools
