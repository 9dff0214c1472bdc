"""A CLIP as sefi_core's TextEncoder, and the staged conditioning of a prompt in one text-encoder
call.

The host's text layers add their residuals in place, which autograd refuses; `encode_embeds` is the
same loop out of place over the same modules, equal to the host's own output bit for bit.
"""

__all__ = ["HostTextEncoder", "SlottedPrompt", "encode_staged", "text_encoders"]

from dataclasses import dataclass

import torch
from comfy.ldm.modules.attention import optimized_attention_for_device
from comfy.sd import CLIP
from comfy.sd1_clip import SDClipModel
from torch import Tensor

from ...sefi_core.contexts import put_tokens, stage_contexts
from ...sefi_core.errors import MismatchError, PromptError
from ...sefi_core.file_format import ENCODERS
from ...sefi_core.identity import Identity
from ...sefi_core.prompts import (
    DEFAULT_PLACEHOLDER,
    replace_placeholder,
    require_noun,
    training_prompt,
)

END_TOKEN = 49407  # of every CLIP vocabulary

# Words of one token each that hardly anyone writes: one of them marks the slot while the host
# tokenises.
SLOT_WORDS = ("sks", "hta", "olis", "xjw", "phol")


def text_encoders(clip: CLIP) -> dict[str, SDClipModel]:
    """Returns a CLIP's text models by the names of identity files.

    Raises:
        MismatchError: It has one that is no CLIP text model, or none at all.
    """
    found = {
        name: module
        for name, module in clip.cond_stage_model.named_children()
        if hasattr(module, "transformer")
    }
    others = sorted(set(found) - set(ENCODERS))
    if others or not found:
        kind = type(clip.cond_stage_model).__name__
        raise MismatchError(
            f"clip: this text encoder is {kind} ({', '.join(others) or 'no CLIP text model'}), "
            "which has no slot for a SeFi identity; use the CLIP of an SD 1.x, SD 2.x or SDXL checkpoint."
        )
    return {name: found[name] for name in ENCODERS if name in found}


def token_widths(clip: CLIP) -> dict[str, int]:
    """Returns the token widths E of a CLIP by encoder name."""
    return {
        name: encoder.transformer.get_input_embeddings().weight.shape[-1]
        for name, encoder in text_encoders(clip).items()
    }


@dataclass(frozen=True)
class SlottedPrompt:
    """A tokenised prompt: as it reads with the class word, and with its slots open.

    Attributes:
        reference: The host's tokens of the text with the class word.
        tokens: The host's tokens with a one-token mark in every slot.
        slots: By the tokenizer's name, (chunk, position) of each mark.
        word: By the tokenizer's name, the class word's token ids.
    """

    reference: dict
    tokens: dict
    slots: dict[str, list[tuple[int, int]]]
    word: dict[str, list[int]]

    @classmethod
    def read(cls, clip: CLIP, text: str, placeholder: str, class_word: str) -> "SlottedPrompt":
        """Tokenises `text` around its placeholder.

        Raises:
            PromptError: The placeholder is missing, or the class word is no noun.
        """
        require_noun(class_word)
        reference = clip.tokenize(replace_placeholder(text, placeholder, class_word))
        word = {name: word_ids(clip, name, class_word) for name in reference}
        for mark in SLOT_WORDS:
            ids = {name: word_ids(clip, name, mark) for name in reference}
            if any(
                len(found) != 1 or positions(reference[name], found[0])
                for name, found in ids.items()
            ):
                continue
            tokens = clip.tokenize(replace_placeholder(text, placeholder, mark))
            slots = {name: positions(chunks, ids[name][0]) for name, chunks in tokens.items()}
            if all(slots.values()):
                return cls(reference, tokens, slots, word)
        raise PromptError(
            f'text: "{placeholder}" was not found again in the tokens of "{text[:120]}"; '
            "put spaces around it and simplify what stands beside it."
        )

    def filled(self, variants: dict[str, list[Tensor]]) -> dict:
        """Returns host tokens of all variants, one prompt after the other as sections of one.

        Arguments:
            variants: By tokenizer name, one (T, E) tensor of tokens per variant.
        """
        return {
            name: [
                fill_chunk(chunk, [p for c, p in self.slots[name] if c == i], tokens)
                for tokens in variants[name]
                for i, chunk in enumerate(chunks)
            ]
            for name, chunks in self.tokens.items()
        }


def word_ids(clip: CLIP, name: str, word: str) -> list[int]:
    """Returns a word's token ids without start, end and padding."""
    tokenizer = getattr(clip.tokenizer, f"clip_{name}")
    ids = [token for token, *_ in tokenizer.tokenize_with_weights(word, disable_weights=True)[0]]
    return ids[1 : ids.index(END_TOKEN)]


def positions(chunks: list[list[tuple]], token_id: int) -> list[tuple[int, int]]:
    """Returns (chunk, position) of every `token_id`; entries may be embeddings in place of ids."""
    return [
        (i, p)
        for i, chunk in enumerate(chunks)
        for p, (token, *_) in enumerate(chunk)
        if isinstance(token, int) and token == token_id
    ]


def fill_chunk(chunk: list[tuple], slots: list[int], tokens: Tensor) -> list[tuple]:
    """Returns a chunk with tokens (T, E) in each slot; what they push past its end must be padding."""
    filled = list(chunk)
    for slot in reversed(slots):
        filled[slot : slot + 1] = [(token, *chunk[slot][1:]) for token in tokens]
    if any(entry is not chunk[-1] and entry != chunk[-1] for entry in filled[len(chunk) - 1 :]):
        raise PromptError(
            f"text: an identity of {len(tokens)} tokens does not fit into this part of the prompt; "
            f"take out {len(tokens) - 1} words or more."
        )
    return filled[: len(chunk)]


