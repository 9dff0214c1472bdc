"""What the model is asked about at once, and the encoded views that it is drawn from."""

__all__ = ["LatentPool", "Samples", "joined", "some_unseen", "spread_samples"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from .stages import TIMESTEPS

AREA = 4 * 64 * 64  # of latents: without gradients they take less memory than a step of 64 x 64


@dataclass(frozen=True, eq=False)
class LatentPool:
    """Encoded views.

    Attributes:
        latents: (n, c, h, w) as the model takes them.
        masks: (n, 1, h, w) in [0, 1].
        captions: (n,), on the CPU: which caption is that of each view; the first if None.
    """

    latents: Tensor
    masks: Tensor
    captions: Tensor | None = None

    def prompts(self, views: Tensor, lines: Tensor | int, count: int) -> Tensor:
        """Returns the prompts (B,) of views (B,), of `count` lines a caption those that are
        given; all on the CPU.
        """
        captions = torch.zeros_like(views) if self.captions is None else self.captions[views]
        return captions * count + lines


@dataclass(frozen=True, eq=False)
class Samples:
    """A batch of B samples; those of one subject stand together.

    Attributes:
        latents: (B, c, h, w), on the model's device like the masks (B, 1, h, w) in [0, 1].
        noise: (B, c, h, w), on the CPU like all that follows.
        timesteps: (B,), int64.
        prompts: (B,), which of the model's reference prompts each sample belongs to.
        seen: (B,), how much of its latents is in what is denoised: 1, or 0 for noise alone, which
            is what a sampling begins with.
        subjects: By sample, whose pairs it is denoised with.
    """

    latents: Tensor
    masks: Tensor
    noise: Tensor
    timesteps: Tensor
    prompts: Tensor
    seen: Tensor
    subjects: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.latents, self.masks, self.noise, self.timesteps, self.prompts, self.seen

    def asked_at_once(self) -> Iterator["Samples"]:
        """Yields parts that the model may be asked about at once where no gradients are kept."""
        yield from self.split(max(1, AREA // self.latents[0, 0].numel()))

    def split(self, sizes: int | list[int]) -> Iterator["Samples"]:
        """Yields parts of `sizes` samples each."""
        subjects = iter(self.subjects)
        for part in zip(*(tensor.split(sizes) for tensor in self.tensors), strict=True):
            latents, masks, noise, timesteps, prompts, seen = part
            own = tuple(islice(subjects, len(latents)))
            yield Samples(latents, masks, noise, timesteps, prompts, seen, own)


def joined(parts: Sequence[Samples]) -> Samples:
    """Returns samples one part after the other."""
    whole = [torch.cat(each) for each in zip(*(part.tensors for part in parts), strict=True)]
    latents, masks, noise, timesteps, prompts, seen = whole
    subjects = tuple(subject for part in parts for subject in part.subjects)
    return Samples(latents, masks, noise, timesteps, prompts, seen, subjects)


def spread_samples(
    pool: LatentPool, count: int, low: int, seed: int, first: int = 0, lines: int = 1
) -> Samples:
    """Returns `count` samples of one subject, spread evenly over the views, over its lines and over
    timesteps from `low` on: the same for the same seed, so that two looks at a model differ by the
    model alone.

    Arguments:
        first: The first of the model's reference prompts that are the subject's.
        lines: Those for each caption.
    """
    middles = low + (2 * torch.arange(count) + 1) * (TIMESTEPS - low) // (2 * count)
    views = torch.arange(count) * len(pool.latents) // count
    noise = torch.randn(
        count, *pool.latents.shape[1:], generator=torch.Generator().manual_seed(seed)
    )
    prompts = first + pool.prompts(views, torch.arange(count) % lines, lines)
    # Views come in the order they were drawn, timesteps in another: no view has the early ones.
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    views = views.to(pool.latents.device)
    latents, masks = pool.latents[views], pool.masks[views]
    seen = torch.ones(count)
    return Samples(latents, masks, noise, middles[order], prompts, seen, (0,) * count)


def some_unseen(
    samples: Samples, near_the_end: Tensor, share: float, rng: torch.Generator
) -> Samples:
    """Returns samples of which those near the end of the noise, (B,), bool, are noise alone in a
    share of the cases.

    The strongest noise still lets the coarse of a picture through, the more the larger its latents
    are, and what shows is not learned; a sampling begins with noise that nothing shows through.
    """
    hidden = near_the_end & (torch.rand(len(samples), generator=rng) < share)
    return replace(samples, seen=samples.seen.masked_fill(hidden, 0.0))
