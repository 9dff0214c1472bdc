"""What another node does to a prompt's rows at each step stays done, to the last bit."""

import pytest
import seeded
import torch
from neighbours import noisy_prompt
from scene import Scene
from sefi_pack.nodes.host.apply.sampling import changed_alike

import nodes

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
LONG = "a photo of V*, " + ", ".join(["word of a long prompt"] * 20)


def scene_of(dtype, clip, vae, identity=None):
    return Scene("SD 1.x", seeded.tiny_model(dtype=dtype), clip, vae, identity)


def several_lengths(scene, positive):
    """Prompts of one, two and three chunks in one batch."""
    combine = nodes.ConditioningCombine().combine
    other = scene.plain(", ".join(["word of a long prompt"] * 40))
    return combine(positive, other)[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("text", ["a photo of V*", LONG], ids=["short", "long"])
@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "beside three chunks"])
def test_a_neutral_identity_under_noise_is_the_plain_graph(dtype, text, mixed, clip, vae, neutral):
    pictures = []
    for identity in (None, neutral):
        scene = scene_of(dtype, clip, vae, identity)
        model, positive = scene.prompt(text=text)
        positive = several_lengths(scene, positive) if mixed else positive
        pictures.append(scene.ksample(noisy_prompt(scene, model), positive))
    assert torch.equal(*pictures)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_learned_identity_is_moved_as_its_prompt_is(dtype, clip, vae, learned):
    """K and V of the identity's row differ from those without the noise by the same noise."""
    seen = []

    def note(n, context, value, options):
        seen.append((context.float(), value.float()))
        return n, context, value

    def first_contexts(change):
        seen.clear()
        scene = scene_of(dtype, clip, vae, learned)
        model, positive = scene.prompt()
        model = change(scene, model).clone()
        model.set_model_attn2_patch(note)
        torch.manual_seed(0)
        nodes.KSampler().sample(
            model, 3, 1, 4.0, "euler", "normal", positive, scene.plain(), scene.latent()
        )
        return seen[0]

    keys, values = first_contexts(lambda scene, model: model)
    moved_keys, moved_values = first_contexts(noisy_prompt)
    (own,) = [i for i in range(2) if not torch.equal(keys[i], values[i])]
    rounding = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype]
    moved = moved_keys[own] - keys[own]
    assert moved.abs().mean() > 0.1
    assert torch.allclose(moved, moved_values[own] - values[own], atol=rounding)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nobody_did_anything(dtype):
    torch.manual_seed(0)
    staged, plain = (torch.randn(1, 4, 8).to(dtype) for _ in range(2))
    rows = plain.repeat(1, 3, 1).expand(2, 5, -1, -1)
    assert torch.equal(changed_alike(staged, plain, rows), staged.repeat(1, 3, 1).expand_as(rows))
    moved = rows + torch.randn(2, 5, 12, 8).to(dtype)
    assert torch.equal(changed_alike(plain, plain, moved), moved)
