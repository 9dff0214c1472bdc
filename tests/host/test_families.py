"""What is particular to a family: what its UNet reads beside the prompt, its files, its size."""

import contextlib
import dataclasses
import functools
import types

import comfy.model_base
import comfy_extras.nodes_clip_sdxl
import comfy_extras.nodes_ip2p
import pytest
import seeded
import torch
from comfy.ldm.modules.attention import CrossAttention
from safetensors import safe_open
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.text import layers as text_layers
from sefi_pack.nodes.host.text.encoder import HostTextEncoder
from sefi_pack.nodes.host.text.matching import require_match
from sefi_pack.nodes.host.train import borrowing, pictures
from sefi_pack.nodes.host.train.backbone import compared_layers
from sefi_pack.nodes.host.train.session import Session
from sefi_pack.nodes.host.unets import own_side
from sefi_pack.sefi_core import losses as core_losses
from sefi_pack.sefi_core.identity.file_format import load_identity, save_identity
from sefi_pack.sefi_core.prompts import training_prompt
from sefi_pack.sefi_core.training.config import PRESETS

import nodes

ALL = {name: name for name in seeded.FAMILIES} | seeded.KIN


@pytest.fixture(scope="module", params=ALL)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def family(name):
    return seeded.FAMILIES[ALL[name]]


@pytest.fixture(scope="module")
def model(name, family):
    with torch.inference_mode():
        return family.model() if name in seeded.FAMILIES else seeded.tiny_kin(name)


@pytest.fixture(scope="module")
def clip(family):
    with torch.inference_mode():
        return family.clip()


def encode(clip, text):
    return nodes.CLIPTextEncode().encode(clip, text)[0]


def sample(model, positive, negative, latent=None, steps=3, cfg=5.0):
    latent = latent or nodes.EmptyLatentImage().generate(64, 64, 1)[0]
    return nodes.KSampler().sample(
        model, 1, steps, cfg, "euler", "normal", positive, negative, latent, 1.0
    )[0]["samples"]


def inputs_of_the_unet(model, run):
    """What the UNet is called with while `run` runs: pictures beside the noised one, and "y"."""
    seen = []

    def note(module, args, kwargs):
        y = kwargs.get("y")
        seen.append((args[0][:1, 4:].clone(), None if y is None else y[:1].clone()))

    hook = model.model.diffusion_model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        run()
    finally:
        hook.remove()
    return seen


def test_training_shows_the_unet_what_a_plain_prompt_shows_it(model, clip, ask):
    """Pooled text and sizes, a blank picture, zeros: as the host makes them of the class word."""
    prompt = encode(clip, training_prompt("person"))
    (sampling, *_) = inputs_of_the_unet(model, lambda: sample(model, prompt, prompt, cfg=1.0))
    for trained in inputs_of_the_unet(model, lambda: ask(steps=1)):
        for ours, hosts in zip(trained, sampling, strict=True):
            assert (ours is None and hosts is None) or torch.equal(ours, hosts)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (4096, 512), (0, 1024), (1536, 0), (0, 0)])
@pytest.mark.parametrize("name", ["SDXL"], scope="module")
def test_a_size_reaches_sdxl_as_the_host_s_own_node_gives_it(
    name, model, clip, neutral, width, height
):
    text, negative = "a photo of person", encode(clip, "")
    w, h = width or 64, height or 64  # the latent's
    node = comfy_extras.nodes_clip_sdxl.CLIPTextEncodeSDXL
    (hosts,) = node.execute(clip, w, h, 0, 0, w, h, text, text).args
    ours = apply_identity(
        model, clip, neutral, text.replace("person", "V*"), width=width, height=height
    )
    pictures, seen = [], []
    for patched, positive in ((model, hosts), ours):
        run = lambda m=patched, p=positive: pictures.append(sample(m, p, negative, cfg=1.0))  # noqa: E731
        seen.append([y for _, y in inputs_of_the_unet(model, run)])
    assert len(seen[0]) == len(seen[1]) and all(map(torch.equal, *seen))
    assert torch.equal(*pictures)
    (plain, *_) = inputs_of_the_unet(
        model, lambda: sample(model, encode(clip, text), negative, cfg=1.0)
    )
    assert torch.equal(plain[1], seen[1][0]) == ((w, h) == (64, 64))


