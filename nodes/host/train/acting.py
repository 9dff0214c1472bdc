"""What acts in a training, by content: weights, and all that nodes have hung on MODEL and CLIP.

It is read off the models as they are connected, loaded or not, without touching them. A training
runs the UNet's and the text encoder's own modules, so patches of attention, wrappers and hooks of
conditionings, which the host brings in while it samples, do not act. Weights that are never read,
as SD 1.x's text projection, which no file holds, do not act either.
"""

__all__ = ["Read", "read_clip", "read_model", "read_parts", "read_tokens", "read_vae"]

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor, nn

from ....sefi_core.families import SDXL
from ..text.encoder import text_encoders
from ..text.layers import layers_read
from .content import Content, kind_of

CALLBACKS = ("on_load_after", "on_inject_model")  # those that a training comes by
APART = ("model_sampling", "manual_cast_dtype")  # read by what they do
Acts = Callable[[str], bool]


@dataclass(frozen=True)
class Read:
    """A hash, and the kinds of things that it could not read."""

    digest: str
    unread: frozenset[str] = frozenset()


def read_model(model: ModelPatcher) -> Read:
    """Returns what acts of a MODEL but for its noise levels."""
    latents = vars(model.model.latent_format)
    return read(
        model, lambda name: name.startswith("diffusion_model."), kind_of(model.model), latents
    )


def read_tokens(*tokens: dict) -> Read:
    """Returns what a CLIP's tokenizer made of the prompts."""
    content = Content({})
    content.add(*tokens)
    return Read(content.hexdigest(), frozenset(content.unread))


def read_clip(clip: CLIP) -> Read:
    """Returns what acts of a CLIP but for its tokenizer."""
    encoders = text_encoders(clip)
    reach = {name: layers_read(encoder, clip.layer_idx) for name, encoder in encoders.items()}

    def acts(name: str) -> bool:
        encoder, _, part = name.partition(".transformer.")
        return encoder in reach and is_read(part, *reach[encoder], pooled=encoder == SDXL.pooled)

    return read(clip.patcher, acts, reach)


def is_read(part: str, count: int, normed: bool, pooled: bool) -> bool:
    """Returns whether a weight of a text model is read.

    Arguments:
        count, normed: How many layers the context goes through, and whether a norm follows.
        pooled: Whether the pooled vector is read too; only SDXL's second encoder's is.
    """
    if layer := part.partition("text_model.encoder.layers.")[2]:
        return pooled or int(layer.partition(".")[0]) < count
    if part.startswith("text_model.final_layer_norm."):
        return pooled or normed
    return part.startswith("text_model.") or (pooled and part.startswith("text_projection"))


def read_vae(vae: VAE) -> Read:
    return read(vae.patcher, lambda _: True)


def read_parts(patcher: ModelPatcher) -> Read:
    """Returns what nodes have hung on the model of a MODEL or a CLIP, or changed in its modules."""

    def acts(name: str) -> bool:
        return name.startswith("diffusion_model.") or ".transformer." in name

    return read(patcher, acts, weights=False)


def read(patcher: ModelPatcher, acts: Acts, *beside: object, weights: bool = True) -> Read:
    """Returns the hash of what acts of a patcher's model, with patches and the like.

    Arguments:
        acts: Whether a weight or module of this name is ever read.
        beside: What else counts.
        weights: Whether the model's own do.
    """
    with ejected(patcher):
        modules = dict(own_modules(patcher))
        content = Content({id(module): name for name, module in modules.items()})
        content.add(*beside)
        for name, module in sorted(modules.items()):
            if acts(f"{name}."):
                facts = facts_of(module) if name else ()  # the host keeps its accounts on the whole
                content.add(name, kind_of(module), module.extra_repr(), *facts)
        for name, tensor, dtype in own_tensors(patcher, modules) if weights else ():
            if acts(name):
                content.put(name)
                content.add_tensor(tensor, dtype)
        content.add(*hung_on(patcher, acts))
    return Read(content.hexdigest(), frozenset(content.unread))


@contextmanager
def ejected(patcher: ModelPatcher) -> Iterator[None]:
    """Takes injections out of the modules, that of another clone which is loaded too."""
    loaded = [one.model for one in mm.current_loaded_models]
    clones = {id(p): p for p in (patcher, *loaded) if p is not None and patcher.is_clone(p)}
    with ExitStack() as stack:
        for clone in clones.values():
            stack.enter_context(clone.use_ejected())
        yield


def own_modules(patcher: ModelPatcher) -> Iterator[tuple[str, nn.Module]]:
    """Yields the model's own modules by name, not those put in their place."""
    for name, former in patcher.object_patches_backup.items():
        if isinstance(former, nn.Module):
            yield from ((f"{name}.{n}".rstrip("."), m) for n, m in former.named_modules())
    for name, module in patcher.model.named_modules():
        if not is_below(name, patcher.object_patches_backup):
            yield name, module


def own_tensors(
    patcher: ModelPatcher, modules: dict[str, nn.Module]
) -> Iterator[tuple[str, Tensor, torch.dtype | None]]:
    """Yields every weight of the model's own modules by name as it is without patches, and the
    dtype that the model has it in once it is loaded.
    """
    kept = {name: backup[0] for name, backup in patcher.hook_backup.items()}
    kept |= getattr(patcher, "backup_buffers", {})
    kept |= {name: backup.weight for name, backup in patcher.backup.items()}
    kept |= patcher.object_patches_backup
    for place, module in sorted(modules.items()):
        for own, tensor in sorted((module._parameters | module._buffers).items()):
            name = f"{place}.{own}".lstrip(".")
            if tensor is not None or name in kept:
                dtype = getattr(module, f"{own}_comfy_model_dtype", None)
                yield name, kept.get(name, tensor), dtype


def is_below(name: str, places: dict) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def facts_of(module: nn.Module) -> Iterator[object]:
    """Yields what changes a module's forward beside its weights: plain numbers, functions put in
    place of its own, hooks.
    """
    for name, value in sorted(vars(module).items()):
        if name[:1] == "_" or "comfy" in name or name in ("training", "seed_key"):
            continue
        if isinstance(value, bool | int | float | str):
            yield name, value
        elif callable(value) and not isinstance(value, type) and not is_own(module, value):
            yield name, value
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        yield list(hooks.values())


def is_own(module: nn.Module, function: Callable) -> bool:
    """Whether a function in a module's attributes is a method of its class that was put back."""
    own = getattr(type(module), getattr(function, "__name__", ""), None)
    return getattr(function, "__self__", None) is module and function.__func__ is own


def hung_on(patcher: ModelPatcher, acts: Acts) -> Iterator[object]:
    """Yields what nodes have hung on a patcher, where it acts."""
    for name, patches in sorted(patcher.patches.items()):
        if acts(name):
            yield name, patches
    for name, functions in sorted(getattr(patcher, "weight_wrapper_patches", {}).items()):
        if acts(name):
            yield name, functions
    for name, value in sorted(patcher.object_patches.items()):
        if name not in APART:
            yield name, value
    yield dict(patcher.injections)
    for hook in patcher.forced_hooks.hooks if patcher.forced_hooks else ():
        yield hook.strength, patcher.hook_patches.get(hook.hook_ref, {})
    for kind in CALLBACKS:
        yield dict(patcher.callbacks.get(kind, {}))
