"""The models while a training borrows them: pictures and prompts encoded, the UNet put in place."""

__all__ = ["Loaded"]

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ....sefi_core.identity.identity import Identity
from ....sefi_core.samples import LatentPool
from ....sefi_core.training.config import TrainingConfig
from ....sefi_core.training.loop import Subject
from ....sefi_core.training.wording import Wording
from ..noise_levels import sigmas_at
from ..text.encoder import HostTextEncoder, word_tokens
from .backbone import HostBackbone
from .borrowing import Hold
from .pictures import encode_pool, encode_views
from .preview import sample_preview

LEVELS = (100, 500, 900)  # timesteps


@dataclass(frozen=True)
class Loaded:
    """The models that a training uses, while it borrows them.

    Attributes:
        model, clip, vae: Not always what the artist connected (standing.py).
        numbers: The dtype to compute in.
        load: Puts weights in place for steps; what lets the host move them releases them first.
        again: Whether blocks are computed again in the backward pass rather than kept.
    """

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    numbers: torch.dtype
    load: Hold
    again: bool = False

    @property
    def device(self) -> torch.device:
        return self.model.load_device

    def encoder(
        self, class_word: str, wording: Wording | None = None, tokens: int = 1
    ) -> HostTextEncoder:
        """Returns the text encoder for the prompts of a wording, or for that which is chosen for
        the class word, with as many tokens in each placeholder.
        """
        texts, lines = (wording.prompts, len(wording.lines)) if wording else ((), 0)
        return HostTextEncoder(self.clip, class_word, self.again, texts, lines, tokens)

    def is_several_tokens(self, word: str) -> bool:
        return any(len(tokens) > 1 for tokens in word_tokens(self.clip, word).values())

    def encode(self, pictures: Tensor, masks: Tensor) -> LatentPool:
        """Encodes pictures (n, 3, R, R) with masks (n, 1, R, R) as they are."""
        self.load.release()
        return encode_views(self.vae, self.model, pictures, masks, self.device)

    def views(
        self,
        pictures: Tensor,
        masks: Tensor,
        captions: Sequence[int],
        config: TrainingConfig,
        device: torch.device,
    ) -> LatentPool:
        """Draws the training's views and encodes them; each picture has its caption's number."""
        self.load.release()
        pool = encode_pool(self.vae, self.model, pictures, masks, config, device)
        views = range(len(pool.latents))  # the pictures in turn
        return replace(pool, captions=torch.tensor([captions[i % len(captions)] for i in views]))

    def backbone(self, encoder: HostTextEncoder, latents: Tensor, batch: int = 1) -> HostBackbone:
        """Returns the UNet, put in place, for latents (n, c, h, w).

        Arguments:
            batch: Prompts of a step.
        """
        return self.shared_backbone([encoder], latents, batch)

    @torch.no_grad()
    def shared_backbone(
        self, encoders: Sequence[HostTextEncoder], latents: Tensor, batch: int = 1
    ) -> HostBackbone:
        """Returns the UNet for the prompts of several encoders, one after the other."""
        self.load()
        reference = torch.cat([encoder.reference(batch) for encoder in encoders])  # (n, L, C)
        pooled = [encoder.pooled for encoder in encoders if encoder.pooled is not None]
        return HostBackbone(
            self.model,
            reference.to(self.device),
            latents[:1],
            self.numbers,
            torch.cat(pooled) if pooled else None,
        )

    def together(
        self, subjects: Sequence[Subject], batch: int
    ) -> tuple[HostBackbone, list[Subject]]:
        """Returns the UNet for the prompts of all subjects' encoders, and each subject where its
        own prompts begin among them.
        """
        encoders = list({id(one.encoder): one.encoder for one in subjects}.values())
        starts = accumulate((encoder.count for encoder in encoders), initial=0)
        firsts = {id(encoder): first for encoder, first in zip(encoders, starts, strict=False)}
        placed = [replace(one, prompt=firsts[id(one.encoder)]) for one in subjects]
        return self.shared_backbone(encoders, subjects[0].pool.latents, batch), placed

    def behaviour(self, encoder: HostTextEncoder) -> tuple[float, ...]:
        """Returns what the models make of fixed inputs at a few noise levels, as numbers to compare
        where their contents cannot be read.
        """
        channels = self.model.model.latent_format.latent_channels
        shape = (len(LEVELS), channels, 16, 16)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        backbone = self.backbone(encoder, noise)
        sigmas = sigmas_at(backbone.sampling, torch.tensor(LEVELS, device=self.device))
        context = encoder.reference()[:1].to(self.device).expand(len(LEVELS), -1, -1)
        prompts = torch.zeros(len(LEVELS), dtype=torch.long)
        noised = noise * sigmas[:, None, None, None]
        output = backbone.run(noised, sigmas, context, {}, prompts)
        return tuple(output.flatten(1)[:, ::64].flatten().tolist())

    def preview(self, identity: Identity, text: str, latents: Tensor, seed: int) -> Tensor:
        """Samples a prompt's picture with an identity; returns it in 8 bits, (1, H, W, 3)."""
        self.load.release()
        models = self.model, self.clip, self.vae
        try:
            return sample_preview(*models, identity, text, latents[:1], seed)
        finally:
            self.load()