def test_from_steps_to_a_file_to_a_picture(model, clip, family, ask, tmp_path):
    identity, losses, samples, _ = ask(steps=8, learning_rate=3e-3, preview_every=8)
    assert samples.shape == (1, 64, 64, 3) and samples.std() > 0
    assert identity.widths == family.widths
    start = HostTextEncoder(clip, "person").class_tokens
    for encoder, pairs in identity.pairs.items():  # all of them have learned, in every stage
        assert (pairs - start[encoder]).flatten(1).norm(dim=1).min() > 0
    assert torch.tensor(losses["loss"]).isfinite().all()
    save_identity(identity, tmp_path / "a.safetensors")
    loaded = load_identity(tmp_path / "a.safetensors")
    negative = encode(clip, "")
    plain = sample(model, encode(clip, "a photo of person"), negative)
    learned, read = (
        sample(*apply_identity(model, clip, i, "a photo of V*"), negative)
        for i in (identity, loaded)
    )
    assert torch.equal(learned, read) and not torch.equal(learned, plain)


def beside(name, positive, negative, vae):
    """Gives the prompts of a kin its picture, through the host's own node; and the latent."""
    generator = torch.Generator().manual_seed(4)
    picture = torch.rand(1, 64, 64, 3, generator=generator)
    if name.endswith("inpainting"):
        mask = torch.zeros(1, 64, 64)
        mask[:, 16:48, 8:40] = 1.0
        return nodes.InpaintModelConditioning().encode(positive, negative, picture, vae, mask)
    if name.endswith("pix2pix"):
        node = comfy_extras.nodes_ip2p.InstructPixToPixConditioning
        return node.execute(positive, negative, picture, vae).args
    seen = types.SimpleNamespace(image_embeds=torch.randn(1, 64, generator=generator))
    return nodes.unCLIPConditioning().apply_adm(positive, seen, 1.0, 0.1)[0], negative, None


@pytest.mark.parametrize("name", seeded.KIN, scope="module")
def test_a_picture_beside_the_prompt_stays_what_it_was(
    name, model, clip, vae, neutral, learned, ask
):
    def picture(model, positive):
        positive, negative, latent = beside(name, positive, encode(clip, "blurry"), vae)
        return sample(model, positive, negative, latent)

    plain = picture(model, encode(clip, "a photo of person"))
    assert torch.equal(picture(*apply_identity(model, clip, neutral, "a photo of V*")), plain)
    assert not torch.equal(picture(*apply_identity(model, clip, learned, "a photo of V*")), plain)
    without = sample(model, encode(clip, "a photo of person"), encode(clip, "blurry"))
    assert not torch.equal(plain, without)  # the picture does say something


def test_sizes():
    sides = {name: own_side(family.model()) for name, family in seeded.FAMILIES.items()}
    assert sides == {"SD 1.x": 512, "SD 2.x": 512, "SD 2.x v": 768, "SDXL": 1024}
    sides = {name: own_side(seeded.tiny_kin(name)) for name in seeded.KIN}
    assert sides == {
        "SD 1.x inpainting": 512, "SD 2.x inpainting": 512, "SDXL inpainting": 1024,
        "SD 2.x unCLIP": 768, "SD 1.x pix2pix": 512, "SDXL pix2pix": 1024,
    }  # fmt: skip
    assert own_side(seeded.tiny_model(v_prediction=True)) == 512


@pytest.mark.parametrize(
    ("name", "timestep"), [("SD 1.x", 600), ("SD 2.x v", 707), ("SDXL", 775)], scope="module"
)
def test_a_start_is_selected_at_the_same_noise_of_the_picture(name, timestep, model, clip, vae):
    session = Session(model, clip, vae)
    config = session.for_latents(PRESETS["default"], session.own_side)
    assert config.selection_from == timestep


