"""Train SeFi ID in the host: pictures and models in; identity, losses and previews out; nothing
left behind.
"""

__all__ = ["train_identity"]

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ...sefi_core.errors import SettingsError, TrainingError
from ...sefi_core.identity import Identity
from ...sefi_core.prompts import TRAINING_TEMPLATE
from ...sefi_core.training import (
    DEFAULT_LEARNING_RATE,
    PRESETS,
    Learner,
    StepReport,
    TrainingConfig,
    train,
)
from . import folders
from .backbone import HostBackbone, compute_dtype, trainable
from .fingerprint import hash_of_tensors
from .pictures import as_image, as_pil, encode_pool, sample_preview, square_pictures, stored_samples
from .progress import Progress, say
from .runs import Outcome, RunFiles, provenance
from .sampling import require_context_width, require_cross_attention
from .text import HostTextEncoder, token_widths

ARITHMETIC = 1  # raise it when results change: trainings finished before are then not reused
SDXL_SIDE, SD_SIDE = 1024, 512


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
    """Trains, or answers with the same training finished earlier; returns (identity, LOSS_MAP,
    IMAGE of previews).

    Arguments are the inputs of the node; `node_id` is where progress is shown.
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
    require_cross_attention(model)
    side = resolution or (SDXL_SIDE if "clip_g" in token_widths(clip) else SD_SIDE)
    subject, subject_mask = square_pictures(image, mask, side)
    folders.require_plain("name", name)
    numbers = compute_dtype(model, dtype)

    with trainable(model, clip.patcher, numbers) as (loaded, load):
        shaped_by = {
            **config.fingerprint(),
            "class_word": class_word,
            "prompt": TRAINING_TEMPLATE,
            "resolution": side,
            "dtype": str(numbers),
            "image": hash_of_tensors([("image", subject), ("mask", subject_mask)]),
            "model": hash_of_tensors(loaded.model.diffusion_model.state_dict().items()),
            "clip": hash_of_tensors([*clip.cond_stage_model.state_dict().items(), clip_skip(clip)]),
            "vae": hash_of_tensors(vae.first_stage_model.state_dict().items()),
            "arithmetic": ARITHMETIC,
        }
        files = RunFiles(name, shaped_by, {"steps": steps, "preview_every": preview_every})
        outcome = files.load_finished()
        if outcome is not None:
            say("Finished before: here is the result. Change train_seed to train anew.", node_id)
        else:
            encoder = HostTextEncoder(clip, class_word)
            require_context_width(model, encoder.reference().shape[-1])
            learner = Learner(encoder.class_tokens, config, scaled=numbers == torch.float16)
            if resume != folders.NO_CHECKPOINT:
                files.restore(learner, resume)
            pool = encode_pool(vae, loaded, subject, subject_mask, config, learner.device)
            load()
            backbone = HostBackbone(
                loaded, encoder.reference(config.batch_size), pool.latents[:1], numbers
            )

            def identity_so_far() -> Identity:
                metadata = provenance(shaped_by, learner.losses[: learner.step])
                return Identity(learner.pairs(), class_word=class_word, metadata=metadata)

            def preview() -> Tensor:
                try:
                    return sample_preview(
                        loaded, clip, vae, identity_so_far(), pool.latents[:1], train_seed
                    )
                finally:
                    load()

            outcome = drive(
                train(backbone, encoder, pool, learner), learner, files, identity_so_far, preview,
                preview_every, checkpoint_every, node_id,
            )  # fmt: skip

    identity = Identity(
        outcome.pairs, class_word=class_word, metadata=provenance(shaped_by, outcome.losses)
    )
    samples = (
        outcome.samples if len(outcome.samples) else stored_samples(subject[:1].movedim(1, -1))
    )
    return identity, loss_map(outcome.losses, attention_loss_weight), as_image(samples)


def chosen_config(preset: str, learning_rate: float, **settings) -> TrainingConfig:
    """Returns the preset with the node's settings; a learning rate left at the default preset's is
    each preset's own.
    """
    if preset not in PRESETS:
        raise SettingsError(f'preset: "{preset}" is unknown; choose one of {", ".join(PRESETS)}.')
    if learning_rate != DEFAULT_LEARNING_RATE:
        settings["learning_rate"] = learning_rate
    return replace(PRESETS[preset], **settings)


def clip_skip(clip: CLIP) -> tuple[str, Tensor]:
    """Returns the CLIP's layer as a tensor to hash: it shapes the contexts like a weight."""
    return "clip_skip", torch.tensor(0 if clip.layer_idx is None else clip.layer_idx)


def drive(
    reports: Iterator[StepReport],
    learner: Learner,
    files: RunFiles,
    identity_so_far: Callable[[], Identity],
    preview: Callable[[], Tensor],
    preview_every: int,
    checkpoint_every: int,
    node_id: str | None,
) -> Outcome:
    """Runs a training to its end and keeps its outcome; whatever stops it first leaves a checkpoint
    to resume.
    """
    previews = []
    progress = Progress(learner.config.steps, learner.step, node_id)
    try:
        for report in reports:
            progress.step(report)
            if preview_every and report.step % preview_every == 0:
                previews.append(preview())
                progress.picture(report.step, as_pil(previews[-1]))
            if (
                checkpoint_every
                and report.step % checkpoint_every == 0
                and report.step < learner.config.steps
            ):
                files.save_checkpoint(learner, identity_so_far())
    except TrainingError:
        raise  # the state is no longer worth keeping; the last checkpoint is
    except BaseException:
        if learner.step:
            so_far = files.save_checkpoint(learner, identity_so_far())
            say(
                f"Stopped at step {learner.step}; the identity so far is {so_far}. Choose it in resume.",
                node_id,
            )
        raise
    samples = torch.cat(previews) if previews else torch.zeros(0, 1, 1, 3, dtype=torch.uint8)
    outcome = Outcome(learner.pairs(), learner.losses.cpu(), samples)
    files.save_finished(outcome)
    return outcome


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
