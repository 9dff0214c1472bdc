"""What is said of memory; and the account in docs/performance.md against what autograd keeps."""

import comfy.model_management as mm
import pytest
import seeded
import torch
from asking import samples_of
from sefi_pack.benchmarks.speed_account import (
    activation_bytes,
    recomputed_bytes,
    text_bytes,
    text_of,
    unet_parts,
)
from sefi_pack.nodes.host.checkpointing import recomputing
from sefi_pack.nodes.host.text.encoder import HostTextEncoder
from sefi_pack.nodes.host.train.backbone import HostBackbone
from sefi_pack.nodes.host.train.memory import measured, what_memory_needs
from sefi_pack.sefi_core.errors import TrainingError
from sefi_pack.sefi_core.training.config import TrainingConfig
from sefi_pack.sefi_core.training.learner import Learner

SIDE, GIB = (16, 16), 2**30


def kept_by(run, *aside):
    """Returns the bytes of the storages that autograd keeps of `run()`, tensors `aside` aside."""
    there = {tensor.untyped_storage().data_ptr() for tensor in aside}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = tensor  # alive, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    assert result is not None  # the graph is alive while the storages are counted
    return sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in there)


def scene(family, dtype):
    """Returns a family's backbone, and what counts the bytes kept by a prediction of it."""
    model, encoder = (
        seeded.FAMILIES[family].model(),
        HostTextEncoder(seeded.FAMILIES[family].clip(), "person"),
    )
    model.model.to(dtype)
    model.model.requires_grad_(False)
    latents, noise = torch.randn(2, 2, 4, *SIDE, generator=torch.Generator().manual_seed(0))
    backbone = HostBackbone(model, encoder.reference(), latents[:1], dtype, encoder.pooled)
    keys, values = (encoder.reference().repeat(2, 1, 1).requires_grad_() for _ in range(2))
    timesteps = torch.tensor([100, 900])
    aside = (*model.model.parameters(), *model.model.buffers(), keys, values)
    samples = samples_of(latents, noise, timesteps)
    return backbone, lambda with_maps: kept_by(
        lambda: backbone.predict(samples, keys, values, with_maps), *aside
    )


@pytest.mark.parametrize("with_maps", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["SD 1.x", "SD 2.x", "SDXL"])
def test_the_account_of_a_unet_is_right_within_three_percent(family, dtype, with_maps):
    with torch.inference_mode(False), torch.enable_grad():
        backbone, kept_with = scene(family, dtype)
        unet, kept = backbone.model.model.diffusion_model, kept_with(with_maps)
        noted = set(backbone.layers) if with_maps else set()
        parts = list(unet_parts(unet, SIDE, 77, noted))
    assert activation_bytes(parts, 2, dtype.itemsize) == pytest.approx(kept, rel=0.03)


@pytest.mark.parametrize("family", ["SD 1.x", "SDXL"])
def test_the_account_of_recomputed_blocks(family):
    """Between the passes only the blocks' inputs are there; the largest block comes later."""
    with torch.inference_mode(False), torch.enable_grad():
        backbone, kept_with = scene(family, torch.float32)
        unet = backbone.model.model.diffusion_model
        with recomputing(backbone.model.model, True):
            kept = kept_with(True)
        parts = list(unet_parts(unet, SIDE, 77, set(backbone.layers)))
        largest = max(part.bytes(4) for part in parts if part.again)
    counted = recomputed_bytes(parts, 2, 4) - 2 * largest
    assert counted == pytest.approx(kept, rel=0.03)
    assert recomputed_bytes(parts, 2, 4) < 0.5 * activation_bytes(parts, 2, 4)


@pytest.mark.parametrize("again", [False, True])
def test_the_account_of_a_text_encoder(again):
    with torch.inference_mode(False), torch.enable_grad():
        encoder = HostTextEncoder(seeded.tiny_clip(), "person", again)
        (model,) = (e.transformer.text_model for e in encoder.encoders.values())
        model.requires_grad_(False).float()
        tokens = encoder.class_tokens["clip_l"].expand(2, 1, -1).clone().requires_grad_()
        kept = kept_by(lambda: encoder.encode({"clip_l": tokens}), *model.parameters())
    inputs = 4 * 3 * 2 * 77 * 64  # of three layers 64 wide; a whole layer's turn comes later
    counted = text_of(model, 2, again)
    if again:
        counted -= text_bytes(64, 128, 4, 1, 2, 77, again=False) - inputs // 3
        assert counted == inputs // 3 * 4
    assert counted == pytest.approx(kept, rel=0.2 if again else 0.02)  # the mask is kept as well


def learner_of(**settings):
    return Learner({"clip_l": torch.zeros(8)}, TrainingConfig(**settings))


@pytest.mark.parametrize(
    ("batch", "free", "again", "said"),
    [
        (1, 2 * GIB, False, "about 1.0 GB needed for the steps, 2.0 GB free"),
        (3, 2 * GIB, False, "about 3.0 GB needed for the steps, 2.0 GB free; turn on gradient_ch"),
        (3, 2 * GIB, True, "about 3.0 GB needed for the steps, 2.0 GB free; lower batch_size or "),
    ],
)
def test_the_sentence_is_of_the_batch_and_says_what_helps(monkeypatch, batch, free, again, said):
    monkeypatch.setattr(mm, "get_free_memory", lambda _: free)
    sentence = what_memory_needs(GIB, learner_of(batch_size=batch), again)
    assert sentence.startswith(said) and (";" in sentence) == (batch * GIB > free)


def test_what_a_device_accounts_for_is_measured_beyond_what_was_there(monkeypatch):
    cpu = torch.device("cpu")
    with measured(cpu) as nothing:
        pass
    assert nothing == []  # PyTorch keeps no account of the CPU
    taken = iter([5 * GIB, 7 * GIB])
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cpu, name, lambda _: next(taken), raising=False)
    monkeypatch.setattr(torch.cpu, "reset_peak_memory_stats", lambda _: None, raising=False)
    with measured(cpu) as peak:
        assert peak == []
    assert peak == [2 * GIB]


def test_memory_that_runs_out_in_a_step_is_told_and_costs_no_step(ask, output, monkeypatch):
    run, calls = HostBackbone.predict, []

    def full(*given):
        calls.append(given)
        if len(calls) > 40:
            raise torch.OutOfMemoryError("Allocation on device")
        return run(*given)

    monkeypatch.setattr(HostBackbone, "predict", full)
    with pytest.raises(TrainingError, match="ran out of memory for the steps; turn on gradient_c"):
        ask(steps=60)
    assert list(output.rglob("*.checkpoint.safetensors"))
