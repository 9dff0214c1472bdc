"""Whatever kind of tensor a weight is: it is trained with, and given back bit for bit."""

import comfy.model_management as mm
import pytest
import torch
from tensor_kinds import FORMATS, KINDS, made_of

import nodes

PLACE = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight"
TABLE = [
    *((kind, "auto", lora) for kind in KINDS for lora in (False, True)),
    ("inference", "bf16", True), ("fp8", "bf16", True), ("blocks", "fp16", False),
    ("offloaded", "bf16", True), *((kind, "bf16", True) for kind in FORMATS),
]  # fmt: skip


def sample(model, clip):
    positive, negative = (nodes.CLIPTextEncode().encode(clip, text)[0] for text in ("a dog", ""))
    latent = nodes.EmptyLatentImage().generate(64, 64, 1)[0]
    return nodes.KSampler().sample(
        model, 1, 2, 5.0, "euler", "normal", positive, negative, latent, 1.0
    )[0]["samples"]


def with_lora(model):
    changed = model.clone()
    shape = (64, 64)
    changed.add_patches({PLACE: (torch.full(shape, 0.05),)}, 1.0)
    return changed


@pytest.mark.parametrize(("kind", "dtype", "lora"), TABLE)
def test_it_trains_and_gives_back_what_it_borrowed(ask, clip, kind, dtype, lora):
    model = KINDS[kind]()
    changed = with_lora(model) if lora else model
    sample(changed, clip)  # the host itself clears the gradient flag of a weight that it patches
    picture, before = sample(model, clip), made_of(model)
    first = ask(model=changed, dtype=dtype, steps=2, preview_every=2)
    assert first[0].pairs["clip_l"].isfinite().all()
    mm.load_models_gpu([model])
    assert made_of(model) == before
    assert torch.equal(sample(model, clip), picture)
    again = ask(model=changed, dtype=dtype, steps=2, preview_every=2)
    assert again[0].pairs["clip_l"].equal(first[0].pairs["clip_l"])
    assert "Finished before" in again[3]["sefi_training"][0]["note"]
    mm.unload_all_models()
