"""Training prompts and captions of the artist's own, through the training's own door."""

import json

import comfy.model_management as mm
import pytest
import seeded
import torch
from sefi_pack.nodes.host import folders
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.text.encoder import HostTextEncoder
from sefi_pack.nodes.host.text.opened import opened_prompts
from sefi_pack.nodes.host.text.slots import word_ids
from sefi_pack.nodes.host.train.backbone import HostBackbone
from sefi_pack.sefi_core.errors import PromptError, SettingsError
from test_families import encode, inputs_of_the_unet
from test_training import interrupt_at, pairs_of, was_finished

FACE, TWO = "a photo of the face of V*", "a photo of V*\nV* at night, best quality"


def told(answer):
    return json.loads(answer[0].metadata["sefi.training"])


@pytest.fixture
def drawn(monkeypatch):
    """The samples of every step."""
    seen, predict = [], HostBackbone.predict

    def note(self, samples, *rest, **options):
        if torch.is_grad_enabled():
            seen.append(samples)
        return predict(self, samples, *rest, **options)

    monkeypatch.setattr(HostBackbone, "predict", note)
    return seen


def test_an_empty_prompt_on_a_person_is_the_face_s_and_an_old_file_s(ask, output):
    plain = ask()
    assert told(plain)["prompt"] == "a photo of the face of {}"
    assert not {"captions", "vectors"} & set(told(plain))
    assert was_finished(ask(training_prompts=FACE, caption=" \n", tokens=1))
    for file in (output / "finished").iterdir():
        file.unlink()
    assert torch.equal(pairs_of(ask(training_prompts=FACE)), pairs_of(plain))


def test_a_thing_is_no_face(ask):
    assert told(ask(class_word="dog", steps=1))["prompt"] == "a photo of {}"
    assert was_finished(ask(class_word="dog", steps=1, training_prompts="a photo of V*"))


