"""A CLIP as sefi_core's TextEncoder."""

__all__ = ["HostTextEncoder", "class_tokens", "text_encoders", "token_widths", "word_tokens"]

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
from .slots import END_TOKEN, SlottedPrompt, word_ids


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
    """The training prompt with an open slot, encoded differentiably (a sefi_core TextEncoder).

    Arguments:
        clip: Its text models must be loaded, and free of inference tensors.
        again: Whether its layers are computed again in the backward pass rather than kept.

    Attributes:
        pooled: The reference prompt's pooled vector (1, E'), which SDXL reads beside the context.
            It is the class word's in use as well.
    """

    @torch.no_grad()
    def __init__(self, clip: CLIP, class_word: str, again: bool = False) -> None:
        self.again, class_word = again, plain_noun(class_word)
        self.prompt = SlottedPrompt.read(
            clip, training_prompt(DEFAULT_PLACEHOLDER), {DEFAULT_PLACEHOLDER: class_word}
        )
        self.class_tokens = class_tokens(clip, class_word)
        _, self.pooled = clip.encode_from_tokens(self.prompt.reference, return_pooled=True)
        self.clip_layer = clip.layer_idx
        self.encoders = text_encoders(clip)
        self.prompt_embeds, self.positions, self.masks = {}, {}, {}
        for name, encoder in self.encoders.items():
            ids = [token for token, *_ in self.prompt.tokens[name][0]]
            table = encoder.transformer.get_input_embeddings()
            embeds = table(torch.tensor(ids, device=table.weight.device), out_dtype=torch.float32)
            positions = encoder.transformer.text_model.embeddings.position_embedding.weight
            self.prompt_embeds[name] = embeds
            self.positions[name], self.masks[name] = positions.to(embeds), causal_mask(embeds)

    def encode(self, tokens: dict[str, Tensor]) -> Tensor:
        contexts = []
        for name, encoder in self.encoders.items():
            prompt = self.prompt_embeds[name]
            filled = put_tokens(prompt, tokens[name].to(prompt.device), self.slots(name))
            x = filled + self.positions[name]
            contexts.append(
                encode_embeds(encoder, x, self.masks[name].to(x), self.clip_layer, self.again)
            )
        return torch.cat(contexts, dim=-1) if len(contexts) > 1 else contexts[0]

    def reference(self, batch: int = 1) -> Tensor:
        """Returns the reference prompt's context (1, L, C), computed in a batch as large as a
        step's.
        """
        tokens = {name: token.expand(2 * batch, 1, -1) for name, token in self.class_tokens.items()}
        return self.encode(tokens)[:1]

    def slots(self, name: str) -> list[int]:
        return [position for _, position in self.prompt.slots[name]]

    def token_mask(self, scope: str) -> Tensor:
        name = next(iter(self.encoders))
        ids = [token for token, *_ in self.prompt.tokens[name][0]]
        counted = {
            "all tokens": range(len(ids)),
            "prompt tokens": range(1, ids.index(END_TOKEN)),
            "placeholder only": self.slots(name),
            "off": (),
        }[scope]
        return torch.tensor([float(i in counted) for i in range(len(ids))])
