"""Many pictures: bounded in memory, with a bar, stopped in the middle; and a VAE that fails."""

import resource

import comfy.model_management as mm
import comfy.utils
import pytest
import torch
from sefi_pack.nodes.host.train.pictures import encode_pool, encode_views
from sefi_pack.nodes.host.train.squares import square_pictures
from sefi_pack.sefi_core.errors import PictureError
from sefi_pack.sefi_core.training.config import TrainingConfig

SIDE, MANY = 512, 8


@pytest.fixture
def bar(monkeypatch):
    """What the host's bar has shown."""
    shown = []
    hook = lambda value, total, *_, **__: shown.append((value, total))  # noqa: E731
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    return shown


def encoded(vae, model, count):
    """Encodes a view of each picture, as a training does."""
    pictures, masks = square_pictures(torch.rand(count, SIDE, SIDE, 3), None, SIDE)
    config = TrainingConfig(views=count)
    return encode_pool(vae, model, pictures, masks, config, torch.device("cpu"))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_memory_does_not_grow_with_the_pictures_but_for_themselves(vae, model, bar):
    encoded(vae, model, 1)
    one = peak()
    pool = encoded(vae, model, MANY)
    batch = MANY * 7 * SIDE * SIDE * 4  # as connected, and as squares with their masks
    assert len(pool.latents) == MANY and peak() - one < batch + 500e6
    assert bar[-1] == (MANY, MANY) and len(bar) >= MANY


def test_it_is_stopped_in_the_middle(vae, model, bar, monkeypatch):
    def press(value, total, *_, **__):
        bar.append(value)
        mm.interrupt_current_processing(value == 2)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", press)
    with pytest.raises(mm.InterruptProcessingException):
        encoded(vae, model, MANY)
    assert bar[-1] == 2


def test_small_views_are_encoded_together(vae, model, monkeypatch):
    sizes, encode = [], vae.encode
    monkeypatch.setattr(vae, "encode", lambda x: (sizes.append(len(x)), encode(x))[1])
    views = torch.rand(70, 3, 64, 64)
    pool = encode_views(vae, model, views, views[:, :1], torch.device("cpu"))
    assert sizes == [64, 6] and len(pool.latents) == len(pool.masks) == 70


def test_a_vae_that_makes_no_numbers_is_blamed_before_any_step(ask, vae, output, monkeypatch):
    encode = vae.encode
    monkeypatch.setattr(vae, "encode", lambda x: encode(x) * float("nan"))
    with pytest.raises(PictureError, match=r"^vae: it makes numbers of this picture that are not"):
        ask()
    assert not list(output.rglob("*.safetensors"))
