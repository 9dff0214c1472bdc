"""MODEL and CLIP with weights that stay in place, whatever the host does with them.

Newer hosts stream weights through buffers that autograd would read after they were overwritten
(dynamic VRAM). Such models are read from their file once more for as long as a training lasts: a
copy has modules of its own, so that nothing of the first may be used beside it.
"""

__all__ = ["forget", "standing"]

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management as mm
import comfy.sd
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP

from ....sefi_core.errors import SettingsError
from .acting import read_parts


@contextmanager
def standing(model: ModelPatcher, clip: CLIP) -> Iterator[tuple[ModelPatcher, CLIP]]:
    """Yields MODEL and CLIP themselves, or copies of those that the host streams.

    Raises:
        SettingsError: One is streamed, and its loader has left no way to read it again.
    """
    text = clip.patcher
    for name, patcher in (("model", model), ("clip", text)):
        require_reader(name, patcher)
    overrides = read_once(model, text)
    copies = [copied(patcher, overrides) for patcher in (model, text)]
    if copies[1] is not text:
        clip = clip.clone()
        clip.patcher, clip.cond_stage_model = copies[1], copies[1].model
    pairs = [
        (copy, own) for copy, own in zip(copies, (model, text), strict=True) if copy is not own
    ]
    try:
        for copy, own in pairs:
            require_same("model" if own is model else "clip", copy, own)
        yield copies[0], clip
    finally:
        for copy, _ in pairs:
            forget(copy)


def is_streamed(patcher: ModelPatcher) -> bool:
    return getattr(patcher, "is_dynamic", bool)()


def require_reader(name: str, patcher: ModelPatcher) -> None:
    """Raises SettingsError if a model is streamed and cannot be read again."""
    if is_streamed(patcher) and patcher.cached_patcher_init is None:
        raise SettingsError(
            f"{name}: the node that loaded it keeps no way to read it again, which training needs "
            "while ComfyUI streams weights (dynamic VRAM); load it with Load Checkpoint, or start "
            "ComfyUI with --disable-dynamic-vram."
        )


def copied(patcher: ModelPatcher, overrides: dict[ModelPatcher, tuple]) -> ModelPatcher:
    """Returns a clone of a streamed model on modules of its own; any other model as it is."""
    if not is_streamed(patcher):
        return patcher
    made = {"model_override": overrides[patcher]} if patcher in overrides else {}
    copy = patcher.clone(disable_dynamic=True, **made)
    copy.is_injected, copy.hook_backup = False, {}  # of the first model's modules
    copy.injections = {
        key: [new for one in injections for new in rehung(one, copy)]
        for key, injections in copy.injections.items()
    }
    return copy


def rehung(injection: object, copy: ModelPatcher) -> list:
    """Returns an injection for a copy. The host's of bypass LoRAs know the first model's modules;
    what makes them is among what they have closed over.
    """
    inject = injection.inject
    held = inspect.getclosurevars(inject).nonlocals if inspect.isfunction(inject) else {}
    for maker in held.values():
        if hasattr(maker, "create_injections"):
            fresh = type(maker)()
            fresh.adapters = dict(maker.adapters)
            return fresh.create_injections(copy.model)
    return [injection]


def require_same(name: str, copy: ModelPatcher, own: ModelPatcher) -> None:
    """Raises SettingsError if a copy lacks what a node has changed in the first model's modules."""
    if read_parts(copy).digest != read_parts(own).digest:
        raise SettingsError(
            f"{name}: a node has changed parts of it in place, which a copy for training (dynamic "
            "VRAM) does not have; take that node out, or start ComfyUI with --disable-dynamic-vram."
        )


def read_once(model: ModelPatcher, text: ModelPatcher) -> dict[ModelPatcher, tuple]:
    """Returns what `clone` takes in place of a read of its own, where both models are streamed from
    one checkpoint: the host would read the file for each.
    """
    if not (is_streamed(model) and is_streamed(text)):
        return {}
    (reader, given, *_), (text_reader, text_given, *_) = (
        patcher.cached_patcher_init for patcher in (model, text)
    )
    whole = comfy.sd.load_checkpoint_guess_config
    if reader is not whole or text_reader is not getattr(
        comfy.sd, "load_checkpoint_clip_patcher", None
    ):
        return {}
    path, _, _, _, embeddings, _, *options = given
    if (path, embeddings, *options) != tuple(text_given):
        return {}
    names = ("model_options", "te_model_options")
    fresh, clip, *_ = whole(
        path,
        output_vae=False,
        embedding_directory=embeddings,
        disable_dynamic=True,
        **dict(zip(names, options, strict=True)),
    )
    return {
        model: fresh.get_clone_model_override(),
        text: clip.patcher.get_clone_model_override(),
    }


def forget(clone: ModelPatcher) -> None:
    """Takes a clone off the host's list of loaded models, and its object patches off the model."""
    for i in reversed(range(len(mm.current_loaded_models))):
        if mm.current_loaded_models[i].model is clone:
            mm.current_loaded_models.pop(i).model_finalizer.detach()
            clone.detach()
