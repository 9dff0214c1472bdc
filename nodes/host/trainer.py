"""Train SeFi ID in the host: pictures and models in; identity, losses and previews out; nothing
left behind.
"""

__all__ = ["train_identity"]

from collections.abc import Callable
from dataclasses import dataclass, replace

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
    LatentPool,
    Learner,
    TrainingConfig,
    train,
)
from . import folders
from .backbone import HostBackbone, compute_dtype, own_side, require_trainable, trainable
from .fingerprint import hash_of_tensors
from .pictures import as_image, as_pil, encode_pool, sample_preview, square_pictures, stored_samples
from .progress import Progress, say
from .runs import Outcome, RunFiles, provenance
from .sampling import require_context_width
from .text import HostTextEncoder

ARITHMETIC = 1  # raise it when results change: trainings finished before are then not reused


@dataclass(frozen=True)
class Loaded:
    """The host's models while a training borrows them; `load` puts them back in place after a preview."""

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    numbers: torch.dtype
    load: Callable[[], None]


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
                say(f"{class_word} is several tokens; it starts at their mean.", node_id)
            learner = Learner(encoder.class_tokens, config, scaled=numbers == torch.float16)
            if resume != folders.NO_CHECKPOINT:
                files.restore(learner, resume)
            pool = encode_pool(vae, loaded, subject, subject_mask, config, learner.device)
            run = Run(host, encoder, learner, pool, files, class_word, node_id)
            outcome = run.to_the_end(preview_every, checkpoint_every)
        else:
            say("Finished before: here is the result. Change train_seed to train anew.", node_id)

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


@dataclass(frozen=True)
class Run:
    """A training under way."""

    host: Loaded
    encoder: HostTextEncoder
    learner: Learner
    pool: LatentPool
    files: RunFiles
    class_word: str
    node_id: str | None

    def to_the_end(self, preview_every: int, checkpoint_every: int) -> Outcome:
        """Takes every step and keeps the outcome; what stops it first leaves a checkpoint to resume."""
        self.host.load()
        learner, previews = self.learner, []
        steps = learner.config.steps
        reference = self.encoder.reference(learner.config.batch_size)
        backbone = HostBackbone(
            self.host.model, reference, self.pool.latents[:1], self.host.numbers
        )
        progress = Progress(steps, learner.step, self.node_id)
        try:
            for report in train(backbone, self.encoder, self.pool, learner):
                progress.step(report)
                if preview_every and report.step % preview_every == 0:
                    previews.append(self.preview())
                    progress.picture(report.step, as_pil(previews[-1]))
                if checkpoint_every and report.step % checkpoint_every == 0 and report.step < steps:
                    self.files.save_checkpoint(learner, self.identity_so_far())
        except TrainingError:
            raise  # the state is no longer worth keeping; the last checkpoint is
        except BaseException:
            if learner.step:
                so_far = self.files.save_checkpoint(learner, self.identity_so_far())
                say(
                    f"Stopped at step {learner.step}. To go on, press R and choose "
                    f"{self.files.checkpoint.name} in resume; the identity so far is {so_far}.",
                    self.node_id,
                )
            raise
        samples = torch.cat(previews) if previews else torch.zeros(0, 1, 1, 3, dtype=torch.uint8)
        outcome = Outcome(learner.pairs(), learner.losses.cpu(), samples)
        self.files.save_finished(outcome)
        return outcome

    def identity_so_far(self) -> Identity:
        metadata = provenance(self.files.shaped_by, self.learner.losses[: self.learner.step])
        return Identity(self.learner.pairs(), class_word=self.class_word, metadata=metadata)

    def preview(self) -> Tensor:
        """Samples a picture with the identity so far; returns it in 8 bits, (1, H, W, 3)."""
        host, seed = self.host, self.learner.config.seed
        try:
            return sample_preview(
                host.model, host.clip, host.vae, self.identity_so_far(), self.pool.latents[:1], seed
            )
        finally:
            host.load()


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
