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
from comfy.sd import CLIP, VAE
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.noise_levels import sigmas_at
from sefi_pack.nodes.host.text.encoder import HostTextEncoder, token_widths
from sefi_pack.nodes.host.train.backbone import HostBackbone
from sefi_pack.nodes.host.train.session import Session
from sefi_pack.sefi_core.identity.identity import Identity
from sefi_pack.sefi_core.samples import LatentPool
from sefi_pack.sefi_core.training.config import TrainingConfig
from sefi_pack.sefi_core.training.learner import Learner
from sefi_pack.sefi_core.training.loop import Subject, train, train_together

from .speed_models import SIZES, Size, make_clip, make_model

VIEWS = 8
GUIDANCE = 7.5


@dataclass(frozen=True)
class Ready:
    """A training that is about to begin."""

    backbone: HostBackbone
    encoder: HostTextEncoder
    learner: Learner
    pool: LatentPool


class Scene:
    """Models, a batch size, and the dtype to compute in as the node has it.

    Arguments:
        name: Of a size, whose models are made when first asked for.
        models: MODEL, CLIP and VAE in place of these.
    """

    def __init__(
        self,
        name: str,
        batch: int,
        models: tuple[ModelPatcher, CLIP, VAE | None] | None = None,
        dtype: str = "auto",
    ) -> None:
        self.name, self.batch, self.given, self.dtype = name, batch, models, dtype

    @property
    def size(self) -> Size:
        return SIZES[self.name]

    @property
    def models(self) -> tuple[ModelPatcher, CLIP, VAE | None]:
        return self.given or models(self.name)

    @property
    def model(self) -> ModelPatcher:
        return self.models[0]

    @property
    def clip(self) -> CLIP:
        return self.models[1]

    @property
    def device(self) -> torch.device:
        return self.model.load_device

    def session(self, checkpoint: bool = False) -> Session:
        return Session(*self.models, self.dtype, checkpoint)

    def reload(self) -> None:
        """Puts the models back in place after another's clones were loaded."""
        mm.load_models_gpu([self.model], force_full_load=True)

    @contextmanager
    def training(self, checkpoint: bool = False, **settings) -> Iterator[Ready]:
        """Sets up a training by TrainingConfig's own settings, with `settings` changed."""
        config = TrainingConfig(
            **{"steps": 1000, "batch_size": self.batch, "views": VIEWS, **settings}
        )
        with self.session(checkpoint).borrowed() as host:
            encoder, pool = host.encoder("person"), self.pool(0)
            tokens = {name: token.to(host.device) for name, token in encoder.class_tokens.items()}
            learner = Learner(tokens, config, scaled=host.numbers == torch.float16)
            backbone = host.backbone(encoder, pool.latents)
            with torch.enable_grad():
                yield Ready(backbone, encoder, learner, pool)

    def pool(self, seed: int) -> LatentPool:
        side, generator = self.size.side, torch.Generator().manual_seed(seed)
        latents = torch.randn(VIEWS, 4, side, side, generator=generator)
        masks = torch.ones(VIEWS, 1, side, side)
        return LatentPool(latents.to(self.device), masks.to(self.device))

    def noised(self, backbone: HostBackbone) -> tuple[Tensor, Tensor]:
        """Returns noised latents (B, 4, h, w) and their sigmas (B,)."""
        latents = self.pool(0).latents[:1].expand(self.batch, -1, -1, -1)
        timesteps = (torch.arange(self.batch) * 2 + 1) * 1000 // (2 * self.batch)
        sigmas = sigmas_at(backbone.sampling, timesteps.to(self.device))
        return backbone.sampling.noise_scaling(sigmas, torch.randn_like(latents), latents), sigmas


@functools.cache
def models(name: str) -> tuple[ModelPatcher, CLIP, None]:
    return make_model(SIZES[name]), make_clip(SIZES[name]), None


def clocked(
    step: Callable[[], None], steps: int, warm_up: Callable[[], None] | None = None
) -> list[float]:
    """Returns the seconds of each of `steps` steps, after one that warms up; on a card the mean of
    them all, which are not waited for one by one.
    """
    (warm_up or step)()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
        return [(time.perf_counter() - start) / steps]
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

        def sample(count: int = scene.size.sampled) -> None:
            comfy.sample.sample(
                model, noise, count, GUIDANCE, "euler", "normal", positive, negative, latent,
                disable_pbar=True, seed=0,
            )  # fmt: skip

        return clocked(sample, steps, warm_up=lambda: sample(1))
