"""Denoising with pairs: tokens to contexts, contexts to the model's prediction."""

__all__ = ["Source", "class_word_source", "predict"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from .devices import sent
from .protocols import Backbone, Prediction, TextEncoder
from .samples import Samples


@dataclass(frozen=True, eq=False)
class Source:
    """A subject's pairs, (n, 2, T, E) by encoder name, and the prompts in whose slots they stand:
    the model's reference prompts from `first` on.
    """

    encoder: TextEncoder
    pairs: Mapping[str, Tensor]
    first: int = 0


def class_word_source(encoder: TextEncoder) -> Source:
    """Returns the source whose only pair is the class word: the reference prompt."""
    tokens = encoder.class_tokens.items()
    return Source(encoder, {name: token.expand(1, 2, 1, -1) for name, token in tokens})


def predict(
    backbone: Backbone,
    sources: Sequence[Source],
    samples: Samples,
    rows: Tensor,
    with_maps: bool,
) -> Prediction:
    """Denoises each sample with a pair of its subject's source.

    Arguments:
        sources: By subject, in the order in which the samples have them.
        rows: Which pair of its source each sample takes, (B,), int64, on the CPU.
    """
    keys, values = contexts_of(sources, samples, rows)
    return backbone.predict(samples, keys, values, with_maps)


def contexts_of(sources: Sequence[Source], samples: Samples, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns key and value contexts (B, L, C); sources with one encoder go through it as one
    batch, Eq. 5's two encodings too.
    """
    device, found = samples.latents.device, {}
    sizes = [len(list(run)) for _, run in groupby(samples.subjects)]
    own = zip(sources, rows.split(sizes), samples.prompts.split(sizes), strict=True)
    drawn_of = [drawn_tokens(*one) for one in own]
    for encoder in {id(source.encoder): source.encoder for source in sources}.values():
        mine = [i for i, source in enumerate(sources) if source.encoder is encoder]
        drawn = [drawn_of[i] for i in mine]
        names = list(drawn[0].tokens)
        # The encoder may live on another device than the model.
        encoded = encoder.encode(
            {name: torch.cat([one.tokens[name] for one in drawn]) for name in names},
            torch.cat([one.prompts for one in drawn]),
        ).to(device)
        parts = encoded.split([len(one.prompts) for one in drawn])
        for i, part, one in zip(mine, parts, drawn, strict=True):
            index = sent(one.index, device)
            found[i] = [half.index_select(0, index) for half in part.chunk(2)]
    keys, values = zip(*(found[i] for i in range(len(sources))), strict=True)
    return torch.cat(keys), torch.cat(values)


@dataclass(frozen=True, eq=False)
class Drawn:
    """What is to be encoded for some samples: tokens (2 n, T, E) by encoder name, K before V, the
    prompts (2 n,) that they are of, and the index (B,) of each sample among the n of K.
    """

    tokens: dict[str, Tensor]
    prompts: Tensor
    index: Tensor


def drawn_tokens(source: Source, rows: Tensor, prompts: Tensor) -> Drawn:
    """Returns what to encode of a source: never more pairs than there are, and of several prompts
    none twice with one pair.

    Arguments:
        rows, prompts: The samples' pairs and the model's reference prompts, (B,), on the CPU.
    """
    count, prompts = len(next(iter(source.pairs.values()))), prompts - source.first
    if source.encoder.count > 1:
        (rows, prompts), index = torch.stack([rows, prompts]).unique(dim=1, return_inverse=True)
    elif len(rows) > count:
        index, rows, prompts = rows, torch.arange(count), torch.zeros(count, dtype=torch.long)
    else:
        index = torch.arange(len(rows))
    tokens = {
        name: table.index_select(0, sent(rows, table.device)).transpose(0, 1).flatten(0, 1)
        for name, table in source.pairs.items()
    }
    return Drawn(tokens, prompts.repeat(2), index)
