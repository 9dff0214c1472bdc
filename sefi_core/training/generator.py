"""The only trained module: the class word's frozen token P -> the pairs {(P_i^K, P_i^V)} (Fig. 5).

"Two self-attention layers with one feed-forward layer", P [1, E] -> [S * 2, E], in the shape of the
transformer block the paper's lineage uses: pre-norm, 8 heads of 64, GEGLU, no residual on the
output layer. With a single input token each attention is a fixed linear map (softmax over one key
is 1), so its query and key weights never receive a gradient; they are kept because the paper has
them.
"""

__all__ = ["KINDS", "PairBlock", "PairTable", "make_generator"]

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ("direct", "literal")
HEADS, HEAD_WIDTH, HIDDEN_MULTIPLE = 8, 64, 4


def make_generator(kind: str) -> Callable[[Tensor, int, int, torch.Generator], nn.Module]:
    """Returns what makes, of P (E,), a number of rows, T and a source of initial weights, a module
    without arguments whose output is (rows, 2, T, E), float32.

    Arguments:
        kind: "literal", the paper's block; "direct", a free table that starts at P.
    """
    return {"literal": PairBlock, "direct": PairTable}[kind]


class PairTable(nn.Module):
    """A free (rows, 2, T, E) table that starts at P; it has nothing to draw."""

    def __init__(self, token: Tensor, rows: int, tokens: int, rng: torch.Generator) -> None:
        super().__init__()
        self.pairs = nn.Parameter(token.expand(rows, 2, tokens, -1).clone())

    def forward(self) -> Tensor:
        return self.pairs


class PairBlock(nn.Module):
    """The paper's self-attention module."""

    token: Tensor

    def __init__(self, token: Tensor, rows: int, tokens: int, rng: torch.Generator) -> None:
        super().__init__()
        width = len(token)
        self.shape = (rows, 2, tokens, width)
        self.register_buffer("token", token.clone())
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attention1 = SelfAttention(width, rng)
        self.attention2 = SelfAttention(width, rng)
        self.gate = linear(width, 2 * HIDDEN_MULTIPLE * width, rng)
        self.out = linear(HIDDEN_MULTIPLE * width, math.prod(self.shape), rng)

    def forward(self) -> Tensor:
        x = self.token.view(1, -1)  # (1, E)
        x = x + self.attention1(self.norm1(x), self.norm1(x))
        x = x + self.attention2(
            self.norm2(x), self.token.view(1, -1)
        )  # the second one looks at P itself
        hidden, gate = self.gate(self.norm3(x)).chunk(2, dim=-1)
        return self.out(hidden * F.gelu(gate)).view(self.shape)  # (rows, 2, T, E)


class SelfAttention(nn.Module):
    """Multi-head attention of tokens (n, E) over `context` (m, E)."""

    def __init__(self, width: int, rng: torch.Generator) -> None:
        super().__init__()
        inner = HEADS * HEAD_WIDTH
        self.to_q, self.to_k, self.to_v = (linear(width, inner, rng, bias=False) for _ in range(3))
        self.to_out = linear(inner, width, rng)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            projected.unflatten(-1, (HEADS, HEAD_WIDTH)).transpose(0, 1)  # (H, n, d)
            for projected in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        weights = (q @ k.mT * HEAD_WIDTH**-0.5).softmax(dim=-1)  # (H, n, m)
        return self.to_out((weights @ v).transpose(0, 1).flatten(1))


def linear(inputs: int, outputs: int, rng: torch.Generator, bias: bool = True) -> nn.Linear:
    """Returns a linear layer with torch's usual initial weights, drawn from `rng` alone."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    bound = inputs**-0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=rng)
    return layer
