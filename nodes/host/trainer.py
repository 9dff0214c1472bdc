"""Train SeFi ID in the host: pictures and models in; identity, losses and previews out; nothing
left behind.
"""

__all__ = ["train_identity"]

from dataclasses import replace

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ...sefi_core.errors import SettingsError, one_line
from ...sefi_core.identity import Identity
from ...sefi_core.learner import Learner
from ...sefi_core.prompts import TRAINING_TEMPLATE
from ...sefi_core.recipe import DEFAULT_LEARNING_RATE, PRESETS, TrainingConfig
from . import folders
from .backbone import compute_dtype, own_side, require_trainable
from .borrowing import trainable
from .fingerprint import hash_of_tensors
from .pictures import as_image, encode_pool, square_pictures, stored_samples
from .progress import say
from .run import Loaded, Run
from .run_files import NO_SAMPLES, RunFiles, identity_of
from .sampling import require_context_width
from .text import HostTextEncoder

ARITHMETIC = 1  # raise it when results change: trainings finished before are then not reused


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
    attention_loss: str = "all tokens",
    stages: int = 5,
    batch_size: int = 1,
    mask: Tensor | None = None,
    resolution: int = 0,
    dtype: str = "auto",
    preview_every: int = 100,
    checkpoint_every: int = 250,
    resume: str = folders.NO_CHECKPOINT,
    name: str = "identity",
    node_id: str | None = None,
) -> tuple[Identity, dict, Tensor]:
    """Trains, or answers with the same training finished earlier.

    Arguments are the inputs of the node; `node_id` is where progress is shown.

    Returns:
        The identity, the host's LOSS_MAP and an IMAGE of the previews.
    """
    config = chosen_config(
        preset,
        learning_rate,
        steps=steps,
        attention_loss=attention_loss,
        attention_loss_weight=attention_loss_weight,
        stages=stages,
        batch_size=batch_size,
        seed=train_seed,
    )
    require_trainable(model)
    subject, subject_mask = square_pictures(image, mask, resolution or own_side(model))
    config = replace(config, masked_loss=config.masked_loss or bool(subject_mask.min() < 0.99))
    folders.require_plain("name", name)
    numbers = compute_dtype(model, dtype)

    with trainable(model, clip.patcher, numbers) as (loaded, load):
        host = Loaded(loaded, clip, vae, numbers, load)
        shaped_by = what_shapes(host, config, class_word, subject, subject_mask)
        files = RunFiles(name, shaped_by, {"steps": steps, "preview_every": preview_every})
        outcome = files.load_finished()
        if outcome is None:
            encoder = HostTextEncoder(clip, class_word)
            require_context_width(model, encoder.reference().shape[-1])
            if max(map(len, encoder.prompt.word.values())) > 1:
                say(
                    f'class_word: "{class_word}" is several tokens for this text encoder; '
                    "the identity starts at their mean.",
                    node_id,
                )
            tokens = {n: t.to(model.load_device) for n, t in encoder.class_tokens.items()}
            learner = Learner(tokens, config, scaled=numbers == torch.float16)
            fresh = resume == folders.NO_CHECKPOINT
            samples = NO_SAMPLES if fresh else files.restore(learner, resume)
            say(f"encoding {config.views} views of the picture", node_id)
            pool = encode_pool(vae, loaded, subject, subject_mask, config, learner.device)
            run = Run(host, encoder, learner, pool, files, samples, node_id)
            outcome = run.to_the_end(preview_every, checkpoint_every)
        else:
            say("Finished before: here is the result. Change train_seed to train anew.", node_id)

    identity = identity_of(shaped_by, outcome.pairs, outcome.losses)
    samples = (
        outcome.samples if len(outcome.samples) else stored_samples(subject[:1].movedim(1, -1))
    )
    return identity, loss_map(outcome.losses, attention_loss_weight), as_image(samples)


def chosen_config(preset: str, learning_rate: float, **settings) -> TrainingConfig:
    """Returns the preset with the node's settings; a learning rate left at the default preset's is
    each preset's own.
    """
    if preset not in list(PRESETS):  # a stranger's may be no text, and unhashable
        raise SettingsError(
            f'preset: "{one_line(str(preset))}" is unknown; choose one of {", ".join(PRESETS)}.'
        )
    if learning_rate != DEFAULT_LEARNING_RATE:
        settings["learning_rate"] = learning_rate
    return replace(PRESETS[preset], **settings)


def what_shapes(
    host: Loaded, config: TrainingConfig, class_word: str, subject: Tensor, mask: Tensor
) -> dict:
    """Returns all that shapes each step of a training, by content: text, numbers and hashes."""
    clip_skip = torch.tensor(0 if host.clip.layer_idx is None else host.clip.layer_idx)
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
        "arithmetic": ARITHMETIC,
    }


def loss_map(losses: Tensor, weight: float) -> dict[str, list[float]]:
    """Returns the host's LOSS_MAP of losses (steps, 2): "loss" is what was lowered, its two terms
    beside it.
    """
    denoising, attention = losses.double().unbind(dim=1)
    return {
        "loss": (denoising + weight * attention).tolist(),
        "denoising": denoising.tolist(),
        "attention": attention.tolist(),
    }
