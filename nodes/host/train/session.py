"""The models as an artist has connected them: what is asked of them before any is loaded."""

__all__ = ["Session"]

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE

from ....sefi_core.training.config import TrainingConfig
from ..checkpointing import recomputes
from ..fingerprint import hash_of_tensors
from ..noise_levels import alike_timestep, behaviour, prediction_type
from ..text.matching import require_match
from ..text.opened import opened_prompts
from ..unets import own_side
from .acting import read_clip, read_model, read_tokens, read_vae
from .borrowing import compute_dtype, trainable
from .loaded import Loaded
from .standing import standing


class Session:
    """The connected models, and the door to borrow them by.

    Arguments:
        dtype: The artist's choice.
        checkpointing: Whether the artist asks for blocks to be computed again.

    Raises:
        MismatchError, SettingsError: They cannot be trained with.
    """

    def __init__(
        self,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        dtype: str = "auto",
        checkpointing: bool = False,
    ) -> None:
        require_match(model, clip)
        self.model, self.clip, self.vae = model, clip, vae
        self.numbers = compute_dtype(model, dtype)
        self.again = recomputes(model.model, checkpointing)
        self.own_side = own_side(model)
        self.fingerprints: dict[tuple, dict[str, object]] = {}

    def for_latents(self, config: TrainingConfig, side: int) -> TrainingConfig:
        """Returns the settings for pictures (side, side): candidates train where the noise hides as
        much of them as `selection_from` says of Stable Diffusion at 512 pixels.
        """
        sampling = self.model.get_model_object("model_sampling")
        latents = side // self.vae.spacial_compression_encode()
        start = alike_timestep(sampling, config.selection_from, latents)
        return replace(config, selection_from=start)

    def fingerprint(self, class_word: str, texts: Sequence[str], tokens: int) -> dict[str, object]:
        """Returns what of the models shapes a training, by content; "unread" only where something
        could not be read. Read once for all people of one wording.

        Raises:
            PromptError: A training prompt of `texts` is not taken whole and plain with as many
                `tokens` in each placeholder.
        """
        wording = class_word, tuple(texts), tokens
        if wording not in self.fingerprints:
            self.fingerprints[wording] = self.read_fingerprint(*wording)
        return self.fingerprints[wording]

    def read_fingerprint(
        self, class_word: str, texts: Sequence[str], tokens: int
    ) -> dict[str, object]:
        prompts = opened_prompts(self.clip, texts, class_word, tokens)
        sampling = copy.deepcopy(self.model.get_model_object("model_sampling")).cpu()
        parts = {
            "model": read_model(self.model),
            "clip": read_clip(self.clip),
            "tokens": read_tokens(*(prompt.slotted.reference for prompt in prompts)),
            "vae": read_vae(self.vae),
        }
        unread = sorted({kind for part in parts.values() for kind in part.unread})
        return {
            **{name: part.digest for name, part in parts.items()},
            "clip_skip": self.clip.layer_idx or 0,
            "prediction": prediction_type(sampling),
            "noise_levels": hash_of_tensors(behaviour(sampling).items()),
            **({"unread": unread} if unread else {}),
        }

    @contextmanager
    def borrowed(self) -> Iterator[Loaded]:
        """Yields the models loaded and frozen; gradients are for the steps to turn on."""
        with (
            standing(self.model, self.clip) as (model, clip),
            trainable(model, clip.patcher, self.numbers, self.again) as (loaded, load),
            torch.no_grad(),
        ):
            yield Loaded(loaded, clip, self.vae, self.numbers, load, self.again)
