"""One fingerprint of what acts: nothing that acts is missed, nothing else counts."""

import functools
import operator

import comfy.hooks
import comfy.model_management as mm
import comfy.sd
import comfy_extras.nodes_model_advanced as advanced
import pytest
import seeded
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sefi_pack.nodes.host import fingerprint
from sefi_pack.nodes.host.train.acting import read_clip, read_model
from sefi_pack.nodes.host.train.comparing import alike
from sefi_pack.nodes.host.train.session import Session

import nodes

KEYS = ("input_blocks.1.1.transformer_blocks.0.attn2.to_k", "middle_block.1.proj_in")
UNET = [f"diffusion_model.{key}.weight" for key in KEYS]
TEXT = ["clip_l.transformer.text_model.encoder.layers.1.mlp.fc1.weight"]


def noise(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def lora(patcher, names, seed):
    """Returns a LoRA's two matrices for each of a model's weights, by the host's general keys."""
    tensors = {}
    for name in names:
        weight = patcher.model.get_parameter(name)
        base = name.removesuffix(".weight")
        base = base if base.startswith("diffusion_model") else f"text_encoders.{base}"
        tensors[f"{base}.lora_up.weight"] = noise((weight.shape[0], 2), seed)
        tensors[f"{base}.lora_down.weight"] = noise((2, weight[0].numel()), seed + 1)
    return tensors


def with_lora(model, clip, strength, load="load_lora_for_models"):
    tensors = lora(model, UNET[:1], 5) | lora(clip.patcher, TEXT, 7)
    return getattr(comfy.sd, load)(model, clip, tensors, strength, strength)


def with_difference(model, clip, strength):
    model = model.clone()
    model.add_patches({UNET[1]: (noise(model.model.get_parameter(UNET[1]).shape, 9),)}, strength)
    return model, clip


def merged(model, clip, strength):
    other = seeded.tiny_model(seed=8)
    patches = other.get_key_patches("diffusion_model.")
    model = model.clone()
    for name in UNET:
        model.add_patches({name: patches[name]}, 1.0 - strength, strength)
    return model, clip


def wrapped(model, clip, strength):
    model = model.clone()
    model.add_weight_wrapper(UNET[0], lambda weight: weight * strength)
    return model, clip


def replaced(model, clip, strength):
    model = model.clone()
    place = "diffusion_model.middle_block.1.proj_out"
    module = seeded.tiny_model(seed=4).model.get_submodule(place)
    module.weight.data.mul_(strength)
    model.add_object_patch(place, module)
    return model, clip


def injected(model, clip, strength):
    """What hangs on the modules themselves."""
    place = model.model.diffusion_model.middle_block[1].proj_out
    own = place.forward
    place.forward = lambda x: own(x) * strength
    return model, clip


def hooked(model, clip, strength):
    def louder(module, inputs, output):
        return output * strength

    model.model.diffusion_model.middle_block[0].register_forward_hook(louder)
    return model, clip


def tiled(model, clip, strength):
    for module in model.model.diffusion_model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.padding_mode = "circular"
    return model, clip


def text_hooks(model, clip, strength):
    hooks = comfy.hooks.create_hook_lora(lora(clip.patcher, TEXT, 7), 0.0, strength)
    clip = clip.clone()
    clip.patcher.forced_hooks = hooks
    target = comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Clip)
    clip.patcher.register_all_hook_patches(hooks, target)
    return model, clip


def skipped(model, clip, strength):
    clip = clip.clone()
    clip.clip_layer(-2)
    return model, clip


def shifted(model, clip, strength):
    node = advanced.ModelSamplingDiscrete()
    return node.patch(model, "v_prediction", strength > 0.5)[0], clip


WAYS = {
    "LoRA": with_lora, "difference": with_difference, "merge": merged, "wrapper": wrapped,
    "object": replaced, "forward": injected, "hook": hooked, "tiles": tiled,
    "text hooks": text_hooks, "clip skip": skipped, "sampling": shifted,
}  # fmt: skip
if hasattr(comfy.sd, "load_bypass_lora_for_models"):
    WAYS["bypass LoRA"] = functools.partial(with_lora, load="load_bypass_lora_for_models")
STEADY = ("tiles", "clip skip")  # done or not


def fingerprint_of(model, clip, vae):
    found = Session(model, clip, vae).fingerprint("person", ["a photo of V*"], 1)
    return tuple(str(found[name]) for name in sorted(found))


def made(changes):
    model, clip = seeded.tiny_model(), seeded.tiny_clip()
    for way, strength in changes:
        model, clip = WAYS[way](model, clip, strength)
    return model, clip


@st.composite
def changes(draw):
    ways = draw(st.lists(st.sampled_from(sorted(WAYS)), unique=True, max_size=3))
    return tuple((w, 0.25 if w in STEADY else draw(st.sampled_from([0.25, 0.75]))) for w in ways)


