"""Train SeFi ID in the host: pictures and models in; identity, losses and previews out; nothing
left behind.
"""

__all__ = ["train_identity"]

import math
from dataclasses import replace

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ....sefi_core.errors import SettingsError, one_line
from ....sefi_core.identity.identity import Identity
from ....sefi_core.prompts import TRAINING_TEMPLATE
from ....sefi_core.training.config import PRESETS, TrainingConfig
from ....sefi_core.training.learner import Learner
from ....sefi_core.words import cleaned
from .. import folders
from ..checkpointing import recomputes
from ..fingerprint import hash_of_tensors
from ..images import as_image, stored_samples
from ..noise_levels import behaviour, prediction_type
from ..page.progress import Progress
from ..text.encoder import HostTextEncoder, word_tokens
from ..text.families import own_side, require_match
from .borrowing import compute_dtype, trainable
from .files import NOTHING_SHOWN, RunFiles, begun_with, identity_of
from .pictures import dimmed, encode_pool, square_pictures
from .preparing import prepared
from .run import Loaded, Run

ARITHMETIC = 3  # raise it when results change: trainings finished before are then not reused


def train_identity(
    *,
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    image: Tensor,
    class_word: str,
    train_seed: int,
    preset: str,
    steps: int,
    learning_rate: float,
    attention_loss_weight: float,
    attention_loss: str = PRESETS["default"].attention_loss,
    stages: int = 5,
    batch_size: int = 1,
    mask: Tensor | None = None,
    resolution: int = 0,
    dtype: str = "auto",
    preview_every: int = 100,
    checkpoint_every: int = 250,
    resume: str = folders.NO_CHECKPOINT,
    name: str = "identity",
    gradient_checkpointing: bool = False,
    node_id: str | None = None,
    workflow: dict | None = None,
) -> tuple[Identity, dict, Tensor, dict]:
    """Trains, or answers with the same training finished earlier.

    Arguments are the inputs of the node; `node_id` and `workflow`, the host's `extra_pnginfo`, tell
    where progress is shown.

    Returns:
        The identity, the host's LOSS_MAP, an IMAGE of the previews, and the outcome for the node's
        panel.
    """
    config = chosen_config(
        preset,
        learning_rate=learning_rate,
        steps=steps,
        attention_loss=attention_loss,
        attention_loss_weight=attention_loss_weight,
        stages=stages,
        batch_size=batch_size,
        seed=train_seed,
    )
    require_match(model, clip)
    subject, subject_mask = square_pictures(image, mask, resolution or own_side(model))
    masked = bool(subject_mask.min() < 0.99)
    config = replace(
        config,
        masked_loss=config.masked_loss or masked,
        find_subject=config.find_subject and mask is None and not masked,
    )
    fresh = resume == folders.NO_CHECKPOINT
    config = config.with_fair_race() if fresh else begun_with(config, resume)
    name, class_word = folders.require_plain("name", name), cleaned(class_word)
    numbers = compute_dtype(model, dtype)

    again = recomputes(model.model, gradient_checkpointing)
    with (
        Progress(steps, stages, node_id, workflow) as progress,
        trainable(model, clip.patcher, numbers, again) as (loaded, load),
    ):
        progress.reference(dimmed(subject, subject_mask))
        host = Loaded(loaded, clip, vae, numbers, load)
        shaped_by = what_shapes(host, config, class_word, subject, subject_mask)
        files = RunFiles(name, shaped_by, {"steps": steps, "preview_every": preview_every})
        outcome = files.load_finished()
        if outcome is None:
            encoder = HostTextEncoder(clip, class_word, again)
            if any(len(tokens) > 1 for tokens in word_tokens(clip, class_word).values()):
                progress.say(
                    f'class_word: "{class_word}" is several tokens for this text encoder; '
                    "the identity starts at their mean."
                )
            tokens = {n: t.to(model.load_device) for n, t in encoder.class_tokens.items()}
            learner = Learner(tokens, config, scaled=numbers == torch.float16)
            shown = NOTHING_SHOWN if fresh else files.restore(learner, resume)
            if config.framing or config.find_subject:
                progress.say("asking the model where it sees the subject")
                subject, subject_mask = prepared(host, encoder, subject, subject_mask, config)
                progress.reference(dimmed(subject, subject_mask))
            progress.say(f"encoding {config.views} views of the picture")
            pool = encode_pool(vae, loaded, subject, subject_mask, config, learner.device)
            progress.choose_from(learner.starts, len(learner.racers))
            run = Run(host, encoder, learner, pool, files, shown, progress)
            outcome = run.to_the_end(preview_every, checkpoint_every)
        else:
            progress.go_on(outcome.losses, outcome.shown.stages, outcome.shown.samples)
            progress.finish(
                "finished", "Finished before: here is the result. Change train_seed to train anew."
            )

    identity = identity_of(shaped_by, outcome.pairs, outcome.losses)
    samples = outcome.shown.samples
    if not len(samples):
        samples = stored_samples(subject[:1].movedim(1, -1))
    losses = loss_map(outcome.losses, attention_loss_weight)
    return identity, losses, as_image(samples), {"sefi_training": [progress.training.outcome()]}


def chosen_config(preset: str, **settings) -> TrainingConfig:
    """Returns the preset with the node's settings."""
    if preset not in list(PRESETS):
        raise SettingsError(
            f'preset: "{one_line(str(preset))}" is unknown; choose one of {", ".join(PRESETS)}.'
        )
    return replace(PRESETS[preset], **settings)


def what_shapes(
    host: Loaded, config: TrainingConfig, class_word: str, subject: Tensor, mask: Tensor
) -> dict:
    """Returns all that shapes each step of a training, by content: text, numbers and hashes."""
    clip_skip = torch.tensor(0 if host.clip.layer_idx is None else host.clip.layer_idx)
    sampling = host.model.get_model_object("model_sampling")
    return {
        **config.fingerprint(),
        "class_word": class_word,
        "prompt": TRAINING_TEMPLATE,
        "resolution": subject.shape[-1],
        "dtype": str(host.numbers),
        "image": hash_of_tensors([("image", subject), ("mask", mask)]),
        "model": hash_of_tensors(host.model.model.diffusion_model.state_dict().items()),
        "clip": hash_of_tensors(
            [*host.clip.cond_stage_model.state_dict().items(), ("clip_skip", clip_skip)]
        ),
        "vae": hash_of_tensors(host.vae.first_stage_model.state_dict().items()),
        "clip_skip": host.clip.layer_idx or 0,
        "prediction": prediction_type(sampling),
        "noise_levels": hash_of_tensors(behaviour(sampling).items()),
        "arithmetic": ARITHMETIC,
    }


def loss_map(losses: Tensor, weight: float) -> dict[str, list[float]]:
    """Returns the host's LOSS_MAP of losses (steps, 2): "loss" is what was lowered, its two terms
    beside it.

    Plot Loss Graph divides by what lies between the lowest and the highest loss: a single one is
    there twice, the second time larger by the least a number can be.
    """
    denoising, attention = losses.double().unbind(dim=1)
    lowered = (denoising + weight * attention).tolist()
    if len(set(lowered)) == 1:
        lowered[1:] = [*lowered[1:-1], math.nextafter(lowered[-1], math.inf)]
    return {
        "loss": lowered,
        "denoising": denoising.tolist(),
        "attention": attention.tolist(),
    }
