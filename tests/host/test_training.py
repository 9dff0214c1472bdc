"""Train SeFi ID through its own door, on the host's own classes, in inference mode."""

import copy
import gc
import hashlib
import json
from dataclasses import replace

import comfy.model_management as mm
import comfy.sd
import psutil
import pytest
import seeded
import torch
from asking import predicted, samples_of, stopped_at
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sefi_pack.nodes.host import folders
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.noise_levels import near_the_end
from sefi_pack.nodes.host.text.encoder import HostTextEncoder
from sefi_pack.nodes.host.train import run, trainer
from sefi_pack.nodes.host.train.backbone import HostBackbone
from sefi_pack.nodes.host.train.borrowing import trainable
from sefi_pack.nodes.host.train.squares import square_pictures
from sefi_pack.sefi_core import losses as core_losses
from sefi_pack.sefi_core.errors import (
    IdentityFileError,
    PictureError,
    PromptError,
    SettingsError,
    TrainingError,
)
from sefi_pack.sefi_core.identity.file_format import load_identity
from sefi_pack.sefi_core.losses import attention_loss, denoising_loss, loss_terms
from sefi_pack.sefi_core.training.config import PRESETS

import nodes


def pairs_of(answer):
    return answer[0].pairs["clip_l"]


def state_of(*patchers):
    """Everything that must not change: bytes, flags, hooks and options of what the artist
    connected.
    """
    digest = hashlib.sha256()
    for patcher in patchers:
        for name, tensor in sorted({**patcher.model.state_dict(keep_vars=True)}.items()):
            digest.update(f"{name}{tensor.dtype}{tensor.requires_grad}{id(tensor)}".encode())
            digest.update(tensor.detach().reshape(-1).view(torch.uint8).numpy())
        for module in patcher.model.modules():
            hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
            own = [len(h) for h in hooks], module.training, "forward" in vars(module)
            digest.update(str(own).encode())
        options = (patcher.model_options, patcher.patches, patcher.object_patches, patcher.wrappers)
        digest.update(repr(options).encode())
    return digest.hexdigest()


def interrupt_at(monkeypatch, step, error=mm.InterruptProcessingException):
    """Presses the host's stop button, or raises, when `step` steps are done."""
    shown = run.Progress.step

    def press(self, report):
        if report.step == step:
            if error is mm.InterruptProcessingException:
                mm.interrupt_current_processing(True)
            else:
                raise error
        shown(self, report)

    monkeypatch.setattr(run.Progress, "step", press)


def test_two_trainings_are_identical_and_the_global_rng_is_untouched(ask, output, monkeypatch):
    before = torch.get_rng_state()
    first = ask(preview_every=3)
    assert torch.equal(torch.get_rng_state(), before)
    for file in (output / "finished").iterdir():
        file.unlink()
    second = ask(preview_every=3)
    assert torch.equal(pairs_of(first), pairs_of(second))
    assert torch.equal(first[2], second[2]) and first[1] == second[1]
    assert first[2].shape == (2, 64, 64, 3)


def test_a_finished_training_answers_at_once(ask, output, monkeypatch):
    first = ask(preview_every=3)
    monkeypatch.setattr(run, "train", None)  # no step may be taken, no model loaded
    monkeypatch.setattr(mm, "load_models_gpu", None)
    second = ask(preview_every=3)
    assert torch.equal(pairs_of(first), pairs_of(second)) and torch.equal(first[2], second[2])
    assert first[1] == second[1] and first[0].metadata == second[0].metadata