def test_several_prompts_are_drawn_and_resumed_bit_for_bit(ask, output, drawn, monkeypatch):
    settings = {"training_prompts": TWO, "steps": 10, "batch_size": 2}
    whole = ask(**settings)
    assert told(whole)["prompt"] == ["a photo of {}", "{} at night, best quality"]
    steps = torch.cat([samples.prompts for samples in drawn[1:]])  # the first tests gradients
    assert len(steps) == 20 and 3 <= int(steps.sum()) <= 17
    for file in (output / "finished").iterdir():
        file.unlink()
    with monkeypatch.context() as patched:
        interrupt_at(patched, 6)
        with pytest.raises(mm.InterruptProcessingException):
            ask(**settings)
    (name,) = folders.checkpoint_names()[1:]
    for changed, said in (
        ({"training_prompts": TWO + "!"}, "training_prompts"), ({"caption": "a hat"}, "caption"),
        ({"tokens": 2}, "tokens"), ({"class_word": "dog"}, "class_word"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=f"was made with another {said};"):
            ask(**{**settings, **changed}, resume=name)
    resumed = ask(**settings, resume=name)
    assert torch.equal(pairs_of(whole), pairs_of(resumed)) and whole[1] == resumed[1]


def test_every_picture_is_shown_as_often_with_its_own_caption(ask, drawn):
    """Three pictures, black, grey and white, and a prompt of two lines."""
    pictures = torch.stack([torch.full((64, 64, 3), tone) for tone in (0.0, 0.5, 1.0)])
    trained = ask(
        image=pictures,
        caption="at night\n-\nin the snow",
        training_prompts=TWO,
        steps=8,
        batch_size=8,
    )
    assert told(trained)["captions"] == ["at night", "", "in the snow"]
    assert told(trained)["views"] == 6  # of four that were asked for
    prompts = torch.cat([samples.prompts for samples in drawn[1:]])
    tones = torch.cat([samples.latents.mean(dim=(1, 2, 3)) for samples in drawn[1:]])
    captions = prompts // 2
    means = [tones[captions == i].mean() for i in range(3)]
    for i in range(3):
        own = tones[captions == i]
        others = [mean for j, mean in enumerate(means) if j != i]
        assert len(own) >= 8
        assert all(((own - means[i]).abs() < abs(means[i] - mean) / 2).all() for mean in others)
    assert 15 <= int((prompts % 2).sum()) <= 45


@pytest.mark.parametrize("family", ["SD 1.x", "SDXL"])
@pytest.mark.parametrize("batch", [1, 4])
def test_at_the_class_word_the_maps_are_those_of_the_same_line(ask, family, batch):
    """A step of no length: whatever line, caption and number of tokens, A_t is A_r."""
    parts = seeded.FAMILIES[family]
    models = {"model": parts.model(), "clip": parts.clip(), "vae": parts.vae()}
    answer = ask(
        **models,
        training_prompts="V*\nV* near a big tree, V* again",
        caption="at night",
        tokens=3,
        batch_size=batch,
        learning_rate=0.0,
        steps=2,
        attention_loss="all tokens",
    )
    assert answer[0].tokens == told(answer)["vectors"] == 3
    assert max(answer[1]["attention"]) < 1e-3 < min(answer[1]["denoising"])
    apply_identity(models["model"], models["clip"], answer[0], "a photo of V*")


def test_several_tokens_learn_apart(ask):
    pairs = pairs_of(ask(tokens=2, steps=4, learning_rate=1e-2))
    assert (pairs[:, :, 0] - pairs[:, :, 1]).abs().max() > 1e-3
    assert not was_finished(ask(tokens=1, steps=4, learning_rate=1e-2))


def test_sdxl_reads_the_pooled_text_of_each_line(ask):
    parts = seeded.FAMILIES["SDXL"]
    model, clip = parts.model(), parts.clip()
    models = {"model": model, "clip": clip, "vae": parts.vae()}
    settings = {"training_prompts": TWO, "steps": 10, "preset": "paper", "attention_loss": "off"}
    seen = [y[0, :96] for _, y in inputs_of_the_unet(model, lambda: ask(**models, **settings))]
    texts = [line.replace("V*", "person") for line in TWO.splitlines()]
    hosts = [encode(clip, text)[0][1]["pooled_output"][0] for text in texts]
    found = [[i for i, pooled in enumerate(hosts) if torch.equal(y, pooled)] for y in seen]
    assert found.count([0]) > 2 and found.count([1]) > 2
    assert found.count([0]) + found.count([1]) == len(seen)


@pytest.mark.parametrize("family", ["SD 1.x", "SDXL"])
def test_what_is_too_long_is_said_before_anything_is_loaded(ask, family, monkeypatch):
    parts = seeded.FAMILIES[family]
    models = {"model": parts.model(), "clip": parts.clip(), "vae": parts.vae()}
    monkeypatch.setattr(mm, "load_models_gpu", None)
    words = "word " * 70
    for changed, count in (
        ({"training_prompts": f"{words * 2}V*"}, 141), ({"caption": words}, 78),
        ({"training_prompts": f"V* {words}", "tokens": 6}, 76),
        ({"training_prompts": f"V* {words}", "class_word": "a b c d e f"}, 76),
    ):  # fmt: skip
        with pytest.raises(PromptError, match=f"^training_prompts: .* takes {count} tokens"):
            ask(**models, **changed)


def test_a_tokenizer_that_brings_weights_or_embeddings_in_is_refused(clip, monkeypatch):
    """Whatever its syntax is: here the host's own weights, and a word that is a vector."""
    with pytest.raises(PromptError, match="has weights or embeddings, which a training"):
        opened_prompts(clip, ["a (V*:1.2)"], "person")
    assert opened_prompts(clip, ["a V*"], "person")[0].slots == {"clip_l": [2]}
    tokenize, (tree,) = clip.tokenize, word_ids(clip, "clip_l", "tree")

    def vectors(text):
        (chunk,) = tokenize(text)["l"]
        return {"l": [[(torch.zeros(64) if t == tree else t, w) for t, w in chunk]]}

    monkeypatch.setattr(clip, "tokenize", vectors)
    with pytest.raises(PromptError, match="has weights or embeddings, which a training"):
        opened_prompts(clip, ["a tree, V*"], "person")


def test_captions_that_are_not_the_pictures_are_counted(ask, picture):
    with pytest.raises(PromptError, match=r"^caption: it has 2 lines for 3 pictures"):
        ask(image=picture.expand(3, -1, -1, -1), caption="a\nb")


def test_a_picture_of_something_else_is_named_and_learned_from(ask):
    image = torch.rand(4, 64, 64, 3, generator=torch.Generator().manual_seed(0)) * 0.2
    image[2] = 1.0 - image[2]
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48, 16:48] = 1.0
    settings = {"mask": mask, "steps": 2, "preset": "paper"}
    *_, panel = ask(image=image, **settings)
    (shown,) = panel["sefi_training"]
    assert shown["state"] == "finished" and shown["note"].startswith("image: picture 3 has other")
    *_, panel = ask(image=image[:2], **settings)
    assert panel["sefi_training"][0]["note"] == ""


def test_the_encoder_gives_each_row_its_own_prompt(clip):
    texts = ["V*", "a photo of V* and V*", "V* at night"]
    encoder = HostTextEncoder(clip, "person", texts=texts, tokens=2)
    tokens = {"clip_l": torch.randn(5, 2, 64, generator=torch.Generator().manual_seed(0))}
    which = torch.tensor([2, 0, 1, 0, 2])
    mixed = encoder.encode(tokens, which)
    for i, prompt in enumerate(which.tolist()):
        alone = HostTextEncoder(clip, "person", texts=[texts[prompt]], tokens=2)
        torch.testing.assert_close(
            mixed[i], alone.encode({"clip_l": tokens["clip_l"][i : i + 1]})[0]
        )
    marked = [
        encoder.token_mask("placeholder only", i).nonzero().flatten().tolist() for i in range(3)
    ]
    assert marked == [[1, 2], [4, 5, 7, 8], [1, 2]]
    assert encoder.token_mask("prompt tokens", 1).nonzero().flatten().tolist() == list(range(1, 9))