@settings(max_examples=25)
@given(one=changes(), other=changes())
def test_models_share_a_fingerprint_if_they_were_changed_alike(vae, one, other):
    first, second = (fingerprint_of(*made(change), vae) for change in (one, one))
    assert first == second
    assert (fingerprint_of(*made(other), vae) == first) == (set(one) == set(other))


@pytest.mark.parametrize("way", sorted(WAYS))
def test_each_change_counts_and_lasts_through_loading_and_unloading(vae, way):
    model, clip = made(())
    plain = fingerprint_of(model, clip, vae)
    other = fingerprint_of(*made([(way, 0.75)]), vae)
    model, clip = WAYS[way](model, clip, 0.25)
    changed = fingerprint_of(model, clip, vae)
    assert changed != plain and (changed == other) == (way in STEADY)
    mm.load_models_gpu([model, clip.patcher], force_full_load=True)
    assert fingerprint_of(model, clip, vae) == changed
    mm.unload_all_models()
    assert fingerprint_of(model, clip, vae) == changed


def test_a_clone_that_is_loaded_does_not_show_in_another(vae):
    model, clip = made(())
    plain = fingerprint_of(model, clip, vae)
    for way in ("LoRA", "object", *({"bypass LoRA"} & set(WAYS))):
        changed, text = WAYS[way](model, clip, 0.5)
        mm.load_models_gpu([changed, text.patcher], force_full_load=True)
        assert fingerprint_of(model, clip, vae) == plain
        mm.unload_all_models()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn], ids=str)
def test_weights_of_another_dtype_are_other_weights(dtype):
    model = seeded.tiny_model()
    plain = read_model(model)
    for weight in model.model.diffusion_model.parameters():
        weight.data = weight.data.to(dtype)
    assert read_model(model) != plain


def clip_hash(clip):
    return read_clip(clip).digest


@pytest.mark.parametrize("family", ["SD 1.x", "SD 2.x", "SDXL"])
def test_only_text_weights_that_are_read_count(family):
    """SD 1.x's files hold no text projection: the host leaves there what was in memory."""
    clip = seeded.FAMILIES[family].clip()
    for name, weight in clip.cond_stage_model.named_parameters():
        before = clip_hash(clip)
        weight.data = weight.data + 1.0
        encoder, _, part = name.partition(".")
        pooled = encoder == "clip_g"
        read = "text_projection" not in part and "logit_scale" not in part
        if family == "SDXL" and not pooled:
            read = read and "layers.2" not in part and "final_layer_norm" not in part
        if family == "SD 2.x":
            read = read and "layers.2" not in part
        if pooled and "text_projection" in part:
            read = True
        assert (clip_hash(clip) != before) == read, name


def test_a_clip_skip_that_changes_nothing_does_not_count():
    clip = seeded.tiny_clip()
    plain = clip_hash(clip)
    clip.clip_layer(-1)
    assert clip_hash(clip) == plain
    clip.clip_layer(-2)
    assert clip_hash(clip) != plain


def test_weights_are_read_once_while_they_stand(vae, monkeypatch):
    model, clip = WAYS["LoRA"](seeded.tiny_model(), seeded.tiny_clip(), 0.5)
    read, bytes_of = [], fingerprint.bytes_of

    def counted(tensor):
        if tensor.numel() > 1000:  # neither a few numbers of one nor the noise levels
            read.append(tensor)
        return bytes_of(tensor)

    monkeypatch.setattr(fingerprint, "bytes_of", counted)
    first = fingerprint_of(model, clip, vae)
    assert len(read) > 100
    del read[:]
    assert fingerprint_of(model, clip, vae) == first and not read
    model.model.get_parameter(UNET[0])[0, 0] += 1.0  # an inference tensor counts no changes
    assert fingerprint_of(model, clip, vae) != first and len(read) == 1


def sealed(model):
    """Puts a function that nobody can look into in the place of a layer's forward."""
    model.model.diffusion_model.middle_block[1].proj_out.forward = operator.methodcaller("mul", 2.0)
    return model


def test_what_cannot_be_read_is_told():
    assert read_model(sealed(seeded.tiny_model())).unread == {"operator.methodcaller"}
    assert not read_model(seeded.tiny_model()).unread


def test_sampling_and_training_leave_the_fingerprint(ask, model, clip, vae):
    before = fingerprint_of(model, clip, vae)
    ask(steps=2, preview_every=2, dtype="bf16", gradient_checkpointing=True)
    assert fingerprint_of(model, clip, vae) == before
    positive = nodes.CLIPTextEncode().encode(clip, "a person")[0]
    latent = nodes.EmptyLatentImage().generate(64, 64, 1)[0]
    nodes.KSampler().sample(model, 1, 2, 5.0, "euler", "normal", positive, positive, latent, 1.0)
    assert fingerprint_of(model, clip, vae) == before


def test_what_two_models_make_of_fixed_inputs_is_alike_but_for_rounding():
    assert alike([1.0, 2.0], [1.0, 2.0 + 1e-6])
    assert not alike([1.0, 2.0], [1.0, 2.1]) and not alike([1.0], [1.0, 2.0])
