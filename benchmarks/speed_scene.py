"""The pack's own steps, as contestants: a training, many at once, and sampling with an identity.

A contestant is a function of steps that sets up what it needs and returns the seconds of each
step; one before them warms up.
"""
# ruff: noqa: E402 - the pack and the host can be imported after `ensure_pack` only

__all__ = ["Ready", "Scene", "clocked", "ours", "ours_together", "sampling"]

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from .pack import ensure_pack

ensure_pack()
import comfy.model_management as mm
import comfy.sample
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.noise_levels import sigmas_at
from sefi_pack.nodes.host.text.encoder import HostTextEncoder, token_widths
from sefi_pack.nodes.host.train.backbone import HostBackbone
from sefi_pack.nodes.host.train.borrowing import trainable
from sefi_pack.sefi_core.identity.identity import Identity
from sefi_pack.sefi_core.samples import LatentPool
from sefi_pack.sefi_core.training.config import TrainingConfig
from sefi_pack.sefi_core.training.learner import Learner
from sefi_pack.sefi_core.training.loop import Subject, train, train_together

from .speed_models import SIZES, make_clip, make_model

VIEWS = 8
SAMPLING_STEPS, GUIDANCE = 20, 7.5


@dataclass(frozen=True)
class Ready:
    """A training that is about to begin."""

    backbone: HostBackbone
    encoder: HostTextEncoder
    learner: Learner
    pool: LatentPool


class Scene:
    """A size's models, made when first asked for, and a batch size."""

    def __init__(self, name: str, batch: int) -> None:
        self.name, self.size, self.batch = name, SIZES[name], batch

    @property
    def model(self) -> ModelPatcher:
        return models(self.name)[0]

    @property
    def clip(self) -> CLIP:
        return models(self.name)[1]

    def reload(self) -> None:
        """Puts the models back in place after another's clones were loaded."""
        mm.load_models_gpu([self.model], force_full_load=True)

    @contextmanager
    def training(self, checkpoint: bool = False, **settings) -> Iterator[Ready]:
        """Sets up a training by TrainingConfig's own settings, with `settings` changed."""
        config = TrainingConfig(
            **{"steps": 1000, "batch_size": self.batch, "views": VIEWS, **settings}
        )
        again = checkpoint or self.size.is_sdxl  # as the node decides
        with trainable(self.model, self.clip.patcher, self.size.dtype, again) as (model, load):
            load()
            encoder = HostTextEncoder(self.clip, "person", again)
            with torch.no_grad():
                reference = encoder.reference()
            pool = self.pool(0)
            backbone = HostBackbone(
                model, reference, pool.latents[:1], self.size.dtype, encoder.pooled
            )
            yield Ready(backbone, encoder, Learner(encoder.class_tokens, config), pool)

    def pool(self, seed: int) -> LatentPool:
        side, generator = self.size.side, torch.Generator().manual_seed(seed)
        latents = torch.randn(VIEWS, 4, side, side, generator=generator)
        return LatentPool(latents, torch.ones(VIEWS, 1, side, side))

    def noised(self, backbone: HostBackbone) -> tuple[Tensor, Tensor]:
        """Returns noised latents (B, 4, h, w) and their sigmas (B,)."""
        latents = self.pool(0).latents[:1].expand(self.batch, -1, -1, -1)
        timesteps = (torch.arange(self.batch) * 2 + 1) * 1000 // (2 * self.batch)
        sigmas = sigmas_at(backbone.sampling, timesteps)
        return backbone.sampling.noise_scaling(sigmas, torch.randn_like(latents), latents), sigmas


@functools.cache
def models(name: str) -> tuple[ModelPatcher, CLIP]:
    return make_model(SIZES[name]), make_clip(SIZES[name])


def clocked(
    step: Callable[[], None], steps: int, warm_up: Callable[[], None] | None = None
) -> list[float]:
    """Returns the seconds of each of `steps` steps, after one that warms up."""
    (warm_up or step)()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def ours(scene: Scene, steps: int, checkpoint: bool = False, **settings) -> list[float]:
    """The pack's training step; `settings` go beyond TrainingConfig's own."""
    with scene.training(checkpoint, **settings) as ready:
        reports = train(ready.backbone, ready.encoder, ready.pool, ready.learner)
        return clocked(lambda: next(reports), steps)


def ours_together(scene: Scene, steps: int, count: int) -> list[float]:
    """`count` identities at once; seconds by identity."""
    with scene.training() as ready:
        subjects = [
            Subject(
                ready.encoder,
                scene.pool(seed),
                Learner(ready.encoder.class_tokens, TrainingConfig(views=VIEWS, seed=seed)),
            )
            for seed in range(count)
        ]
        reports = train_together(ready.backbone, subjects)
        return [seconds / count for seconds in clocked(lambda: next(reports), steps)]


def sampling(scene: Scene, steps: int, applied: bool) -> list[float]:
    """A whole picture's sampling, encoding aside, with an identity or with the class word."""
    model, clip = scene.model, scene.clip
    with torch.inference_mode():
        plain, negative = (
            clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a person", "")
        )
        positive = plain
        if applied:
            generator = torch.Generator().manual_seed(0)
            pairs = {
                name: torch.randn(5, 2, 1, width, generator=generator) * 0.02
                for name, width in token_widths(clip).items()
            }
            model, positive = apply_identity(model, clip, Identity(pairs), "a V*")
        latent = torch.zeros(scene.batch, 4, scene.size.side, scene.size.side)
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))

        def sample(count: int = SAMPLING_STEPS) -> None:
            comfy.sample.sample(
                model, noise, count, GUIDANCE, "euler", "normal", positive, negative, latent,
                disable_pbar=True, seed=0,
            )  # fmt: skip

        return clocked(sample, steps, warm_up=lambda: sample(1))
