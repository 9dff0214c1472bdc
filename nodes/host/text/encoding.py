"""The staged conditioning of a prompt, all of its variants in one text-encoder call."""

__all__ = ["KEY", "encode_staged"]

import torch
from comfy.sd import CLIP
from torch import Tensor

from ....sefi_core.contexts import stage_contexts
from ....sefi_core.identity.group import IdentityGroup
from ....sefi_core.identity.identity import Identity, aligned
from .encoder import token_widths, word_tokens
from .slots import SlottedPrompt

KEY = "sefi"  # our entry in a conditioning; our wrappers and our table in transformer_options


def encode_staged(
    clip: CLIP,
    identity: Identity | IdentityGroup,
    text: str,
    strengths: tuple[float, float],
    active: tuple[int, int],
) -> list:
    """Returns CONDITIONING: the reference prompt's plain entry, carrying its StagedContext under
    KEY.

    All prompts in which something acts, at most 2 * S of the members' common stages, go through the
    text encoder as sections of one, so clip skip, CLIP LoRA, prompt weights and long prompts act on
    them as on any text. Where nothing does, because the token is the class word's own, the plain
    row stands in: a batch of another size would be rounded otherwise.

    Arguments:
        strengths: Of K and of V, 0 for the class word, 1 for the identity as learned.
        active: (low, high): the identity acts for timesteps low <= t < high.
    """
    identity.require_family(token_widths(clip))
    nouns = {member.placeholder: member.class_word for member in identity.members}
    prompt = SlottedPrompt.read(clip, text, nouns)
    plain = clip.encode_from_tokens_scheduled(prompt.reference)
    members = aligned(m.within(*active) for m in identity.members if m.placeholder in prompt.placed)
    words = [class_words(clip, member) for member in members]
    acts = torch.stack(
        [member.acting(strengths, word) for member, word in zip(members, words, strict=True)]
    )  # (M, S, 2)
    acting = acts.any(dim=0)
    count, encoded = int(acting.sum()), plain
    if count:
        variants = slot_variants(members, words, strengths, acts)
        encoded = clip.encode_from_tokens_scheduled(prompt.filled(variants))
    conditioning = []
    for (reference, extras), (sections, _) in zip(plain, encoded, strict=True):
        rows = sections.unflatten(1, (count, -1))[0] if count else reference[:0]  # (n, L, C)
        contexts = stage_contexts(rows, reference, members[0].edges, acting)
        conditioning.append([reference, {**extras, KEY: contexts}])
    return conditioning


def class_words(clip: CLIP, member: Identity) -> dict[str, Tensor]:
    """Returns the tokens (n, E) of a member's class word by encoder name, on the CPU."""
    return {name: tokens.cpu() for name, tokens in word_tokens(clip, member.class_word).items()}


def slot_variants(
    members: list[Identity],
    words: list[dict[str, Tensor]],
    strengths: tuple[float, float],
    acts: Tensor,
) -> dict[str, list[dict[str, Tensor]]]:
    """Returns what fills the slots, by encoder, for every stage of K or V in which something
    acts the tokens (T, E) of each member's placeholder: those of its class word where another
    member acts alone.

    Arguments:
        words: Of each member, the tokens of its class word.
        acts: (M, S, 2), bool: where each member acts.
    """
    variants: dict[str, list[dict[str, Tensor]]] = {}
    places = acts.any(dim=0).nonzero().tolist()
    for member, word, own in zip(members, words, acts, strict=True):
        means = {name: tokens.mean(dim=0) for name, tokens in word.items()}
        for name, pairs in member.variants(means, strengths).items():
            slots = variants.setdefault(name, [{} for _ in places])
            for slot, (stage, axis) in zip(slots, places, strict=True):
                slot[member.placeholder] = pairs[stage, axis] if own[stage, axis] else word[name]
    return variants
