"""Train SeFi Cast in the host: a folder of people and models in; their identities and sheet out."""

__all__ = ["asked_cast", "cast_state", "train_cast"]

from collections.abc import Collection, Sequence
from dataclasses import MISSING, fields
from pathlib import Path

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ....sefi_core.errors import SefiError, SettingsError, TrainingError
from ....sefi_core.identity.identity import Identity
from ....sefi_core.words import is_plain_name
from .. import folders
from ..identities.saving import is_saved, save_new_identity
from ..images import as_image
from ..page.cast_progress import CastProgress
from ..queued import refusal
from ..train.asked import asked_settings
from ..train.request import Request
from ..train.session import Session
from ..train.trainer import chosen_config
from .learning import Learned, Learning
from .people import (
    Person,
    connected_people,
    folder_below,
    folder_state,
    people_in,
    require_different,
)
from .sheet import contact_sheet

MOST_NAMED = 20  # people whose faults a note tells
OWN = {"image", "mask", "resume", "name", "caption", "node_id", "workflow"}
OF_PRESET = "steps learning_rate attention_loss attention_loss_weight stages tokens batch_size"
# What all people share of a training's inputs, where it may be left out.
DEFAULTS = {
    field.name: field.default
    for field in fields(Request)
    if field.default is not MISSING and field.name not in OWN
} | {"preview_every": 250}


def train_cast(
    *,
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    folder: str,
    images: Sequence[Tensor] = (),
    names: str = "",
    at_once: int = 0,
    node_id: str | None = None,
    workflow: dict | None = None,
    **settings: object,
) -> tuple[list[Identity], Tensor, dict]:
    """Trains everybody of a cast who is not finished yet, and saves each as they are done; returns
    the identities in the order of the people, their sheet, and the outcome for the panel.

    Arguments:
        images: IMAGEs, each of one picture or more.
        settings: Inputs of `Request` that all people share.

    Raises:
        TrainingError: Nobody could be trained.
    """
    people, left_out = people_of(folder, images, names)
    settings = DEFAULTS | settings
    config = chosen_config(settings["preset"], **{n: settings[n] for n in OF_PRESET.split()})
    session = Session(model, clip, vae, settings["dtype"], settings["gradient_checkpointing"])
    all_names = [person.name for person in people]
    found: dict[str, Learned] = {}
    with CastProgress(all_names, config.steps, config.stages, node_id, workflow) as progress:

        def keep(learned: Learned) -> None:
            found[learned.name] = learned
            if learned.identity is not None:
                save(learned, shelf_of(folder), progress, node_id)

        Learning(session, people, settings, at_once, progress, keep).of_all()
        identities = finish(all_names, found, left_out, progress)
    panel = {"sefi_training": [progress.training.outcome()]}
    return identities, contact_sheet(progress.training.people), panel


def people_of(folder: str, images: Sequence[Tensor], names: str) -> tuple[list[Person], list[str]]:
    """Returns everybody of a folder and of connected pictures, and the names of files that are
    nobody's; raises SettingsError if there is nobody.
    """
    people, left_out = [], []
    if folder.strip():
        root = folders.input_folder()
        people, left_out = people_in(folder_below(root, folder), root)
    if images:
        people += connected_people(images, names)
    if not people:
        raise SettingsError(
            "folder: it is empty, and no images are connected; write the name of a folder in "
            "input/ with a picture for each person, or connect images and write their names."
        )
    require_different([(person.name, person.name) for person in people])
    return people, left_out


def shelf_of(folder: str) -> str:
    """Returns the folder of models/sefi that a cast is saved in."""
    name = Path(folder.replace("\\", "/")).name
    return name if is_plain_name(name) else "cast"


def save(learned: Learned, shelf: str, progress: CastProgress, node_id: str | None) -> None:
    """Saves an identity unless its last file holds it already; a folder that takes no file is said,
    and costs nothing else.
    """
    prefix = f"{shelf}/{learned.name}"
    samples = learned.outcome.shown.samples
    cover = as_image(samples[-1:]) if len(samples) else None
    try:
        if not is_saved(learned.identity, prefix):
            save_new_identity(learned.identity, prefix, cover, learned.name, node_id=node_id)
    except SefiError as error:
        progress.say(f"{learned.name}: {error}")


def finish(
    names: Sequence[str], found: dict[str, Learned], left_out: Sequence[str], progress: CastProgress
) -> list[Identity]:
    """Ends what the panel shows of a cast and returns the identities, in the order of the names;
    raises TrainingError if there is not one.
    """
    require_somebody(found.values())
    kept = progress.keep_asked and any(name not in found for name in names)
    progress.finish("kept" if kept else "finished", told(names, found, left_out))
    done = (found[name].identity for name in names if name in found)
    return [identity for identity in done if identity is not None]


def require_somebody(found: Collection[Learned]) -> None:
    """Raises TrainingError if there is not one identity."""
    faults = [one.fault for one in found if one.fault]
    if faults and not any(one.identity for one in found):
        raise TrainingError(
            f"folder: nobody of {len(faults)} people could be trained (the first: {faults[0]}); "
            "see to that, and queue again."
        )


def told(names: Sequence[str], found: dict[str, Learned], left_out: Sequence[str]) -> str:
    """Returns what there is to say at the end: who is missing and why, and what was passed over."""
    faults = [f"{one.name}: {one.fault}" for one in found.values() if one.fault]
    notes = faults[:MOST_NAMED]
    if len(faults) > MOST_NAMED:
        notes.append(f"{len(faults) - MOST_NAMED} more could not be trained.")
    if missing := sum(name not in found for name in names):
        notes.append(f"{missing} were not begun; queue the cast again to go on.")
    if left_out:
        some = ", ".join(left_out[:MOST_NAMED])
        notes.append(f"Passed over, as they belong to nobody: {some}.")
    return "\n".join(notes)


def asked_cast(
    folder: str | None,
    class_word: str | None,
    resolution: int | None,
    training_prompts: str | None,
) -> bool | str:
    """Returns True, or the sentence with which a cast is refused before it is queued; None comes by
    a link.
    """
    answer = asked_settings(class_word, None, None, resolution, None, training_prompts)
    if answer is not True or not (folder or "").strip():
        return answer
    root = folders.input_folder()
    return refusal(lambda: people_in(folder_below(root, folder), root))


def cast_state(folder: str | None) -> tuple:
    """Returns what tells a folder's files from what they were."""
    try:
        return folder_state(folder_below(folders.input_folder(), folder or ""))
    except (SefiError, OSError):
        return ()
