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
    """A subject's pairs, (n, 2, T, E) by encoder name, and the prompt in whose slot they stand."""

    encoder: TextEncoder
    pairs: Mapping[str, Tensor]


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
    own_rows = rows.split([len(list(each)) for _, each in groupby(samples.subjects)])
    for encoder in {id(source.encoder): source.encoder for source in sources}.values():
        mine = [i for i, source in enumerate(sources) if source.encoder is encoder]
        drawn = [drawn_tokens(sources[i].pairs, own_rows[i]) for i in mine]
        names = list(drawn[0][0])
        # The encoder may live on another device than the model.
        encoded = encoder.encode(
            {name: torch.cat([tokens[name] for tokens, _ in drawn]) for name in names}
        ).to(device)
        parts = encoded.split([len(tokens[names[0]]) for tokens, _ in drawn])
        for i, part, (_, index) in zip(mine, parts, drawn, strict=True):
            index = sent(index, device)
            found[i] = [half.index_select(0, index) for half in part.chunk(2)]
    keys, values = zip(*(found[i] for i in range(len(sources))), strict=True)
    return torch.cat(keys), torch.cat(values)


def drawn_tokens(pairs: Mapping[str, Tensor], rows: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Returns the tokens (2 n, T, E) to encode, K before V, and the index (B,) of each sample among
    the n of K. Never more pairs are encoded than there are.

    Arguments:
        rows: The samples' pairs, (B,), on the CPU.
    """
    count = len(next(iter(pairs.values())))
    every = len(rows) > count
    drawn, index = (torch.arange(count), rows) if every else (rows, torch.arange(len(rows)))
    tokens = {
        name: table.index_select(0, sent(drawn, table.device)).transpose(0, 1).flatten(0, 1)
        for name, table in pairs.items()
    }
    return tokens, index