@pytest.mark.parametrize(
    "changed",
    [
        {"train_seed": 1}, {"steps": 7}, {"class_word": "dog"}, {"attention_loss": "off"},
        {"preset": "paper"}, {"attention_loss_weight": 0.1}, {"stages": 3}, {"batch_size": 2},
        {"learning_rate": 1e-3}, {"mask": torch.ones(1, 80, 72).tril()},
        {"image": torch.zeros(1, 80, 72, 3)},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_whatever_shapes_a_training_makes_it_another(ask, changed):
    assert not torch.equal(pairs_of(ask()), pairs_of(ask(**changed))) or "stages" in changed


def was_finished(answer):
    return answer[3]["sefi_training"][0]["note"].startswith("Finished before")


def test_what_does_not_act_does_not_count(ask):
    """Previews, where what is kept, how memory is saved; a weight of a loss that is off."""
    off = {"attention_loss": "off"}
    ask(**off)
    for changed in (
        {"preview_every": 2}, {"checkpoint_every": 2}, {"name": "other"},
        {"gradient_checkpointing": True}, {"attention_loss_weight": 0.5},
    ):  # fmt: skip
        assert was_finished(ask(**off, **changed)), changed


def reloaded_clip():
    """SD 1.x's text encoder from its file once more: nobody writes its text projection."""
    clip = seeded.tiny_clip()
    weight = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    weight.data = torch.randn(weight.shape)
    return clip


def test_a_checkpoint_that_was_loaded_again_is_the_same(ask, monkeypatch):
    with monkeypatch.context() as patched:
        interrupt_at(patched, 3)
        with pytest.raises(mm.InterruptProcessingException):
            ask(clip=reloaded_clip())
    models = {"model": seeded.tiny_model(), "clip": reloaded_clip(), "vae": seeded.seeded_vae()}
    resumed = ask(**models, resume=folders.checkpoint_names()[1])
    mm.unload_all_models()
    again = ask(**models | {"clip": reloaded_clip()})
    assert was_finished(again) and torch.equal(pairs_of(again), pairs_of(resumed))
    hashes = [answer[0].metadata["sefi.encoder_hash"] for answer in (resumed, again)]
    assert hashes[0] == hashes[1]


class Sealed:
    """A wrapper of a layer that nobody can look into."""

    __slots__ = ("factor", "own")

    def __init__(self, own, factor):
        self.own, self.factor = own, factor

    def __call__(self, x):
        return self.own(x) * self.factor


def sealed(factor):
    model = seeded.tiny_model()
    layer = model.model.diffusion_model.middle_block[1].proj_out
    layer.forward = Sealed(layer.forward, factor)
    return model


def test_what_cannot_be_read_is_never_finished_before_and_resumes_by_what_it_does(
    ask, output, monkeypatch
):
    whole = ask(model=sealed(2.0))
    assert not was_finished(ask(model=sealed(2.0))) and not list(output.rglob("finished/*"))
    with monkeypatch.context() as patched:
        interrupt_at(patched, 3)
        with pytest.raises(mm.InterruptProcessingException):
            ask(model=sealed(2.0))
    (name,) = folders.checkpoint_names()[1:]
    with pytest.raises(SettingsError, match="was made with another model;"):
        ask(model=sealed(0.5), resume=name)
    resumed = ask(model=sealed(2.0), resume=name)
    assert torch.equal(pairs_of(whole), pairs_of(resumed))


def test_another_checkpoint_trains_anew(ask):
    first = ask()
    assert not torch.equal(pairs_of(first), pairs_of(ask(model=seeded.tiny_model(seed=9))))
    assert not torch.equal(pairs_of(first), pairs_of(ask(clip=seeded.tiny_clip(seed=9))))


def test_ten_and_ten_steps_are_twenty(ask, output, monkeypatch):
    settings = {"steps": 20, "preview_every": 8}
    whole = ask(**settings)
    for file in (output / "finished").iterdir():
        file.unlink()
    with monkeypatch.context() as patched:
        interrupt_at(patched, 10)
        with pytest.raises(mm.InterruptProcessingException):
            ask(**settings)
    (name,) = folders.checkpoint_names()[1:]
    resumed = ask(**settings, resume=name)
    assert torch.equal(pairs_of(whole), pairs_of(resumed)) and whole[1] == resumed[1]
    assert torch.equal(whole[2], resumed[2]) and len(resumed[2]) == 2
    assert folders.checkpoint_names() == ["[none]"]  # a finished training needs none


def test_a_training_resumed_with_more_steps_keeps_the_selection_it_was_begun_with(ask, monkeypatch):
    with monkeypatch.context() as patched:
        interrupt_at(patched, 8)
        with pytest.raises(mm.InterruptProcessingException):
            ask(steps=20)  # whose race takes 2 x 4 steps
    (name,) = folders.checkpoint_names()[1:]
    resumed = ask(steps=60, resume=name)
    trained = json.loads(resumed[0].metadata["sefi.training"])
    assert trained["race_every"] == 4 and trained["steps"] == 60
    assert json.loads(ask(steps=60)[0].metadata["sefi.training"])["race_every"] == 14


@pytest.mark.parametrize("step", [1, 2, 8])
def test_stopped_while_candidates_are_compared_a_training_can_be_resumed(ask, output, step):
    """The host's stop button reaches us inside the model, so also between two steps."""
    whole = ask(steps=20)
    for file in (output / "finished").iterdir():
        file.unlink()
    with stopped_at(step), pytest.raises(mm.InterruptProcessingException):
        ask(steps=20)
    (name,) = folders.checkpoint_names()[1:]
    resumed = ask(steps=20, resume=name)
    assert torch.equal(pairs_of(whole), pairs_of(resumed)) and whole[1] == resumed[1]


@pytest.mark.parametrize(("step", "alike"), [(3, True), (12, False)])
def test_kept_inside_the_selection_the_node_says_that_all_stages_are_alike(
    ask, monkeypatch, step, alike
):
    monkeypatch.setattr(
        run.Progress, "keep_asked", property(lambda self: self.training.done >= step)
    )
    monkeypatch.setattr("sefi_pack.nodes.host.page.progress.REFRESH_SECONDS", 0.0)
    identity, *_, panel = ask(steps=20)
    (shown,) = panel["sefi_training"]
    assert shown["state"] == "kept" and shown["done"] == step
    assert ("all stages of this identity are alike" in shown["note"]) is alike
    pairs = identity.pairs["clip_l"]
    assert all(pair.equal(pairs[0]) for pair in pairs) is alike


@pytest.mark.parametrize("moment", ["forward", "backward"])
def test_a_step_cut_short_is_drawn_again(ask, output, monkeypatch, moment):
    """The host's operations look at the stop button too, in the middle of a step."""
    whole = ask()
    next((output / "finished").iterdir()).unlink()
    with monkeypatch.context() as patched:
        calls = []
        # One model call with gradients tests them before the first step.
        third_step = 4 if moment == "forward" else 3
        place = (HostBackbone, "run") if moment == "forward" else (torch.Tensor, "backward")
        real = getattr(*place)

        def cut(*args, **kwargs):
            if torch.is_grad_enabled():
                calls.append(1)
                if len(calls) == third_step:
                    raise mm.InterruptProcessingException
            return real(*args, **kwargs)

        patched.setattr(*place, cut)
        with pytest.raises(mm.InterruptProcessingException):
            ask()
    resumed = ask(resume=folders.checkpoint_names()[1])
    assert torch.equal(pairs_of(whole), pairs_of(resumed))


def test_an_interrupt_keeps_a_usable_identity(ask, output, monkeypatch, model, clip):
    interrupt_at(monkeypatch, 3)
    with pytest.raises(mm.InterruptProcessingException):
        ask()
    (so_far,) = output.glob("*.identity_so_far.safetensors")
    identity = load_identity(so_far)
    apply_identity(model, clip, identity, "a photo of V*")
    assert '"steps": 3' in identity.metadata["sefi.training"]
    assert not list((output).glob("finished/*"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (mm.InterruptProcessingException, mm.InterruptProcessingException),
        (RuntimeError("boom"), RuntimeError),
        (torch.OutOfMemoryError("full"), TrainingError),
    ],
)
def test_everything_is_given_back_as_it_was(ask, model, clip, vae, monkeypatch, error, told):
    patchers = (model, clip.patcher, vae.patcher)
    before = state_of(*patchers)
    ask(preview_every=3, gradient_checkpointing=True)
    assert state_of(*patchers) == before
    interrupt_at(monkeypatch, 3, error)
    with pytest.raises(told):
        ask(train_seed=5, gradient_checkpointing=True)
    assert state_of(*patchers) == before
    assert not any(p.model.diffusion_model.training for p in patchers[:1])


def test_a_compute_dtype_is_only_borrowed(ask, model, clip, vae):
    before = state_of(model, clip.patcher, vae.patcher)
    half = ask(dtype="bf16")
    assert state_of(model, clip.patcher, vae.patcher) == before
    assert model.model.manual_cast_dtype is None and not model.force_cast_weights
    first = half[1]["denoising"][0], ask()[1]["denoising"][0]
    assert first[0] != first[1] and first[0] == pytest.approx(first[1], rel=0.05)


def test_flags_of_newer_hosts_are_set_and_reset(ask, monkeypatch):
    monkeypatch.setattr(mm, "in_training", False, raising=False)
    seen = []
    run = HostBackbone.run
    monkeypatch.setattr(HostBackbone, "run", lambda *a: (seen.append(mm.in_training), run(*a))[1])
    ask()
    assert set(seen) == {True} and mm.in_training is False


def test_sampling_after_training_is_bit_identical(ask, model, clip):
    def sample():
        positive, negative = (
            nodes.CLIPTextEncode().encode(clip, text)[0] for text in ("a person", "")
        )
        latent = nodes.EmptyLatentImage().generate(64, 64, 1)[0]
        return nodes.KSampler().sample(
            model, 1, 4, 5.0, "euler", "normal", positive, negative, latent, 1.0
        )[0]["samples"]

    before = sample()
    ask(preview_every=3, dtype="bf16")
    assert torch.equal(sample(), before)


def test_memory_does_not_grow(ask, output):
    def train_and_forget(seed):
        ask(train_seed=seed, steps=2)
        for file in (output / "finished").iterdir():
            file.unlink()
        gc.collect()
        return psutil.Process().memory_info().rss

    for seed in range(3):
        first = train_and_forget(seed)
    last = [train_and_forget(3 + seed) for seed in range(5)][-1]
    assert last - first < 25e6


def test_a_lora_on_the_model_is_trained_with(ask, model):
    """Its weights are in the hash and in the gradients; the model gets its own back."""
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    weight = model.model.get_parameter(key).clone()
    with_lora = model.clone()
    with_lora.add_patches({key: (torch.ones_like(weight),)}, 0.5)
    assert not torch.equal(pairs_of(ask()), pairs_of(ask(model=with_lora)))
    mm.load_models_gpu([model])
    assert torch.equal(model.model.get_parameter(key), weight)


def test_a_bypass_lora_on_the_model_is_trained_with(ask, model, clip):
    """Its matrices were made in inference mode, as a node's are, and stay what they are."""
    if not hasattr(comfy.sd, "load_bypass_lora_for_models"):
        pytest.skip("this host has no bypass LoRAs")
    base = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"
    rows, columns = model.model.get_parameter(f"{base}.weight").shape
    up, down = torch.ones(rows, 2), torch.full((2, columns), 0.02)
    tensors = {f"{base}.lora_up.weight": up, f"{base}.lora_down.weight": down}
    changed, _ = comfy.sd.load_bypass_lora_for_models(model, None, tensors, 1.0, 0.0)

    def picture():
        (positive,) = nodes.CLIPTextEncode().encode(clip, "a dog")
        latent = nodes.EmptyLatentImage().generate(64, 64, 1)[0]
        given = "euler", "normal", positive, positive, latent
        return nodes.KSampler().sample(changed, 1, 2, 5.0, *given)[0]["samples"]

    before, plain, first = picture(), ask(), ask(model=changed)
    assert not torch.equal(pairs_of(plain), pairs_of(first))
    assert "Finished before" in ask(model=changed)[3]["sefi_training"][0]["note"]
    assert torch.equal(picture(), before)


def test_the_training_lowers_the_loss_on_a_fixed_probe(model, clip, vae, picture, output, ask):
    """Same latents, noise and timesteps before and after: at least a tenth in 100 steps.

    This model's tokens are twenty times as long as CLIP's, and so are the steps.
    """
    identity = ask(steps=100, learning_rate=20 * PRESETS["default"].learning_rate)[0]
    with trainable(model, clip.patcher, torch.float32), torch.no_grad():
        encoder = HostTextEncoder(clip, "person")
        generator = torch.Generator().manual_seed(1)
        subject, _ = square_pictures(picture, None, 64)
        latents = vae.encode(subject.movedim(1, -1)).clone().expand(50, -1, -1, -1)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.arange(0, 1000, 20)
        backbone = HostBackbone(model, encoder.reference(), latents[:1], torch.float32)

        def probe(pairs):
            samples = samples_of(latents, noise, timesteps)
            return denoising_loss(predicted(backbone, encoder, pairs, identity.edges, samples))

        start = {n: t.expand(5, 2, 1, -1) for n, t in encoder.class_tokens.items()}
        assert probe(identity.pairs) < 0.9 * probe(start)


class Tiny:
    """The whole loss in float64 on a tiny model, as a function of the tokens.

    The tokens of several text encoders stand side by side in one tensor.
    """

    def __init__(self, family):
        self.model, self.clip = family.model(), family.clip()
        self.model.model.double()
        self.model.model.diffusion_model.dtype = torch.float64
        self.clip.cond_stage_model.double()
        self.encoder = HostTextEncoder(self.clip, "person")
        generator = torch.Generator().manual_seed(3)
        self.start = torch.cat([t.double() for t in self.encoder.class_tokens.values()])
        shape = (5, 2, 1, len(self.start))
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.pairs = self.start + 0.3 * noise
        self.latents, self.noise = (
            torch.randn(1, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2)
        )
        reference = self.encoder.encode(self.by_encoder(self.start.expand(2, 1, -1)))[:1]
        self.backbone = HostBackbone(
            self.model, reference, self.latents, torch.float64, self.encoder.pooled
        )

    def by_encoder(self, tokens):
        classes = self.encoder.class_tokens
        parts = tokens.split([len(token) for token in classes.values()], dim=-1)
        return dict(zip(classes, parts, strict=True))

    def terms(self, pairs, timestep=500, scope="all tokens", references=None):
        token_mask = self.encoder.token_mask(scope).double()
        samples = samples_of(self.latents, self.noise, torch.tensor([timestep]))
        prediction = predicted(
            self.backbone, self.encoder, self.by_encoder(pairs), (1000, 800, 600, 400, 200, 0),
            samples, with_maps=bool(token_mask.any()),
        )  # fmt: skip
        if references is not None:
            maps = [(r, target) for r, (_, target) in zip(references, prediction.maps, strict=True)]
            prediction = replace(prediction, maps=maps)
        return prediction, loss_terms(prediction, token_mask, 0.001)


@pytest.fixture(scope="module", params=seeded.FAMILIES)
def tiny(request):
    with torch.inference_mode(False), torch.enable_grad():
        yield Tiny(seeded.FAMILIES[request.param])


@pytest.mark.parametrize("timestep", [50, 500, 950])
def test_gradients_match_central_differences(tiny, timestep):
    with torch.inference_mode(False), torch.enable_grad():
        pairs = tiny.pairs.clone().requires_grad_()
        prediction, terms = tiny.terms(pairs, timestep)
        terms.total.backward()
        direction = torch.randn(
            pairs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        along = (pairs.grad * direction).sum()
    with torch.no_grad():
        h = 1e-5
        references = [reference for reference, _ in prediction.maps]  # targets do not move
        ahead, behind = (
            tiny.terms(tiny.pairs + s * h * direction, timestep, references=references)[1].total
            for s in (1, -1)
        )
        expected = (ahead - behind) / (2 * h)
    assert abs(along - expected) < 1e-4 * abs(expected)
    stage = (999 - timestep) // 200
    assert all(part.any() for part in tiny.by_encoder(pairs.grad[stage]).values())
    assert pairs.grad.ne(0).any(dim=(1, 2, 3)).sum() == 1


def test_the_attention_loss_reaches_keys_directly_and_values_through_deeper_queries(tiny):
    with torch.inference_mode(False), torch.enable_grad():
        pairs = tiny.pairs.clone().requires_grad_()
        prediction, terms = tiny.terms(pairs)
        gradient = torch.autograd.grad(terms.attention, pairs, retain_graph=True)[0][2]
        assert gradient[0].any() and gradient[1].any()
        first = prediction.maps[0][1]  # of the first layer: no value has acted before it
        gradient = torch.autograd.grad(first.square().sum(), pairs)[0][2]
        assert gradient[0].any() and not gradient[1].any()
        assert not any(reference.requires_grad for reference, _ in prediction.maps)


def test_with_the_loss_off_no_map_is_made(tiny):
    with torch.no_grad():
        prediction, terms = tiny.terms(tiny.pairs, scope="off")
    assert prediction.maps == [] and terms.attention == 0 and terms.total == terms.denoising


def test_at_the_start_the_attention_loss_is_exactly_zero(tiny):
    with torch.no_grad():
        start = tiny.start.expand(5, 2, 1, -1)
        prediction, terms = tiny.terms(start)
        assert terms.attention == 0
        # One layer of every spatial transformer is compared; a map sums to 1 over the prompt.
        assert len(prediction.maps) == 7
        for reference, target in prediction.maps:
            assert torch.equal(reference, target)
            torch.testing.assert_close(target.sum(-1), torch.ones_like(target[..., 0]))


@pytest.mark.parametrize("v_prediction", [False, True])
def test_the_target_is_what_the_hosts_sampling_denoises_to_the_picture(v_prediction):
    model = seeded.tiny_model(v_prediction=v_prediction)
    latents, noise = torch.randn(2, 3, 4, 8, 8)
    reference = torch.randn(1, 77, 64)
    backbone = HostBackbone(model, reference, latents[:1], torch.float32)
    timesteps = torch.tensor([20, 500, 980])
    contexts = reference.expand(3, -1, -1)
    samples = samples_of(latents, noise, timesteps)
    prediction = backbone.predict(samples, contexts, contexts, with_maps=False)
    sigma = model.model.model_sampling.sigma(timesteps).view(3, 1, 1, 1)
    velocity = (noise - sigma * latents) / (sigma**2 + 1) ** 0.5
    expected = velocity if v_prediction else noise
    torch.testing.assert_close(prediction.target, expected, rtol=1e-3, atol=1e-3)
    measured = prediction.as_velocity()
    size = 1.0 if v_prediction else (sigma**2 + 1) ** 0.5
    error = (prediction.output - prediction.target) * size
    torch.testing.assert_close(measured.output - measured.target, error, rtol=1e-3, atol=1e-3)


def test_what_is_unseen_is_denoised_from_noise_alone_to_the_picture():
    model = seeded.tiny_model()
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    reference = torch.randn(1, 77, 64, generator=torch.Generator().manual_seed(1))
    backbone = HostBackbone(model, reference, latents[:1], torch.float32)
    timesteps, contexts = torch.tensor([990, 990]), reference.expand(2, -1, -1)

    def asked(pictures):
        samples = replace(samples_of(pictures, noise, timesteps), seen=torch.tensor([0.0, 1.0]))
        return backbone.predict(samples, contexts, contexts, with_maps=False)

    found, other = asked(latents), asked(latents + 1.0)
    assert found.output[0].equal(other.output[0]) and not found.output[1].equal(other.output[1])
    sampling = model.model.model_sampling
    sigma = sampling.sigma(timesteps)[:1]
    restored = sampling.calculate_denoised(sigma, found.target[:1], sigma * noise[:1])
    torch.testing.assert_close(restored, latents[:1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("divisor", [1, 4, 8])
def test_noise_is_near_its_end_at_the_same_timesteps_whatever_the_latents_size(divisor):
    sampling = copy.deepcopy(seeded.tiny_model().model.model_sampling)
    sampling.set_sigmas(sampling.sigmas / divisor)
    near = near_the_end(sampling, torch.arange(1000))
    assert near.nonzero().min() == 929 and near[929:].all()


def test_previews_and_the_picture_itself(ask, picture):
    assert ask(preview_every=0)[2].shape == (1, 64, 64, 3)
    assert ask(preview_every=2, train_seed=1)[2].shape == (3, 64, 64, 3)


def test_alpha_and_several_pictures(ask):
    alpha = torch.ones(3, 90, 70, 4)
    alpha[:, :, 40:, 3] = 0.0
    alpha[..., :3] = torch.rand(3, 90, 70, 3, generator=torch.Generator().manual_seed(1))
    assert pairs_of(ask(image=alpha)).isfinite().all()


BAD = [
    ({"image": torch.zeros(1, 8, 8, 3)}, PictureError, "image: it is 8 x 8 pixels"),
    ({"image": torch.full((1, 80, 80, 3), torch.nan)}, PictureError, "image: .*not finite"),
    ({"image": torch.zeros(1, 80, 80, 2)}, PictureError, "image: its pixels are of 2 numbers"),
    (
        {"mask": torch.ones(1, 40, 40)},
        PictureError,
        "mask: it is 40 x 40 pixels, the image 72 x 80",
    ),
    ({"mask": torch.zeros(1, 80, 72)}, PictureError, "mask: it is empty"),
    ({"mask": torch.ones(3, 80, 72)}, PictureError, "mask: there are 3 masks for 1 images"),
    ({"steps": 0}, SettingsError, "steps: it is 0; set it between 1 and 100000"),
    ({"learning_rate": float("nan")}, SettingsError, "learning_rate: it is nan"),
    ({"attention_loss": "some"}, SettingsError, 'attention_loss: "some" is unknown'),
    ({"preset": "x"}, SettingsError, 'preset: "x" is unknown'),
    ({"resolution": 100}, SettingsError, "resolution: it is 100"),
    ({"dtype": "int8"}, SettingsError, 'dtype: "int8" is unknown'),
    ({"name": "../x"}, SettingsError, 'name: "../x" is no plain name'),
    ({"resume": "../x.checkpoint.safetensors"}, SettingsError, "resume: there is no checkpoint"),
    ({"class_word": "(person:2)"}, PromptError, "class_word: .* is not a plain noun"),
]


@pytest.mark.parametrize(("changed", "error", "sentence"), BAD, ids=[b[2][:30] for b in BAD])
def test_bad_input_is_one_sentence_and_changes_nothing(
    ask, model, clip, vae, output, changed, error, sentence
):
    before = state_of(model, clip.patcher, vae.patcher)
    with pytest.raises(error, match=sentence) as caught:
        ask(**changed)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert state_of(model, clip.patcher, vae.patcher) == before
    assert not list(output.rglob("*.safetensors"))


def blow_up(monkeypatch, *bad):
    """Makes the denoising loss of these steps, from 1, infinite; from the last on if it is None."""
    calls = []
    real = core_losses.denoising_loss

    def infinite(prediction, mask):
        calls.append(1)
        worse = len(calls) in bad or (bad[-1] is None and len(calls) > bad[-2])
        return real(prediction, mask) * (torch.inf if worse else 1.0)

    monkeypatch.setattr(core_losses, "denoising_loss", infinite)


@pytest.mark.parametrize("checkpoint_every", [0, 6])
def test_numbers_that_blow_up_stop_the_training_and_the_last_good_state_is_kept(
    ask, output, monkeypatch, checkpoint_every
):
    with monkeypatch.context() as patched:
        interrupt_at(patched, 6)
        with pytest.raises(mm.InterruptProcessingException):
            ask(steps=20, preset="paper")
    (so_far,) = output.glob("*.identity_so_far.safetensors")
    good = load_identity(so_far).pairs["clip_l"]
    blow_up(monkeypatch, 7, None)
    with pytest.raises(TrainingError, match="learning_rate: the training blew up near step 20"):
        ask(
            steps=20, preset="paper", checkpoint_every=checkpoint_every
        )  # at step 10 there were 4 in a row
    assert not list(output.glob("finished/*"))
    assert torch.equal(load_identity(so_far).pairs["clip_l"], good)
    (checkpoint,) = output.glob("*.checkpoint.safetensors")
    state = load_file(checkpoint)
    assert state["guard.in_a_row"] == 14 and state["guard.share"] == 2.0**-14
    assert all(torch.isfinite(value.float()).all() for value in state.values())


def test_a_few_bad_steps_are_skipped_and_said(ask, monkeypatch, caplog):
    plain = ask(steps=8)
    blow_up(monkeypatch, 2, 5)
    with caplog.at_level("INFO", "sefi"):
        answer = ask(steps=8, train_seed=1)
    assert "2 of 8 steps gave numbers that are not finite" in caplog.text
    losses = answer[1]["loss"]
    assert losses[1] == losses[0] and losses[4] == losses[3]  # finite: they are drawn and sent
    assert not torch.equal(pairs_of(plain), pairs_of(answer))


def test_bad_steps_before_a_stop_are_remembered(ask, output, monkeypatch):
    """Fifty and fifty steps are a hundred, with the halved learning rate, too."""
    blow_up(monkeypatch, 2, 3, 8)
    whole = ask(steps=12)
    next((output / "finished").iterdir()).unlink()
    with monkeypatch.context() as patched:
        interrupt_at(patched, 6)
        blow_up(patched, 2, 3)
        with pytest.raises(mm.InterruptProcessingException):
            ask(steps=12)
    blow_up(monkeypatch, 2)  # the eighth of all
    resumed = ask(steps=12, resume=folders.checkpoint_names()[1])
    assert torch.equal(pairs_of(whole), pairs_of(resumed)) and whole[1] == resumed[1]


def test_a_checkpoint_of_another_training_is_refused_by_what_differs(ask, monkeypatch):
    with monkeypatch.context() as patched:
        interrupt_at(patched, 3)
        with pytest.raises(mm.InterruptProcessingException):
            ask()
    name = folders.checkpoint_names()[1]
    with pytest.raises(SettingsError, match="was made with another class_word, stages;"):
        ask(class_word="dog", stages=3, resume=name)
    with pytest.raises(SettingsError, match="has 3 steps behind it, more than the 2 asked for"):
        ask(steps=2, resume=name)
    monkeypatch.setattr(trainer, "ARITHMETIC", trainer.ARITHMETIC + 1)
    sentence = "was made with another version of this pack; set these back"
    with pytest.raises(SettingsError, match=sentence):
        ask(class_word="dog", stages=3, resume=name)


def test_a_host_that_breaks_gradients_is_told_before_the_first_step(
    ask, model, clip, vae, output, monkeypatch
):
    def detach(module, inputs, out):
        return out.detach()

    before = state_of(model, clip.patcher, vae.patcher)
    monkeypatch.setattr(run, "train", None)  # no step may be taken
    hook = model.model.diffusion_model.middle_block[1].register_forward_hook(detach)
    with pytest.raises(TrainingError, match="model: the gradients that this ComfyUI gives are wr"):
        ask()
    hook.remove()
    assert state_of(model, clip.patcher, vae.patcher) == before
    assert not list(output.rglob("*.safetensors"))


def test_a_vae_of_another_family_is_refused(ask, vae, monkeypatch):
    monkeypatch.setattr(vae, "encode", lambda pixels: torch.zeros(len(pixels), 16, 8, 8))
    with pytest.raises(PictureError, match="vae: it makes latents of 16 channels in 2 dimensions"):
        ask()


@pytest.mark.parametrize(
    "break_it",
    [
        lambda state: state.pop("losses"),
        lambda state: state.pop("samples"),
        lambda state: state.update(samples=torch.zeros(1, 2)),
        lambda state: state.update(rng=torch.zeros(3, dtype=torch.uint8)),
        lambda state: state.update(losses=torch.zeros(2, 9)),
        lambda state: state.update({"optimizer.x.step": torch.zeros(1)}),
        lambda state: state.pop("guard.share"),
        lambda state: state.clear(),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_one_sentence(ask, output, monkeypatch, break_it):
    with monkeypatch.context() as patched:
        interrupt_at(patched, 2)
        with pytest.raises(mm.InterruptProcessingException):
            ask()
    (path,) = output.glob("*.checkpoint.safetensors")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    break_it(state)
    save_file(state, path, metadata)
    with pytest.raises(IdentityFileError, match=r"resume: .* is no whole training checkpoint"):
        ask(resume=path.name)


def test_the_fallback_keys_give_the_mean_value_token(ask, tmp_path):
    """The same file in the host's plain CLIPTextEncode."""
    from sefi_pack.sefi_core.identity.file_format import save_identity

    identity = ask()[0]
    save_identity(identity, tmp_path / "anna.safetensors")
    clip = seeded.tiny_clip(embedding_directory=str(tmp_path))
    tokens = clip.tokenize("a photo of embedding:anna")["l"][0]
    (token,) = [token for token, _ in tokens if torch.is_tensor(token)]
    assert torch.equal(token, identity.pairs["clip_l"][:, 1].mean(dim=0)[0])


def test_an_identity_survives_its_file(ask, model, clip, tmp_path):
    from sefi_pack.sefi_core.identity.file_format import save_identity

    identity = ask()[0]
    save_identity(identity, tmp_path / "a.safetensors")
    loaded = load_identity(tmp_path / "a.safetensors")
    contexts = [apply_identity(model, clip, i, "V*")[1][0][1]["sefi"] for i in (identity, loaded)]
    assert torch.equal(contexts[0].keys, contexts[1].keys)
    assert torch.equal(contexts[0].values, contexts[1].values)


HEADS = {("clip_l",): {8}, ("clip_h",): {2, 4}, ("clip_l", "clip_g"): {4, 8}}


def test_attention_maps_are_as_the_paper_shapes_them(tiny):
    """Heads are kept, all 77 columns count: Re2 gives [8, 77, 32, 32] on SD 1.x."""
    from sefi_pack.sefi_core.maps import resize_maps

    with torch.no_grad():
        prediction, _ = tiny.terms(tiny.pairs)
        sizes = [m[1].shape[1] for m in prediction.maps]
        assert set(sizes) == HEADS[tuple(tiny.encoder.class_tokens)]
        resized = resize_maps(prediction.maps[0][1], *prediction.sides[0])
        assert resized.shape == (1, sizes[0], 77, 32, 32)
        assert attention_loss(prediction, torch.ones(77)) > 0
