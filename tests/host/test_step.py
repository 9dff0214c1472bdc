"""A step's shortcuts change no result: blocks computed again, shared stages, shared batches."""

import pytest
import seeded
import torch
from asking import predicted, samples_of
from sefi_pack.nodes.host.checkpointing import recomputing
from sefi_pack.nodes.host.text.encoder import HostTextEncoder
from sefi_pack.nodes.host.train import borrowing
from sefi_pack.nodes.host.train.backbone import HostBackbone
from sefi_pack.nodes.host.unets import blocks_of
from sefi_pack.sefi_core.losses import loss_terms
from sefi_pack.sefi_core.predict import Source, drawn_tokens
from sefi_pack.sefi_core.samples import LatentPool
from sefi_pack.sefi_core.training.config import TrainingConfig
from sefi_pack.sefi_core.training.learner import Learner
from sefi_pack.sefi_core.training.loop import Subject, train, train_together
from torch import nn

EDGES = (1000, 800, 600, 400, 200, 0)


@pytest.fixture(scope="module", params=["SD 1.x", "SDXL"])
def scene(request):
    """A family's frozen model, an encoder, pairs off the class word, and one batch."""
    with torch.inference_mode(False), torch.enable_grad():
        family = seeded.FAMILIES[request.param]
        model, encoder = family.model(), HostTextEncoder(family.clip(), "person")
        model.model.requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        latents, noise = torch.randn(2, 7, 4, 8, 8, generator=generator)
        backbone = HostBackbone(
            model, encoder.reference(), latents[:1], torch.float32, encoder.pooled
        )
        pairs = {
            name: token + 0.3 * torch.randn(5, 2, 1, len(token), generator=generator)
            for name, token in encoder.class_tokens.items()
        }
        yield backbone, encoder, pairs, latents, noise


def gradients(scene, timesteps):
    """Returns the whole loss and its gradients in every pair."""
    backbone, encoder, pairs, latents, noise = scene
    pairs = {name: table.clone().requires_grad_() for name, table in pairs.items()}
    batch = len(timesteps)
    samples = samples_of(latents[:batch], noise[:batch], timesteps)
    prediction = predicted(backbone, encoder, pairs, EDGES, samples)
    total = loss_terms(prediction, torch.ones(77), 0.001).total
    total.backward()
    return total.detach(), {name: table.grad for name, table in pairs.items()}


def test_blocks_computed_again_give_the_same_gradients_bit_for_bit(scene):
    base = scene[0].model.model
    unet = base.diffusion_model
    blocks = blocks_of(unet)
    firsts = [
        next(m for m in block.modules() if isinstance(m, nn.GroupNorm | nn.LayerNorm))
        for block in blocks
    ]
    runs = []
    handles = [layer.register_forward_pre_hook(lambda *_: runs.append(1)) for layer in firsts]
    with torch.inference_mode(False), torch.enable_grad():
        plain, expected = gradients(scene, torch.tensor([500]))
        once = len(runs)
        with recomputing(base, True):
            total, found = gradients(scene, torch.tensor([500]))
    for handle in handles:
        handle.remove()
    assert torch.equal(total, plain)
    for name, gradient in expected.items():
        assert gradient.any() and torch.equal(found[name], gradient)
    assert once == len(blocks) and len(runs) > 2.5 * once  # they did run again
    assert not any("forward" in vars(block) for block in blocks)


def test_blocks_are_plain_again_after_an_error(scene):
    base = scene[0].model.model
    unet = base.diffusion_model
    with pytest.raises(RuntimeError, match="boom"), recomputing(base, True):
        assert all("forward" in vars(block) for block in blocks_of(unet))
        raise RuntimeError("boom")
    assert not any("forward" in vars(block) for block in blocks_of(unet))


def test_samples_of_one_stage_share_their_encodings(scene):
    """Seven samples of five stages: five pairs are encoded, and all is as one by one."""
    backbone, encoder, pairs, latents, noise = scene
    timesteps = torch.tensor([850, 100, 990, 500, 300, 700, 20])
    stages = torch.tensor([0, 4, 0, 2, 3, 1, 4])
    source, prompts = Source(encoder, pairs), torch.zeros_like(stages)
    every, few = (drawn_tokens(source, stages[:n], prompts[:n]) for n in (7, 3))
    assert torch.equal(every.index, stages) and few.index.tolist() == [0, 1, 2]
    for name, table in pairs.items():
        assert torch.equal(every.tokens[name], torch.cat([table[:, 0], table[:, 1]]))
        assert torch.equal(few.tokens[name], torch.cat([table[[0, 4, 0], 0], table[[0, 4, 0], 1]]))
    with torch.inference_mode(False), torch.enable_grad():
        total, together = gradients(scene, timesteps)
        alone = [
            gradients((backbone, encoder, pairs, latents[i:], noise[i:]), timesteps[i : i + 1])
            for i in range(7)
        ]
    torch.testing.assert_close(total, sum(one[0] for one in alone) / 7, rtol=1e-4, atol=1e-6)
    for name, gradient in together.items():
        mean = sum(one[1][name] for one in alone) / 7
        torch.testing.assert_close(gradient, mean, rtol=1e-3, atol=1e-5 * mean.abs().max().item())


