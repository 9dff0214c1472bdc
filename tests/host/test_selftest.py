"""The gradient self-test: silent on a sound host in every dtype, one sentence on a broken one."""

from contextlib import contextmanager

import pytest
import seeded
import torch
from sefi_pack.nodes.host.text.encoder import HostTextEncoder
from sefi_pack.nodes.host.train import selftest
from sefi_pack.nodes.host.train.backbone import HostBackbone
from sefi_pack.nodes.host.train.borrowing import trainable
from sefi_pack.nodes.host.train.selftest import compare, require_gradients
from sefi_pack.sefi_core.errors import TrainingError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def latent_of(seed, side=8):
    return torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(seed))


class Ready:
    """A backbone and an encoder as a training has them."""

    def __init__(self, model, clip, dtype, seed=0, word="person"):
        self.latent, self.dtype, self.model, self.clip = latent_of(seed), dtype, model, clip
        self.encoder = HostTextEncoder(clip, word)
        with torch.no_grad():
            reference = self.encoder.reference()
        self.backbone = HostBackbone(model, reference, self.latent, dtype)

    def test(self):
        require_gradients(self.backbone, self.encoder, self.latent, self.dtype)


@pytest.fixture
def ready():
    """Returns Ready on models of its own, with weights stored in a dtype, borrowed until the test
    ends.
    """
    borrowed = []

    def make(dtype=torch.float32):
        model, clip = seeded.tiny_model(dtype=dtype), seeded.tiny_clip()
        model.model.diffusion_model.to(dtype)
        borrowed.append(trainable(model, clip.patcher, dtype))
        loaded, _ = borrowed[-1].__enter__()
        return Ready(loaded, clip, dtype)

    yield make
    for one in borrowed:
        one.__exit__(None, None, None)


@contextmanager
def hooked(module, hook):
    handle = module.register_forward_hook(hook)
    yield
    handle.remove()


def detaching(module):
    return hooked(module, lambda _, inputs, out: out.detach())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sound_gradients_pass_far_from_the_limit(dtype):
    """Other weights, latents and class words; what is off stays within 3/4 of what is allowed."""
    for seed in range(6):
        model, clip = seeded.tiny_model(seed=seed), seeded.tiny_clip(seed=seed + 50)
        with trainable(model, clip.patcher, dtype) as (loaded, _):
            ready = Ready(loaded, clip, dtype, seed, ("person", "dog", "old car")[seed % 3])
            ready.test()
            missing, noise, overwritten = compare(
                ready.backbone, ready.encoder, ready.latent, torch.finfo(dtype).eps
            )
        assert not overwritten
        assert abs(missing) < 0.75 * (selftest.MISSING + 2.0 * noise)
        assert noise < (1e-3 if dtype == torch.float32 else 0.5)


def test_it_costs_two_model_calls_and_no_random_number(ready, monkeypatch):
    at = ready()
    before, calls, run = torch.get_rng_state(), [], HostBackbone.run
    monkeypatch.setattr(HostBackbone, "run", lambda *a: (calls.append(1), run(*a))[1])
    at.test()
    assert len(calls) == 2 and torch.equal(torch.get_rng_state(), before)


def block(module, name="input_blocks.1.1.transformer_blocks.0"):
    return module.model.diffusion_model.get_submodule(name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("place", ["output_blocks.3.1.proj_in", "middle_block.1.proj_in"])
def test_a_weight_overwritten_between_forward_and_backward_is_found(ready, dtype, place):
    """As a streamed one would be: its bytes change, the version that autograd looks at does not."""
    at = ready(dtype)
    weight = block(at.model, place).weight

    def overwrite(*_):
        weight.data.mul_(1.01)

    with hooked(at.model.model.diffusion_model.out, overwrite):
        with pytest.raises(TrainingError, match="weights are overwritten before they are used"):
            at.test()
    at.test()


@pytest.mark.parametrize(
    "name",
    [
        "input_blocks.1.1.transformer_blocks.0.attn2.to_out",
        "middle_block.1.transformer_blocks.0",
        "output_blocks.0.1.transformer_blocks.0.attn2.to_v",
        "input_blocks.3.1.transformer_blocks.0.attn2.to_k",
    ],
)
def test_a_block_that_detaches_is_found(ready, name):
    at = ready()
    with detaching(block(at.model, name)):
        with pytest.raises(
            TrainingError, match=r"\d% of the model's answer to a token is"
        ) as caught:
            at.test()
    said = str(caught.value)
    assert said.startswith("model: the gradients that this ComfyUI gives are wrong (")
    assert "start it with --disable-dynamic-vram" in said and said.endswith(".")


def test_a_text_encoder_that_detaches_is_found(ready):
    at = ready()
    layers = at.clip.cond_stage_model.clip_l.transformer.text_model.encoder.layers
    with detaching(layers[1].mlp), pytest.raises(TrainingError, match="is amiss"):
        at.test()


def test_a_gradient_that_autograd_refuses_is_found(ready, monkeypatch):
    at = ready()
    encode, run = at.encoder.encode, HostBackbone.run
    for place, name, broken in (
        (at.encoder, "encode", lambda *a: encode(*a).detach()),
        (HostBackbone, "run", lambda *a: run(*a).detach()),
    ):
        with monkeypatch.context() as patch, pytest.raises(TrainingError, match="PyTorch refuses"):
            patch.setattr(place, name, broken)
            at.test()
    layer = at.model.model.diffusion_model.input_blocks[1][1].proj_out
    with torch.inference_mode():  # a weight that the borrowing has missed
        layer.weight = torch.nn.Parameter(layer.weight.clone(), requires_grad=False)
    with pytest.raises(TrainingError, match="PyTorch refuses to compute them"):
        at.test()


def test_another_error_keeps_its_name(ready, monkeypatch):
    at = ready()

    def full(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(HostBackbone, "run", full)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        at.test()
