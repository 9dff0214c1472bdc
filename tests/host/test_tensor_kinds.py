"""Whatever kind of tensor a weight is: it is trained with, and given back bit for bit."""

import comfy.model_management as mm
import pytest
import torch
from asking import stopped_at
from sefi_pack.nodes.host import folders
from sefi_pack.nodes.host.apply.sampling import apply_identity
from tensor_kinds import FORMATS, KINDS, made_of

import nodes

PLACE = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight"
TABLE = [
    *((kind, "auto", lora) for kind in KINDS for lora in (False, True)),
    ("inference", "bf16", True), ("fp8", "bf16", True), ("blocks", "fp16", False),
    ("offloaded", "bf16", True), *((kind, "bf16", True) for kind in FORMATS),
]  # fmt: skip


def encoded(clip, text):
    return nodes.CLIPTextEncode().encode(clip, text)[0]


def sample(model, clip, positive=None):
    positive, negative = positive or encoded(clip, "a dog"), encoded(clip, "")
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


@pytest.mark.parametrize("kind", ["fp16", "fp8", "blocks", *FORMATS])
def test_read_again_it_is_the_same_model_to_go_on_with(ask, clip, output, kind):
    # Far enough from the class word for eight bits to tell.
    settings = {"steps": 3, "learning_rate": 0.05}
    whole = ask(model=KINDS[kind](), **settings)
    next((output / "finished").iterdir()).unlink()
    with stopped_at(2), pytest.raises(mm.InterruptProcessingException):
        ask(model=KINDS[kind](), **settings)
    mm.unload_all_models()
    model = KINDS[kind]()
    resumed = ask(model=model, **settings, resume=folders.checkpoint_names()[1])
    assert resumed[0].pairs["clip_l"].equal(whole[0].pairs["clip_l"]) and resumed[1] == whole[1]
    applied, conditioning = apply_identity(model, clip, resumed[0], "a V*")
    plain = sample(model, clip, encoded(clip, "a person"))
    assert not torch.equal(sample(applied, clip, conditioning), plain)
    mm.unload_all_models()
