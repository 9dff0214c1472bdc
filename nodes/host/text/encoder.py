"""A CLIP as sefi_core's TextEncoder."""

__all__ = ["HostTextEncoder", "class_tokens", "text_encoders", "token_widths", "word_tokens"]

from collections.abc import Sequence

import torch
from comfy.sd import CLIP
from comfy.sd1_clip import SD1ClipModel, SDClipModel
from comfy.sdxl_clip import SDXLClipModel
from torch import Tensor

from ....sefi_core.contexts import put_tokens
from ....sefi_core.errors import MismatchError
from ....sefi_core.families import ENCODERS
from ....sefi_core.prompts import DEFAULT_PLACEHOLDER, plain_noun, training_prompt
from .layers import causal_mask, encode_embeds
from .opened import OpenedPrompt, opened_prompts
from .slots import word_ids


def text_encoders(clip: CLIP) -> dict[str, SDClipModel]:
    """Returns a CLIP's text models by the names of identity files.

    Raises:
        MismatchError: It is not made of CLIP text models alone.
    """
    stage = clip.cond_stage_model
    found = {
        name: module for name, module in stage.named_children() if hasattr(module, "transformer")
    }
    others = set(found) - set(ENCODERS)
    if others or not found or not isinstance(stage, SD1ClipModel | SDXLClipModel):
        raise MismatchError(
            f"clip: this text encoder is {type(stage).__name__}, which is not CLIP alone as in "
            "SD 1.x, SD 2.x and SDXL; use the CLIP of such a checkpoint."
        )
    return {name: found[name] for name in ENCODERS if name in found}


def token_widths(clip: CLIP) -> dict[str, int]:
    """Returns the token widths E of a CLIP by encoder name."""
    return {
        name: encoder.transformer.get_input_embeddings().weight.shape[-1]
        for name, encoder in text_encoders(clip).items()
    }


def word_tokens(clip: CLIP, word: str) -> dict[str, Tensor]:
    """Returns a word's token embeddings by encoder name, (n, E), float32."""
    tokens = {}
    for name, encoder in text_encoders(clip).items():
        table = encoder.transformer.get_input_embeddings()
        ids = word_ids(clip, name, word)
        tokens[name] = table(torch.tensor(ids, device=table.weight.device), out_dtype=torch.float32)
    return tokens


def class_tokens(clip: CLIP, class_word: str) -> dict[str, Tensor]:
    """Returns the class word's embedding P by encoder name, (E,), float32; the mean if it has
    several tokens.
    """
    return {name: tokens.mean(dim=0) for name, tokens in word_tokens(clip, class_word).items()}


class HostTextEncoder:
    """Training prompts with open slots, encoded differentiably (a sefi_core TextEncoder).

    Arguments:
        clip: Its text models must be loaded, and free of inference tensors.
        again: Whether its layers are computed again in the backward pass rather than kept.
        texts: The target prompts; that chosen for the class word if empty.
        lines: How many of them there are for each caption; all if 0.
        tokens: T, tokens per placeholder.

    Attributes:
        pooled: The reference prompts' pooled vectors (n, E'), which SDXL reads beside the context.
            They are the class word's in use as well.

    Raises:
        PromptError: A prompt is not taken whole and plain.
    """

    @torch.no_grad()
    def __init__(
        self,
        clip: CLIP,
        class_word: str,
        again: bool = False,
        texts: Sequence[str] = (),
        lines: int = 0,
        tokens: int = 1,
    ) -> None:
        self.again, class_word = again, plain_noun(class_word)
        texts = texts or (training_prompt(DEFAULT_PLACEHOLDER, class_word),)
        self.count, self.lines, self.tokens = len(texts), lines or len(texts), tokens
        self.prompts: list[OpenedPrompt] = opened_prompts(clip, texts, class_word, tokens)
        self.class_tokens = class_tokens(clip, class_word)
        pooled = [
            clip.encode_from_tokens(prompt.slotted.reference, return_pooled=True)[1]
            for prompt in self.prompts
        ]
        self.pooled = None if pooled[0] is None else torch.cat(pooled)
        self.clip_layer = clip.layer_idx
        self.encoders = text_encoders(clip)
        # By encoder, a row of each prompt's: (n, L, E).
        self.prompt_embeds, self.positions, self.masks = {}, {}, {}
        for name, encoder in self.encoders.items():
            ids = torch.tensor([prompt.ids[name] for prompt in self.prompts])
            table = encoder.transformer.get_input_embeddings()
            embeds = table(ids.to(table.weight.device), out_dtype=torch.float32)
            positions = encoder.transformer.text_model.embeddings.position_embedding.weight
            self.prompt_embeds[name] = embeds
            self.positions[name], self.masks[name] = positions.to(embeds), causal_mask(embeds[0])

    def encode(self, tokens: dict[str, Tensor], prompts: Tensor | None = None) -> Tensor:
        """Returns contexts (B, L, C) of prompts (B,) on the CPU, the first if None, with tokens
        (B, T, E), by encoder name, in their slots.
        """
        contexts = []
        for name, encoder in self.encoders.items():
            own = tokens[name].to(self.prompt_embeds[name].device)
            x = self.filled(name, own, prompts) + self.positions[name]
            contexts.append(
                encode_embeds(encoder, x, self.masks[name].to(x), self.clip_layer, self.again)
            )
        return torch.cat(contexts, dim=-1) if len(contexts) > 1 else contexts[0]

    def filled(self, name: str, tokens: Tensor, prompts: Tensor | None) -> Tensor:
        """Returns prompt embeddings (B, L, E) with tokens (B, T, E) in their slots."""
        embeds = self.prompt_embeds[name]
        if prompts is None or self.count == 1:
            return put_tokens(embeds[0], tokens, self.prompts[0].slots[name])
        each = zip(tokens.split(1), prompts.tolist(), strict=True)
        rows = [put_tokens(embeds[i], token, self.prompts[i].slots[name]) for token, i in each]
        return torch.cat(rows)

    def reference(self, batch: int = 1) -> Tensor:
        """Returns the reference prompts' contexts (n, L, C), each computed in a batch as large as a
        step's. The class word stands in it once for each token of the placeholder, so that columns
        of both are those of the same words.
        """
        size = 2 * batch
        tokens = {
            name: token.expand(size, self.tokens, -1) for name, token in self.class_tokens.items()
        }
        each = [self.encode(tokens, torch.full((size,), i))[:1] for i in range(self.count)]
        return torch.cat(each) if len(each) > 1 else each[0]

    def token_mask(self, scope: str, prompt: int = 0) -> Tensor:
        return self.prompts[prompt].token_mask(next(iter(self.encoders)), scope, self.tokens)