def subject(encoder, seed, steps=4, prompt=0, **settings):
    """Returns what one identity is learned from and by, in a few views of noise."""
    generator = torch.Generator().manual_seed(seed)
    config = TrainingConfig(steps=steps, seed=seed, batch_size=2, views=4, **settings)
    latents = torch.randn(4, 4, 8, 8, generator=generator)
    pool = LatentPool(latents, torch.ones(4, 1, 8, 8))
    return Subject(encoder, pool, Learner(encoder.class_tokens, config), prompt)


SELECTING = {"candidates": 3, "elimination_every": 2}
CHOSEN = [
    ("person", 1, {}), ("dog", 2, {"attention_loss": "off"}),
    ("person", 3, {**SELECTING, "steps": 6}), ("dog", 4, {**SELECTING, "stages": 2}),
]  # fmt: skip


def test_identities_trained_together_are_those_trained_alone():
    """Two class words, lengths, numbers of stages; selections, and one without attention loss."""
    with torch.inference_mode(False), torch.enable_grad():
        model, clip = seeded.tiny_model(), seeded.tiny_clip()
        model.model.requires_grad_(False)
        encoders = {word: HostTextEncoder(clip, word) for word in ("person", "dog")}
        latent = torch.zeros(1, 4, 8, 8)
        expected = []
        for word, seed, settings in CHOSEN:
            alone = subject(encoders[word], seed, **settings)
            backbone = HostBackbone(model, alone.encoder.reference(), latent, torch.float32)
            list(train(backbone, alone.encoder, alone.pool, alone.learner))
            expected.append(alone.learner)
        prompts = {word: i for i, word in enumerate(encoders)}
        subjects = [
            subject(encoders[word], seed, prompt=prompts[word], **more)
            for word, seed, more in CHOSEN
        ]
        references = torch.cat([encoder.reference() for encoder in encoders.values()])
        backbone = HostBackbone(model, references, latent, torch.float32)
        reports = list(train_together(backbone, subjects))
        assert [sorted(one) for one in reports] == [[0, 1, 2, 3]] * 4 + [[2]] * 2
        assert [one[2].step for one in reports] == [1, 2, 3, 4, 5, 6]
        assert [one[2].candidates for one in reports] == [3, 3, 2, 2, 1, 1]
        start = encoders["person"].class_tokens["clip_l"]
        for one, alone in zip(subjects, expected, strict=True):
            pairs, pairs_alone = one.learner.pairs()["clip_l"], alone.pairs()["clip_l"]
            torch.testing.assert_close(one.learner.losses, alone.losses, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(pairs, pairs_alone, rtol=1e-3, atol=1e-5)
            assert (pairs_alone - start).abs().max() > 1e-3  # they did learn


def test_checkpointing_leaves_the_identity_as_it_is(ask, output):
    plain = ask(steps=3)
    next((output / "finished").iterdir()).unlink()
    thrifty = ask(steps=3, gradient_checkpointing=True)
    assert torch.equal(plain[0].pairs["clip_l"], thrifty[0].pairs["clip_l"])


def test_weights_of_another_dtype_are_cast_once_and_given_back(ask, output, monkeypatch):
    """A model in fp16 that computes in bf16, and a text encoder in fp16, which computes in fp32."""
    model, clip = seeded.tiny_model(dtype=torch.float16), seeded.tiny_clip()
    model.model.diffusion_model.half()
    clip.cond_stage_model.half()
    unet, text = model.model.diffusion_model, clip.cond_stage_model.clip_l.transformer.text_model
    weights = {id(weight) for part in (unet, text) for weight in part.parameters()}
    seen = []
    real = HostBackbone.run

    def note(self, *inputs):
        layers = (unet.out[2], text.encoder.layers[0].mlp.fc1, text.embeddings.token_embedding)
        seen.append([layer.weight.dtype for layer in layers])
        return real(self, *inputs)

    def train():
        identity = ask(model=model, clip=clip, steps=4, dtype="bf16", preview_every=2)[0]
        next((output / "finished").iterdir()).unlink()
        assert {id(w) for part in (unet, text) for w in part.parameters()} == weights
        return identity.pairs["clip_l"]

    monkeypatch.setattr(HostBackbone, "run", note)
    cast = train()
    assert all(dtypes == [torch.bfloat16, torch.float32, torch.float16] for dtypes in seen)
    monkeypatch.setattr(borrowing, "cast_weights", lambda *_: [])
    assert torch.equal(train(), cast)
