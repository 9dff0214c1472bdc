"""Whether the host's gradients are right, asked before a training spends minutes on them.

A token pair moves by +delta and by -delta; x is what the losses read of the model: its output and
its maps. Two looks, at what can be wrong without any error:

- Something between token and loss passes no gradient on. Then <w, J 2 delta> and <J^T w, 2 delta>
  differ: J 2 delta = x(+delta) - x(-delta) by central differences, J^T w by autograd. The answer
  J 2 delta itself is taken for w, so each part counts by how much it answers to the token.
- What the forward saved is overwritten before the backward reads it, as when weights are streamed
  through one buffer. Then its checksums differ.
"""

__all__ = ["require_gradients"]

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ....sefi_core.errors import TrainingError
from ....sefi_core.predict import Source, predict
from ....sefi_core.protocols import Backbone, TextEncoder
from ....sefi_core.samples import Samples
from .weights import is_tainted

TIMESTEP = 600  # a prompt still shapes the picture there
MISSING = 0.02  # share of the answer that gradients may miss, beyond what its noise explains
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
REFUSALS = ("nference tensor", "inplace operation", "require grad", "grad_fn", "in the graph",
            "automatic differentiation", "derivative", "leaf variable")  # fmt: skip


def require_gradients(
    backbone: Backbone, encoder: TextEncoder, latent: Tensor, dtype: torch.dtype
) -> None:
    """Raises TrainingError unless the gradients of a token are right.

    Arguments:
        latent: A latent (1, c, h, w) of the training's size, as the model takes it.
        dtype: What the model computes in.
    """
    try:
        missing, noise, overwritten = compare(backbone, encoder, latent, torch.finfo(dtype).eps)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if any(words in str(error) for words in REFUSALS):
            raise wrong_gradients("PyTorch refuses to compute them") from error
        raise
    if overwritten:
        raise wrong_gradients("weights are overwritten before they are used")
    # What is not finite says nothing of gradients; the training itself deals with that.
    if math.isfinite(missing) and abs(missing) > MISSING + 2.0 * noise:
        raise wrong_gradients(f"{abs(missing):.0%} of the model's answer to a token is amiss")


def wrong_gradients(what: str) -> TrainingError:
    return TrainingError(
        f"model: the gradients that this ComfyUI gives are wrong ({what}), so nothing could be "
        "learned; update ComfyUI, or start it with --disable-dynamic-vram, and try without other "
        "nodes that change the model."
    )


def compare(
    backbone: Backbone, encoder: TextEncoder, latent: Tensor, eps: float
) -> tuple[float, float, bool]:
    """Returns the share of the answer that gradients miss, the power of its noise, and whether
    anything that was saved for the backward was overwritten.
    """
    generator = torch.Generator().manual_seed(0)
    added = torch.randn(latent.shape, generator=generator).to(latent)
    tokens, deltas = moves(encoder, eps, generator)

    def read_by_losses(pairs: dict[str, Tensor]) -> list[Tensor]:
        rows = torch.arange(len(next(iter(pairs.values()))))
        views, noise = (x.expand(len(rows), -1, -1, -1) for x in (latent, added))
        masks, timesteps = torch.ones_like(views[:, :1]), torch.full_like(rows, TIMESTEP)
        prompts, subjects = torch.zeros_like(rows), (0,) * len(rows)
        seen = torch.ones(len(rows))
        samples = Samples(views, masks, noise, timesteps, prompts, seen, subjects)
        prediction = predict(backbone, [Source(encoder, pairs)], samples, rows, with_maps=True)
        maps = [target.flatten(1) for _, target in prediction.maps]
        return [prediction.output.flatten(1), *([torch.cat(maps, dim=1)] if maps else [])]  # (B, n)

    with torch.no_grad():
        both_ways = {
            name: torch.cat([token + deltas[name], token - deltas[name]])
            for name, token in tokens.items()
        }  # (2, 2, 1, E): a pair ahead, a pair behind
        moved = read_by_losses(both_ways)
    answers = [x[0] - x[1] for x in moved]
    scale = answers[0].norm() * len(answers[0]) ** 0.5  # a size of gradients that float16 holds
    with checksummed() as differ:
        here = read_by_losses(tokens)
        weights = [scale * a[None] / a.square().sum().clamp(min=1e-30) for a in answers]
        gradients = torch.autograd.grad(here, list(tokens.values()), weights)
    along = sum((g * 2.0 * d).sum() for g, d in zip(gradients, deltas.values(), strict=True))
    expected = sum((w * a).sum() for w, a in zip(weights, answers, strict=True))
    changed = any(flag.item() for flag in differ)
    return (1.0 - along / expected).item(), noise_power(moved, here, answers), changed


def moves(
    encoder: TextEncoder, eps: float, generator: torch.Generator
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns the class word as a pair (1, 2, 1, E) by encoder, differentiable, and how far it is
    moved.
    """
    tokens, deltas = {}, {}
    for name, token in encoder.class_tokens.items():
        tokens[name] = token.detach().clone().expand(1, 2, 1, -1).requires_grad_()
        way = torch.randn(1, 2, 1, len(token), generator=generator).to(token)
        length = eps ** (1 / 3) * token.norm()  # rounding and bending then cost alike
        deltas[name] = way * length / way.norm(dim=-1, keepdim=True)
    return tokens, deltas


def noise_power(moved: list[Tensor], here: list[Tensor], answers: list[Tensor]) -> float:
    """Returns the power of the answer's rounding noise, as a share of its own.

    Independent rounding makes what is bent three times as noisy, in power, as the answer.
    """
    bent = [x.sum(dim=0) - 2.0 * h.detach()[0] for x, h in zip(moved, here, strict=True)]
    powers = [(b.norm() / a.norm()).square() / 3.0 for b, a in zip(bent, answers, strict=True)]
    return torch.stack(powers).mean().item()


@contextmanager
def checksummed() -> Iterator[list[Tensor]]:
    """Yields a list that gets a flag () for each tensor saved for the backward when it is used:
    whether it has changed since.
    """
    differ: list[Tensor] = []

    def pack(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
        if is_tainted(tensor):  # as autograd does where no hook takes the tensor from it
            raise wrong_gradients("PyTorch refuses to compute them")
        return tensor, checksum(tensor)

    def unpack(packed: tuple[Tensor, Tensor | None]) -> Tensor:
        tensor, before = packed
        if before is not None:
            differ.append(checksum(tensor) != before)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield differ


def checksum(tensor: Tensor) -> Tensor | None:
    """Returns the sum of a tensor's bits as integers, (); None for a type without plain storage."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.itemsize not in INTEGERS:
        return None
    return tensor.detach().view(INTEGERS[tensor.itemsize]).sum(dtype=torch.int64)