def class_tokens(clip: CLIP, word: dict[str, list[int]]) -> dict[str, Tensor]:
    """Returns the class word's embedding P by encoder name, (E,), float32; the mean if it has
    several tokens.
    """
    tokens = {}
    for name, encoder in text_encoders(clip).items():
        table = encoder.transformer.get_input_embeddings()
        ids = torch.tensor(word[name.removeprefix("clip_")], device=table.weight.device)
        tokens[name] = table(ids, out_dtype=torch.float32).mean(dim=0)
    return tokens


def encode_staged(
    clip: CLIP,
    identity: Identity,
    text: str,
    strengths: tuple[float, float],
    active: tuple[int, int],
    placeholder: str,
) -> list:
    """Returns CONDITIONING: the reference prompt's plain entry, carrying its StagedContext under
    "sefi".

    All 2 * S prompts go through the text encoder as sections of one, so clip skip, CLIP LoRA,
    prompt weights and long prompts act on them as on any text.

    Arguments:
        strengths: Of K and of V, 0 for the class word, 1 for the identity as learned.
        active: (low, high): the identity acts for timesteps low <= t < high.
    """
    identity.require_family(token_widths(clip))
    prompt = SlottedPrompt.read(clip, text, placeholder, identity.class_word)
    plain = clip.encode_from_tokens_scheduled(prompt.reference)
    learned = identity.variants(
        {name: token.cpu() for name, token in class_tokens(clip, prompt.word).items()}, strengths
    )
    variants = {
        name.removeprefix("clip_"): list(pairs.flatten(0, 1)) for name, pairs in learned.items()
    }
    encoded = clip.encode_from_tokens_scheduled(prompt.filled(variants))
    return [
        [
            reference,
            {
                **extras,
                "sefi": stage_contexts(
                    sections.unflatten(1, (identity.stages, 2, -1))[0],
                    reference,
                    identity.edges,
                    active,
                    tuple(strength != 0.0 for strength in strengths),
                ),
            },
        ]
        for (reference, extras), (sections, _) in zip(plain, encoded, strict=True)
    ]


class HostTextEncoder:
    """The training prompt with an open slot, encoded differentiably (a sefi_core TextEncoder).

    Arguments:
        clip: Its text models must be loaded, and free of inference tensors.
    """

    def __init__(self, clip: CLIP, class_word: str) -> None:
        self.prompt = SlottedPrompt.read(
            clip, training_prompt(DEFAULT_PLACEHOLDER), DEFAULT_PLACEHOLDER, class_word
        )
        self.class_tokens = class_tokens(clip, self.prompt.word)
        self.clip_layer = clip.layer_idx
        self.encoders = text_encoders(clip)
        self.prompt_embeds = {}
        for name, encoder in self.encoders.items():
            ids = [token for token, *_ in self.prompt.tokens[name.removeprefix("clip_")][0]]
            table = encoder.transformer.get_input_embeddings()
            self.prompt_embeds[name] = table(
                torch.tensor(ids, device=table.weight.device), out_dtype=torch.float32
            )

    def encode(self, tokens: dict[str, Tensor]) -> Tensor:
        return torch.cat(
            [
                encode_embeds(
                    encoder,
                    put_tokens(self.prompt_embeds[name], tokens[name], self.slots(name)),
                    self.clip_layer,
                )
                for name, encoder in self.encoders.items()
            ],
            dim=-1,
        )

    def reference(self, batch: int = 1) -> Tensor:
        """Returns the reference prompt's context (1, L, C), computed in a batch as large as a
        step's.
        """
        tokens = {name: token.expand(2 * batch, 1, -1) for name, token in self.class_tokens.items()}
        return self.encode(tokens)[:1]

    def slots(self, name: str) -> list[int]:
        return [position for _, position in self.prompt.slots[name.removeprefix("clip_")]]

    def columns(self, scope: str) -> Tensor:
        name = next(iter(self.encoders))
        ids = [token for token, *_ in self.prompt.tokens[name.removeprefix("clip_")][0]]
        counted = {
            "all tokens": range(len(ids)),
            "prompt tokens": range(1, ids.index(END_TOKEN)),
            "placeholder only": self.slots(name),
            "off": (),
        }[scope]
        return torch.tensor([float(i in counted) for i in range(len(ids))])


def encode_embeds(encoder: SDClipModel, embeds: Tensor, clip_layer: int | None) -> Tensor:
    """Returns the host's text context (B, L, C) of embeddings (B, L, E), out of place, in their dtype.

    Arguments:
        clip_layer: The CLIP's clip skip (-1, -2, ...), None for the model's own.
    """
    model, count = encoder.transformer.text_model, encoder.num_layers
    layer, index, _ = encoder.options_default
    if clip_layer is not None:
        layer, index = ("last", None) if abs(clip_layer) > count else ("hidden", clip_layer)
    x = embeds + model.embeddings.position_embedding.weight.to(embeds)
    mask = torch.full(
        (x.shape[1], x.shape[1]), -torch.finfo(x.dtype).max, dtype=x.dtype, device=x.device
    ).triu_(1)
    attention = optimized_attention_for_device(x.device, mask=True, small_input=True)
    for block in model.encoder.layers[: count if layer == "last" else index % count + 1]:
        x = x + block.self_attn(block.layer_norm1(x), mask, attention)
        x = x + block.mlp(block.layer_norm2(x))
    return model.final_layer_norm(x) if layer == "last" or encoder.layer_norm_hidden_state else x
