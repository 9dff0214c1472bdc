"""Attention maps per head, and Re2: the mean over layers of maps resized to 32 x 32 (Algorithm 1).

A_t = softmax(q k_t / sqrt(d)),  A_r = softmax(q k_r / sqrt(d)),  the same q
"""

__all__ = [
    "MAP_SIDE",
    "attend",
    "map_keys",
    "map_query",
    "maps_of",
    "most_tokens",
    "prompt_maps",
    "resize_maps",
    "split_heads",
]

from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

MAP_SIDE = 32


def most_tokens(coarsest: int) -> int:
    """Returns how many picture tokens a layer may have whose maps are looked at: 32 x 32, where the
    paper compares them, or those of the coarsest layer where every one is finer.
    """
    return max(MAP_SIDE**2, coarsest)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Returns projected tokens (B, n, H*d) as (B, H, n, d)."""
    return rearrange(x, "b n (h d) -> b h n d", h=heads)


def prompt_maps(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """Computes cross-attention probabilities, one map per head.

    Arguments:
        query: Projected picture tokens, (B, N, H*d).
        key: Projected prompt tokens, (B, L, H*d) or (1, L, H*d).

    Returns:
        Probabilities that sum to 1 over L, (B, H, N, L), float32 (float64 for float64 inputs).
    """
    return maps_of(map_query(query, heads), map_keys(key, heads))


def map_query(query: Tensor, heads: int) -> Tensor:
    """Returns projected picture tokens (B, N, H*d) as `maps_of` takes them, (B, H, N, d)."""
    return split_heads(at_least_float32(query), heads)


def map_keys(key: Tensor, heads: int) -> Tensor:
    """Returns projected prompt tokens (B, L, H*d) as `maps_of` takes them, (B, H, L, d), divided by
    sqrt(d): there are fewer of them than of scores.
    """
    return split_heads(at_least_float32(key), heads) * (key.shape[-1] // heads) ** -0.5


def maps_of(query: Tensor, keys: Tensor) -> Tensor:
    """Returns the maps (B, H, N, L) of `map_query` and `map_keys`."""
    return (query @ keys.mT).softmax(dim=-1)


def at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.itemsize < 4 else x


def attend(maps: Tensor, value: Tensor) -> Tensor:
    """Returns the attention output (B, N, H*d) of maps (B, H, N, L) over projected values (B, L,
    H*d).
    """
    out = maps.to(value.dtype) @ split_heads(value, maps.shape[1])
    return rearrange(out, "b h n d -> b n (h d)")


def resize_maps(maps: Tensor, height: int, width: int) -> Tensor:
    """Resizes maps (B, H, N, L), N = height * width, to (B, H, L, 32, 32).

    Bilinear, so it is linear in the maps and keeps their sum over L.
    """
    heads = maps.shape[1]
    if height == width == MAP_SIDE:
        return rearrange(maps, "b h (y x) l -> b h l y x", y=height)
    grid = rearrange(maps, "b h (y x) l -> b (h l) y x", y=height, x=width)
    grid = F.interpolate(grid, size=(MAP_SIDE, MAP_SIDE), mode="bilinear", align_corners=False)
    return rearrange(grid, "b (h l) y x -> b h l y x", h=heads)