def layers_of(blocks, side):
    """The cross-attention layers of a UNet: blocks are (name, number, depth, downsampling)."""
    return {
        (block, number, index): (side // down, side // down)
        for block, number, depth, down in blocks
        for index in range(depth)
    }


SDXL_BLOCKS = [
    *(("input", number, 2, 2) for number in (4, 5)),
    *(("input", number, 10, 4) for number in (7, 8)),
    ("middle", 0, 10, 4),
    *(("output", number, 10, 4) for number in (0, 1, 2)),
    *(("output", number, 2, 2) for number in (3, 4, 5)),
]
SD1_BLOCKS = [
    *(("input", number, 1, 2 ** (number // 3)) for number in (1, 2, 4, 5, 7, 8)),
    ("middle", 0, 1, 8),
    *(("output", number, 1, 2 ** (3 - number // 3)) for number in range(3, 12)),
]


def test_the_layers_of_sdxl_that_are_compared():
    """Six of 70 at 1024 pixels: the last of each stack of ten on 32 x 32."""
    layers = layers_of(SDXL_BLOCKS, 128)
    assert len(layers) == 70
    chosen = compared_layers(layers)
    assert list(chosen) == [
        ("input", 7, 9), ("input", 8, 9), ("middle", 0, 9),
        ("output", 0, 9), ("output", 1, 9), ("output", 2, 9),
    ]  # fmt: skip
    assert set(chosen.values()) == {(32, 32)}
    assert len(compared_layers(layers_of(SDXL_BLOCKS, 64))) == 11  # at 512 the finer level, too
    assert set(compared_layers(layers_of(SDXL_BLOCKS, 256)).values()) == {(64, 64)}  # never none


def test_every_layer_of_sd_1_on_a_coarse_grid_is_compared():
    layers = layers_of(SD1_BLOCKS, 64)
    assert len(layers) == 16
    coarse = {layer: sides for layer, sides in layers.items() if sides <= (32, 32)}
    assert compared_layers(layers) == coarse and len(coarse) == 11


@pytest.mark.parametrize("skip", [None, -2])
@pytest.mark.parametrize("name", seeded.FAMILIES, scope="module")
def test_training_and_use_read_the_same_pooled_vector(name, clip, learned, skip):
    if skip is not None:
        clip = nodes.CLIPSetLastLayer().set_last_layer(clip, skip)[0]
    ((_, extras),) = encode(clip, training_prompt("person"))
    model = seeded.FAMILIES[name].model()
    (((_, used),),) = apply_identity(model, clip, learned, training_prompt("V*", "person"))[1:]
    trained = HostTextEncoder(clip, "person").pooled
    assert torch.equal(used["pooled_output"], extras["pooled_output"])
    assert torch.equal(trained, extras["pooled_output"])


@pytest.mark.parametrize("name", seeded.FAMILIES, scope="module")
def test_the_file_is_a_plain_embedding_for_every_text_encoder(name, family, learned, tmp_path):
    save_identity(learned, tmp_path / "anna.safetensors")
    clip = family.clip(embedding_directory=str(tmp_path))
    tokens = clip.tokenize("a photo of embedding:anna")
    assert {f"clip_{encoder}" for encoder in tokens} == set(learned.pairs)
    for encoder, (chunk,) in tokens.items():
        (token,) = [token for token, _ in chunk if torch.is_tensor(token)]
        assert torch.equal(token, learned.pairs[f"clip_{encoder}"][:, 1].mean(dim=0)[0])
    ((context, _),) = encode(clip, "a photo of embedding:anna")
    assert context.isfinite().all() and context.shape[-1] == sum(family.widths.values())


FULL = {
    "SD 1.x": ({"clip_l": 768}, "stable-diffusion-v1"),
    "SD 2.x": ({"clip_h": 1024}, "stable-diffusion-v2-512"),
    "SD 2.x v": ({"clip_h": 1024}, "stable-diffusion-v2-768-v"),
    "SDXL": ({"clip_l": 768, "clip_g": 1280}, "stable-diffusion-xl-v1-base"),
}


@pytest.mark.parametrize("name", FULL, scope="module")
def test_the_file_names_its_architecture(name, ask, tmp_path, monkeypatch):
    """A trained identity, with its pairs as wide as the real family's."""
    widths, architecture = FULL[name]
    identity = ask(steps=1)[0]
    pairs = {encoder: torch.zeros(5, 2, 1, width) for encoder, width in widths.items()}
    save_identity(dataclasses.replace(identity, pairs=pairs), tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.architecture"] == f"{architecture}/sefi-identity"
    assert metadata["modelspec.prediction_type"] == ("v" if name == "SD 2.x v" else "epsilon")
    assert metadata["modelspec.resolution"] == "64x64"


@pytest.mark.parametrize("name", seeded.FAMILIES, scope="module")
def test_masks_alpha_and_several_pictures(name, ask, monkeypatch):
    """A mask moves the crop and the loss looks at nothing else, whoever gives it; and each picture
    of several counts.
    """
    picture = torch.zeros(1, 64, 96, 3)
    picture[:, :, :48] = 1.0  # white on the left, black on the right
    right = torch.zeros(1, 64, 96)
    right[:, :, 48:] = 1.0
    pools, masks_of_losses = [], []
    views, loss = pictures.augmented_views, core_losses.denoising_loss
    monkeypatch.setattr(
        pictures,
        "augmented_views",
        lambda *a, **k: (pools.append(a[:2]), views(*a, **k))[1],
    )
    monkeypatch.setattr(
        core_losses, "denoising_loss", lambda p, m: (masks_of_losses.append(m), loss(p, m))[1]
    )
    ask = functools.partial(ask, preset="paper")  # which takes pictures as they are
    by_mask = ask(image=picture, mask=right, steps=3)[0]
    by_alpha = ask(image=torch.cat([picture, right[..., None]], dim=-1), steps=3)[0]
    both = ask(image=torch.cat([picture, 1.0 - picture]), steps=8)[0]
    one = ask(image=picture, steps=8)[0]
    for encoder, pairs in by_mask.pairs.items():
        assert torch.equal(pairs, by_alpha.pairs[encoder])
        assert not torch.equal(pairs, one.pairs[encoder])
        assert not torch.equal(both.pairs[encoder], one.pairs[encoder])
    (subject, mask), (pair, _), (single, whole) = pools  # by alpha it is the same training
    # The mask's middle is column 72 of 96: the crop is the right-most one, from column 32.
    assert torch.equal(subject[0, :, :, :16], torch.ones(3, 64, 16)) and not subject[..., 16:].any()
    assert not mask[..., :16].any() and mask[..., 16:].min() == 1.0 == whole.min()
    assert len(pair) == 2 and torch.equal(pair[1], 1.0 - pair[0]) and torch.equal(pair[:1], single)
    masked = masks_of_losses[:3]
    assert all(m.min() == 0.0 and m.max() > 0.0 for m in masked)
    assert masks_of_losses[3:] == [None] * 16


@pytest.mark.parametrize("name", seeded.FAMILIES, scope="module")
@pytest.mark.parametrize("word", ["dog", "golden retriever"])
def test_a_class_word_for_a_thing_is_where_its_identity_starts(name, model, clip, ask, word):
    """A step of no length leaves the word: on the model, that is the plain prompt's picture."""
    identity = ask(steps=1, learning_rate=0.0, class_word=word)[0]
    assert identity.class_word == word
    start = HostTextEncoder(clip, word).class_tokens
    for encoder, pairs in identity.pairs.items():
        torch.testing.assert_close(pairs, start[encoder].expand_as(pairs))
    applied = apply_identity(model, clip, identity, "a V* in the snow", strength=0.0)
    plain = sample(model, encode(clip, f"a {word} in the snow"), encode(clip, ""))
    assert torch.equal(sample(*applied, encode(clip, "")), plain)


def test_kin_are_told_apart_from_their_family_by_what_they_read():
    """So the tests above do look at them."""
    read = {name: seeded.tiny_kin(name).model for name in seeded.KIN}
    assert [type(base) for base in read.values()].count(comfy.model_base.SDXL) == 1
    assert {base.model_config.unet_config["in_channels"] for base in read.values()} == {4, 8, 9}
    for name, family in seeded.KIN.items():
        require_match(seeded.tiny_kin(name), seeded.FAMILIES[family].clip())


@pytest.mark.parametrize("name", seeded.FAMILIES, scope="module")
def test_what_is_computed_again_rather_than_kept_changes_no_bit(
    name, model, ask, output, monkeypatch
):
    def train():
        pairs = ask(steps=3, preset="paper")[0].pairs  # which asks nothing before its steps
        for file in (output / "finished").iterdir():
            file.unlink()
        return pairs

    calls = []
    attention = next(m for m in model.model.modules() if isinstance(m, CrossAttention))
    hook = attention.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    pairs = train()
    hook.remove()
    assert not any("forward" in vars(module) for module in model.model.modules())
    # Two looks at the layers and one half of the gradients' own test without gradient; its other
    # half and each step with one, which on SDXL is computed twice.
    assert calls == [False] * 3 + [True] * (8 if name == "SDXL" else 4)
    monkeypatch.setattr(borrowing, "recomputing", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(text_layers, "recomputed", lambda forward, *inputs: forward(*inputs))
    kept = train()
    assert all(torch.equal(pairs[encoder], kept[encoder]) for encoder in pairs)
