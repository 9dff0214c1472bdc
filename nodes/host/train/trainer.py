"""Train SeFi ID in the host: pictures and models in; identity, losses and previews out; nothing
left behind.
"""

__all__ = ["asked_config", "chosen_config", "train_identity", "what_shapes"]

import math
from dataclasses import replace

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ....sefi_core.errors import SettingsError, one_line
from ....sefi_core.identity.identity import Identity
from ....sefi_core.training.config import PRESETS, TrainingConfig
from ..fingerprint import hash_of_tensors
from ..images import as_image, stored_samples
from ..page.progress import Progress
from .files import RunFiles, begun_with, identity_of
from .pictures import dimmed
from .request import Request
from .run import learned
from .session import Session

ARITHMETIC = 3  # raise it when results change: trainings finished before are then not reused


def train_identity(
    *, model: ModelPatcher, clip: CLIP, vae: VAE, **inputs: object
) -> tuple[Identity, dict, Tensor, dict]:
    """Trains, or answers with the same training finished earlier.

    Arguments:
        inputs: Those of the node, and where progress is shown (`Request`).

    Returns:
        The identity, the host's LOSS_MAP, an IMAGE of the previews, and the outcome for the node's
        panel.
    """
    request = Request(**inputs)
    session = Session(model, clip, vae, request.dtype, request.gradient_checkpointing)
    pictures, masks = request.pictures(session.own_side)
    config = asked_config(session, request, pictures, masks)
    config = config.with_fair_selection() if request.fresh else begun_with(config, request.resume)
    with Progress(config.steps, config.stages, request.node_id, request.workflow) as progress:
        progress.reference(dimmed(pictures, masks))
        shaped_by = what_shapes(session, config, request, pictures, masks)
        files = RunFiles(request.name, shaped_by, {"steps": config.steps})
        outcome = files.load_finished()
        if outcome is None:
            with session.borrowed() as host:
                outcome = learned(host, request, config, (pictures, masks), files, progress)
        else:
            progress.go_on(outcome.losses, outcome.shown.stages, outcome.shown.samples)
            progress.finish(
                "finished", "Finished before: here is the result. Change train_seed to train anew."
            )
    identity = identity_of(shaped_by, outcome.pairs, outcome.losses)
    losses = loss_map(outcome.losses, config.attention_loss_weight)
    samples = outcome.shown.samples
    shown = samples if len(samples) else stored_samples(pictures[:1].movedim(1, -1))
    return identity, losses, as_image(shown), {"sefi_training": [progress.training.outcome()]}


def asked_config(
    session: Session, request: Request, pictures: Tensor, masks: Tensor
) -> TrainingConfig:
    """Returns the settings that an artist asks for, as pictures (B, 3, R, R), masks (B, 1, R, R)
    and the models change them.
    """
    config = request.for_pictures(chosen_config(request.preset, **request.settings), masks)
    return session.for_latents(config, pictures.shape[-1])


def chosen_config(preset: str, **settings) -> TrainingConfig:
    """Returns the preset with the node's settings."""
    if preset not in list(PRESETS):
        raise SettingsError(
            f'preset: "{one_line(str(preset))}" is unknown; choose one of {", ".join(PRESETS)}.'
        )
    return replace(PRESETS[preset], **settings)


def what_shapes(
    session: Session, config: TrainingConfig, request: Request, pictures: Tensor, masks: Tensor
) -> dict:
    """Returns all that shapes each step of a training, by content: text, numbers and hashes."""
    settings = config.fingerprint()
    if config.attention_loss == "off":
        del settings["attention_loss_weight"]
    vectors = settings.pop("tokens")  # files have called the text's so from the first
    return {
        **settings,
        **({"vectors": vectors} if vectors > 1 else {}),
        "class_word": request.class_word,
        **request.wording.recorded,
        "resolution": pictures.shape[-1],
        "dtype": str(session.numbers),
        "image": hash_of_tensors([("image", pictures), ("mask", masks)]),
        **session.fingerprint(request.class_word, request.wording.prompts, vectors),
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
