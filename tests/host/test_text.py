"""The differentiable encoder against the host's own, and slots in tokenised prompts."""

import pytest
import seeded
import torch
from sefi_pack.nodes.host.text.encoder import HostTextEncoder, text_encoders
from sefi_pack.nodes.host.text.encoding import encode_staged
from sefi_pack.nodes.host.text.slots import SlottedPrompt, word_ids
from sefi_pack.sefi_core.errors import MismatchError, PromptError
from sefi_pack.sefi_core.identity.identity import Identity
from sefi_pack.sefi_core.prompts import training_prompt

import nodes

CLIPS = {
    "CLIP-L": seeded.tiny_clip,
    "CLIP-H": seeded.tiny_clip_h,
    "CLIP-L and CLIP-G": seeded.tiny_clip_lg,
}


@pytest.mark.parametrize("skip", [None, -1, -2, -3])
@pytest.mark.parametrize("family", CLIPS)
def test_the_differentiable_encoder_equals_the_hosts_bit_for_bit(family, skip):
    clip = CLIPS[family]()
    if skip is not None:
        clip = nodes.CLIPSetLastLayer().set_last_layer(clip, skip)[0]
    host = clip.encode_from_tokens(clip.tokenize(training_prompt("person")))
    ours = HostTextEncoder(clip, "person")
    tokens = {name: token.view(1, 1, -1) for name, token in ours.class_tokens.items()}
    assert torch.equal(ours.encode(tokens), host)


def test_gradients_reach_every_encoders_token():
    clip = seeded.tiny_clip_lg()
    with torch.inference_mode(False), torch.enable_grad():
        clip = seeded.tiny_clip_lg()
        encoder = HostTextEncoder(clip, "person")
        tokens = {n: t.view(1, 1, -1).requires_grad_() for n, t in encoder.class_tokens.items()}
        encoder.encode(tokens).square().sum().backward()
        assert all(token.grad.any() for token in tokens.values())


def test_all_variants_take_one_text_encoder_call(clip, learned, monkeypatch):
    calls = []
    (encoder,) = text_encoders(clip).values()
    monkeypatch.setattr(
        encoder, "encode", lambda t, e=encoder.encode: (calls.append(len(t)), e(t))[1]
    )
    encode_staged(clip, learned, "a photo of V*", (1.0, 1.0), (0, 1000))
    assert calls == [1, 10]  # the reference prompt; five stages of keys and values


@pytest.mark.parametrize(
    "text", ["V*, smiling", "(V*:1.2)", "V*'s hat", "V* and V*", "a V*.", "[V*]"]
)
def test_a_glued_placeholder_is_found(clip, text):
    prompt = SlottedPrompt.read(clip, text, {"V*": "person"})
    assert len(prompt.slots["clip_l"]) == text.count("V*")
    assert [len(c) for c in prompt.tokens["clip_l"]] == [len(c) for c in prompt.reference["l"]]
    for chunk, position in prompt.slots["clip_l"]:
        assert prompt.reference["l"][chunk][position][0] == word_ids(clip, "clip_l", "person")[0]


@pytest.mark.parametrize("text", ["a photo of a man", "", "xV*", "V*2", "v*"])
def test_a_missing_placeholder_is_said_with_the_text(clip, text):
    with pytest.raises(PromptError, match=r'the placeholder "V\*" does not stand in'):
        SlottedPrompt.read(clip, text, {"V*": "person"})


@pytest.mark.parametrize("word", ["", "(person:1.2)", "embedding:evil", "a\nb", "x" * 99, "../x"])
def test_a_class_word_that_is_no_noun_is_refused(clip, word):
    with pytest.raises(PromptError, match=r"class_word: .* is not a plain noun"):
        SlottedPrompt.read(clip, "V*", {"V*": word})


def test_slots_stay_apart_from_words_that_look_like_the_mark(clip):
    prompt = SlottedPrompt.read(clip, "sks V* sks", {"V*": "person"})
    assert len(prompt.slots["clip_l"]) == 1


def test_a_class_word_of_several_tokens_starts_at_their_mean(clip):
    encoder = HostTextEncoder(clip, "golden retriever")
    (model,) = text_encoders(clip).values()
    ids = torch.tensor(word_ids(clip, "clip_l", "golden retriever"))
    assert len(ids) == 2
    mean = model.transformer.get_input_embeddings()(ids, out_dtype=torch.float32).mean(dim=0)
    assert torch.equal(encoder.class_tokens["clip_l"], mean)


def test_token_masks_of_the_attention_loss(clip):
    encoder = HostTextEncoder(clip, "person")  # start, a photo of the face of, V*, end, padding
    masks = {s: encoder.token_mask(s).nonzero().flatten().tolist() for s in (
        "all tokens", "prompt tokens", "placeholder only", "off"
    )}  # fmt: skip
    assert masks["all tokens"] == list(range(77))
    assert masks["prompt tokens"] == list(range(1, 8))
    assert masks["placeholder only"] == [7]
    assert masks["off"] == []


def test_several_tokens_per_placeholder_push_padding_out(clip):
    three = Identity({"clip_l": torch.randn(5, 2, 3, 64)})
    (entry,) = encode_staged(clip, three, "a photo of V*", (1.0, 1.0), (0, 1000))
    assert entry[1]["sefi"].keys.shape == (5, 77, 64)
    with pytest.raises(PromptError, match="identity of 3 tokens does not fit"):
        encode_staged(clip, three, "V* " + "word " * 73, (1.0, 1.0), (0, 1000))


def test_the_wrong_family_is_one_sentence_with_both():
    sdxl = Identity({"clip_l": torch.zeros(5, 2, 1, 768), "clip_g": torch.zeros(5, 2, 1, 1280)})
    with pytest.raises(
        MismatchError, match=r"trained for SDXL .*, the CLIP is a model with clip_l 64"
    ):
        encode_staged(seeded.tiny_clip(), sdxl, "V*", (1.0, 1.0), (0, 1000))
