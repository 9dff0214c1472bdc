"""What does not belong together, and what is no checkpoint for us: one sentence, and nothing has
been computed by then.
"""

import itertools

import comfy.model_base
import comfy.supported_models
import comfy.supported_models_base
import pytest
import seeded
import torch
from comfy import sd1_clip, sdxl_clip
from comfy.text_encoders import sd2_clip, sd3_clip
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.text.encoder import text_encoders
from sefi_pack.nodes.host.text.matching import require_match
from sefi_pack.nodes.host.train import trainer
from sefi_pack.nodes.host.unets import require_text_unet
from sefi_pack.sefi_core.errors import MismatchError
from sefi_pack.sefi_core.identity.identity import Identity
from torch.utils._python_dispatch import TorchDispatchMode

NOTHING = torch.zeros(0)


class NoTensorOp(TorchDispatchMode):
    """Fails at the first operation on a tensor."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} was computed")


def full_clip(tokenizer, encoder, **params):
    """A text encoder of the real widths, without memory for its weights."""
    target = comfy.supported_models_base.ClipTarget(tokenizer, encoder)
    target.params = params
    return comfy.sd.CLIP(target, model_options={"initial_device": torch.device("meta")})


REFINER = {
    **seeded.SDXL_LAYOUT, "context_dim": 1280, "adm_in_channels": 2560,
}  # fmt: skip
MODELS = {
    "SD 1.x": lambda: seeded.tiny_model(context_dim=768),
    "SD 2.x": lambda: seeded.tiny_sd2(context_dim=1024),
    "SD 2.x v": lambda: seeded.tiny_sd2(v_prediction=True, context_dim=1024),
    "SDXL": lambda: seeded.tiny_sdxl(context_dim=2048),
    "the SDXL refiner": lambda: seeded.tiny_unet(
        comfy.supported_models.SDXLRefiner, comfy.model_base.SDXLRefiner, **REFINER
    ),
}
CLIPS = {
    "SD 1.x": lambda: full_clip(sd1_clip.SD1Tokenizer, sd1_clip.SD1ClipModel),
    "SD 2.x": lambda: full_clip(sd2_clip.SD2Tokenizer, sd2_clip.SD2ClipModel),
    "SDXL": lambda: full_clip(sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLClipModel),
    "the SDXL refiner": lambda: full_clip(sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLRefinerClipModel),
}
IDENTITIES = {
    "SD 1.x": {"clip_l": 768},
    "SD 2.x": {"clip_h": 1024},
    "SDXL": {"clip_l": 768, "clip_g": 1280},
    "the SDXL refiner": {"clip_g": 1280},
}


def every(*tables):
    return list(itertools.product(*tables))


@pytest.fixture(scope="module")
def parts():
    with torch.inference_mode():
        yield (
            {
                name: Identity({n: torch.zeros(5, 2, 1, width) for n, width in widths.items()})
                for name, widths in IDENTITIES.items()
            },
            {name: make() for name, make in CLIPS.items()},
            {name: make() for name, make in MODELS.items()},
        )


def sentence_of(call):
    with NoTensorOp(), pytest.raises(MismatchError) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".") and len(sentence) < 300
    return sentence


def train(model, clip):
    trainer.train_identity(
        model=model, clip=clip, vae=None, image=NOTHING, class_word="person",
        train_seed=0, preset="default", steps=1, learning_rate=1e-3, attention_loss_weight=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "combination", [*itertools.product(IDENTITIES, CLIPS, MODELS)], ids=" / ".join
)
def test_applying_names_both_families(combination, parts):
    identity, clip, model = (part[name] for part, name in zip(parts, combination, strict=True))
    whose, encoder, unet = (name.removesuffix(" v") for name in combination)

    def apply():
        return apply_identity(model, clip, identity, "a photo of V*")

    if unet == "the SDXL refiner":
        assert sentence_of(apply).startswith("model: the checkpoint is the SDXL refiner, ")
    elif encoder != unet:
        start = f"clip: it is of {encoder} ("
        assert sentence_of(apply).startswith(start)
        assert f", the model is {unet} (context " in sentence_of(apply)
    elif whose != encoder:
        assert sentence_of(apply).startswith(f"identity: it was trained for {whose} (")
        assert f", the CLIP is {encoder} (" in sentence_of(apply)
    else:
        with NoTensorOp():
            require_match(model, clip)
            identity.require_family(IDENTITIES[encoder])


@pytest.mark.parametrize("combination", every(CLIPS, MODELS), ids=" / ".join)
def test_training_names_both_families(combination, parts):
    clip, model = (part[name] for part, name in zip(parts[1:], combination, strict=True))
    encoder, unet = (name.removesuffix(" v") for name in combination)
    if unet == "the SDXL refiner":
        assert "the SDXL refiner" in sentence_of(lambda: train(model, clip))
    elif encoder != unet:
        sentence = sentence_of(lambda: train(model, clip))
        assert sentence.startswith(f"clip: it is of {encoder} (") and f"is {unet} (" in sentence
        assert sentence.endswith("; take MODEL and CLIP from the same checkpoint.")


def video(config, base, **unet):
    """A UNet with a time axis: SVD and its kin."""
    temporal = {
        "use_temporal_attention": True, "use_temporal_resblock": True, "in_channels": 8,
        "extra_ff_mix_layer": True, "use_spatial_context": True, "merge_factor": 0.0,
        "merge_strategy": "learned_with_images", "video_kernel_size": [3, 1, 1],
        "disable_temporal_crossattention": False, "num_classes": "sequential",
        "use_linear_in_transformer": True, "num_heads": 4, "num_head_channels": -1,
    }  # fmt: skip
    return seeded.tiny_unet(config, base, **{**temporal, **unet})


def on_meta(config, base):
    """A model of another architecture, without memory for its weights."""
    built = getattr(comfy.model_base, base)(config, device="meta")
    cpu = torch.device("cpu")
    return seeded.comfy.model_patcher.ModelPatcher(built, load_device=cpu, offload_device=cpu)


def zero123():
    base = comfy.model_base.Stable_Zero123

    def make(config, model_type, device):
        return base(config, model_type, device, torch.zeros(64, 68), torch.zeros(64))

    return seeded.tiny_unet(comfy.supported_models.Stable_Zero123, make, in_channels=8)


supported, bases = comfy.supported_models, comfy.model_base
REFUSED = {
    "Flux": lambda: seeded.tiny_transformer("Flux"),
    "SD3": lambda: seeded.tiny_transformer("SD3"),
    "SVD_img2vid": lambda: video(supported.SVD_img2vid, bases.SVD_img2vid, adm_in_channels=768),
    "SV3D_u": lambda: video(supported.SV3D_u, bases.SV3D_u, adm_in_channels=256),
    "BaseModel": lambda: video(supported.SD15, bases.BaseModel, num_classes=None, in_channels=4),
    "Stable_Zero123": zero123,
    "SD_X4Upscaler": lambda: seeded.tiny_unet(
        supported.SD_X4Upscaler,
        bases.SD_X4Upscaler,
        in_channels=7,
        disable_self_attentions=[True, False],
    ),
    "Lotus": lambda: seeded.tiny_unet(
        supported.LotusD, bases.Lotus, num_classes="sequential", adm_in_channels=4
    ),
    "StableCascade_C": lambda: on_meta(
        supported.Stable_Cascade_C({"stable_cascade_stage": "c", "dtype": torch.float32}),
        "StableCascade_C",
    ),
    "StableCascade_B": lambda: on_meta(
        supported.Stable_Cascade_B({"stable_cascade_stage": "b", "dtype": torch.float32}),
        "StableCascade_B",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_are_refused_by_name(name, clip, learned):
    other = REFUSED[name]()
    expected = f"model: the checkpoint is {name}, which does not draw from CLIP text alone"
    for call in (
        lambda: train(other, clip),
        lambda: apply_identity(other, clip, learned, "a photo of V*"),
        lambda: require_text_unet(other),
    ):
        assert sentence_of(call).startswith(expected)


def test_the_text_encoders_of_sd_3_are_not_those_of_sdxl(learned):
    """They have the same widths."""
    clip = full_clip(sd3_clip.SD3Tokenizer, sd3_clip.SD3ClipModel, t5=False)
    sentence = sentence_of(lambda: text_encoders(clip))
    assert sentence.startswith("clip: this text encoder is SD3ClipModel, which is not CLIP alone")
    model = MODELS["SDXL"]()
    sentence = sentence_of(lambda: apply_identity(model, clip, learned, "V*"))
    assert sentence.startswith("clip: this text encoder is SD3ClipModel, ")
