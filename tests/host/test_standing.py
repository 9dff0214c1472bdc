"""Training while the host streams weights: on copies of their own, read once, given back."""

import gc
import weakref

import comfy.model_management as mm
import comfy.sd
import pytest
import streamed
import torch
from sefi_pack.nodes.host import checkpointing
from sefi_pack.nodes.host.train.backbone import HostBackbone
from sefi_pack.nodes.host.train.standing import standing
from sefi_pack.sefi_core.errors import SettingsError

TEXT = "clip_l.transformer.text_model.encoder.layers.1.mlp.fc1.weight"


@pytest.fixture
def both():
    (model, model_reader), (clip, clip_reader) = streamed.streamed_model(), streamed.streamed_clip()
    yield model, clip, model_reader, clip_reader
    mm.unload_all_models()


def pairs_of(answer):
    return answer[0].pairs["clip_l"]


def test_it_trains_what_a_plain_model_trains_and_reads_each_file_once(ask, both):
    model, clip, *readers = both
    plain = ask(steps=3, train_seed=7)
    trained = ask(steps=3, train_seed=8, model=model, clip=clip, preview_every=2)
    assert [reader.reads for reader in readers] == [1, 1]
    again = ask(steps=3, train_seed=8)  # on plain models: the same training, finished before
    assert torch.equal(pairs_of(again), pairs_of(trained)) and again[1] == trained[1]
    answered = ask(steps=3, train_seed=7, model=model, clip=clip)
    assert torch.equal(pairs_of(answered), pairs_of(plain))
    assert [reader.reads for reader in readers] == [1, 1]  # nothing is read for what is finished


def test_a_streamed_training_is_bit_for_bit_a_plain_one(ask, both, output):
    model, clip, *_ = both
    plain = ask(steps=3)
    next((output / "finished").iterdir()).unlink()
    assert torch.equal(pairs_of(ask(steps=3, model=model, clip=clip)), pairs_of(plain))


def test_a_lora_on_the_text_encoder_is_trained_with(ask, both):
    model, clip, *_ = both
    with_lora = clip.clone()
    weight = clip.cond_stage_model.get_parameter(TEXT)
    with_lora.add_patches({TEXT: (torch.full_like(weight, 0.05),)}, 1.0)
    plain, changed = (ask(steps=2, model=model, clip=c) for c in (clip, with_lora))
    assert plain[1]["denoising"][0] != changed[1]["denoising"][0]
    hashes = [answer[0].metadata["sefi.encoder_hash"] for answer in (plain, changed)]
    assert hashes[0] != hashes[1]


def test_as_many_blocks_are_computed_again_as_asked(ask, both, output, monkeypatch):
    model, clip, *_ = both
    calls, checkpoint = [], checkpointing.checkpoint
    monkeypatch.setattr(
        checkpointing, "checkpoint", lambda *a, **o: (calls.append(1), checkpoint(*a, **o))[1]
    )
    counts = []
    for models in ({}, {"model": model, "clip": clip}):
        ask(steps=1, gradient_checkpointing=True, **models)
        next((output / "finished").iterdir()).unlink()
        counts.append(len(calls))
        del calls[:]
    assert counts[0] == counts[1] > 0


def test_copies_are_gone_afterwards(ask, both, monkeypatch):
    model, clip, *_ = both
    used, run = [], HostBackbone.run
    monkeypatch.setattr(
        HostBackbone,
        "run",
        lambda self, *a: (used.append(weakref.ref(self.model)), run(self, *a))[1],
    )
    ask(steps=1, model=model, clip=clip)
    gc.collect()
    assert used and not any(one() for one in used)
    assert not any(one.model in (model, clip.patcher) for one in mm.current_loaded_models)


@pytest.mark.parametrize("name", ["model", "clip"])
def test_what_cannot_be_read_again_is_one_sentence(ask, both, output, name):
    model, clip, *readers = both
    {"model": model, "clip": clip.patcher}[name].cached_patcher_init = None
    with pytest.raises(
        SettingsError, match=f"{name}: the node that loaded it keeps no way"
    ) as told:
        ask(model=model, clip=clip)
    assert "load it with Load Checkpoint, or start" in str(told.value)
    assert not any(reader.reads for reader in readers) and not list(output.rglob("*.safetensors"))


@pytest.mark.parametrize("change", ["padding", "forward", "hook"])
def test_what_the_copy_would_lack_is_one_sentence(both, change):
    model, clip, *_ = both
    layer = model.model.diffusion_model.out[2]
    own = layer.forward
    {
        "padding": lambda: setattr(layer, "padding_mode", "circular"),
        "forward": lambda: setattr(layer, "forward", lambda x: own(x) * 2.0),
        "hook": lambda: layer.register_forward_hook(lambda *given: given[-1] * 2.0),
    }[change]()
    with pytest.raises(
        SettingsError, match="model: a node has changed parts of it in place, which"
    ):
        with standing(model, clip):
            pass


def test_a_bypass_lora_is_hung_on_the_copy(both):
    if not hasattr(comfy.sd, "load_bypass_lora_for_models"):
        pytest.skip("this host has no bypass LoRAs")
    model, clip, *_ = both
    base = "diffusion_model.middle_block.1.proj_in"
    tensors = {
        f"{base}.lora_up.weight": torch.randn(64, 2),
        f"{base}.lora_down.weight": torch.ones(2, 64),
    }
    model, _ = comfy.sd.load_bypass_lora_for_models(model, None, tensors, 1.0, 0.0)
    model.inject_model()  # as it is after a picture
    with standing(model, clip) as (copy, _):
        changed = copy.model.diffusion_model.middle_block[1].proj_in
        x = torch.randn(1, 64, *[1] * (changed.weight.ndim - 2))
        before = changed(x)
        copy.inject_model()
        assert not torch.equal(changed(x), before)
        copy.eject_model()
    model.eject_model()


def test_one_checkpoint_is_read_once_for_both(both, monkeypatch):
    if not hasattr(comfy.sd, "load_checkpoint_clip_patcher"):
        pytest.skip("this host streams nothing")
    model, clip, *readers = both
    reads = []

    def read(path, output_vae=True, output_clip=True, disable_dynamic=False, **options):
        reads.append((path, output_vae, disable_dynamic, options["embedding_directory"]))
        text, fresh = streamed.seeded.tiny_clip(), streamed.seeded.tiny_model()
        return fresh, text, None, None

    monkeypatch.setattr(comfy.sd, "load_checkpoint_guess_config", read)
    shared = {"none": 0}, {"none": 1}
    model.cached_patcher_init = (read, ("a.ckpt", False, False, False, "e", True, *shared), 0)
    given = ("a.ckpt", "e", *shared)
    clip.patcher.cached_patcher_init = (comfy.sd.load_checkpoint_clip_patcher, given)
    with standing(model, clip) as (copy, text):
        assert copy.model is not model.model
        assert text.cond_stage_model is text.patcher.model is not clip.cond_stage_model
        assert not copy.is_dynamic() and not text.patcher.is_dynamic()
    assert reads == [("a.ckpt", False, True, "e")] and not any(r.reads for r in readers)


def test_models_that_stay_in_place_are_used_themselves(model, clip):
    with standing(model, clip) as (same, text):
        assert same is model and text is clip
