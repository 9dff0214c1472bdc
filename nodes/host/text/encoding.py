"""The staged conditioning of a prompt, all of its variants in one text-encoder call."""

__all__ = ["encode_staged"]

import torch
from comfy.sd import CLIP
from torch import Tensor

from ....sefi_core.contexts import stage_contexts
from ....sefi_core.identity.group import IdentityGroup
from ....sefi_core.identity.identity import Identity, aligned
from .encoder import token_widths, word_tokens
from .slots import SlottedPrompt


def encode_staged(
    clip: CLIP,
    identity: Identity | IdentityGroup,
    text: str,
    strengths: tuple[float, float],
    active: tuple[int, int],
) -> list:
    """Returns CONDITIONING: the reference prompt's plain entry, carrying its StagedContext under
    "sefi".

    All prompts in which something acts, at most 2 * S of the members' common stages, go through the
    text encoder as sections of one, so clip skip, CLIP LoRA, prompt weights and long prompts act on
    them as on any text.

    Arguments:
        strengths: Of K and of V, 0 for the class word, 1 for the identity as learned.
        active: (low, high): the identity acts for timesteps low <= t < high.
    """
    identity.require_family(token_widths(clip))
    words = {member.placeholder: member.class_word for member in identity.members}
    prompt = SlottedPrompt.read(clip, text, words)
    plain = clip.encode_from_tokens_scheduled(prompt.reference)
    members = aligned(m.within(*active) for m in identity.members if m.placeholder in prompt.placed)
    acting = torch.stack([member.acting(strengths) for member in members]).any(dim=0)  # (S, 2)
    count, encoded = int(acting.sum()), plain
    if count:
        variants = slot_variants(clip, members, strengths, acting)
        encoded = clip.encode_from_tokens_scheduled(prompt.filled(variants))
    conditioning = []
    for (reference, extras), (sections, _) in zip(plain, encoded, strict=True):
        rows = sections.unflatten(1, (count, -1))[0] if count else reference[:0]  # (n, L, C)
        contexts = stage_contexts(rows, reference, members[0].edges, acting)
        conditioning.append([reference, {**extras, "sefi": contexts}])
    return conditioning


def slot_variants(
    clip: CLIP, members: list[Identity], strengths: tuple[float, float], acting: Tensor
) -> dict[str, list[dict[str, Tensor]]]:
    """Returns what fills the slots, by tokenizer name, for every True of acting (S, 2) the tokens
    (T, E) of each member's placeholder: those of its class word where another member acts alone.
    """
    variants: dict[str, list[dict[str, Tensor]]] = {}
    for member in members:
        words = {
            name: tokens.cpu() for name, tokens in word_tokens(clip, member.class_word).items()
        }
        learned = member.variants({n: tokens.mean(dim=0) for n, tokens in words.items()}, strengths)
        acts = member.acting(strengths)
        for name, pairs in learned.items():
            slots = variants.setdefault(
                name.removeprefix("clip_"), [{} for _ in range(acting.sum())]
            )
            for slot, (stage, axis) in zip(slots, acting.nonzero().tolist(), strict=True):
                tokens = pairs[stage, axis] if acts[stage, axis] else words[name]
                slot[member.placeholder] = tokens
    return variants
