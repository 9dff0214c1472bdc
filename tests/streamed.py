"""Models that the host streams (dynamic VRAM), on the CPU: the host's own patcher wherever it has
one, and one that clones as it does elsewhere.
"""

__all__ = ["streamed_clip", "streamed_model"]

from types import SimpleNamespace

import comfy.model_patcher
import seeded
import torch
from comfy.model_patcher import ModelPatcher

CPU = torch.device("cpu")


class Elsewhere(ModelPatcher):
    """A streamed patcher on a host that has none: told not to stream, it reads its file again."""

    cached_patcher_init = None

    def is_dynamic(self):
        return True

    def clone(self, disable_dynamic=False, model_override=None):
        if not disable_dynamic:
            made = super().clone()
            made.cached_patcher_init = self.cached_patcher_init
            return made
        if model_override is None:
            reader, given = self.cached_patcher_init
            model_override = override_of(reader(*given, disable_dynamic=True))
        kept = self.model, self.backup, self.object_patches_backup, self.pinned
        own, self.__class__ = self.__class__, ModelPatcher
        self.model, self.backup, self.object_patches_backup, self.pinned = model_override
        try:
            return ModelPatcher.clone(self)
        finally:
            self.__class__ = own
            self.model, self.backup, self.object_patches_backup, self.pinned = kept


def override_of(patcher):
    return patcher.model, patcher.backup, patcher.object_patches_backup, patcher.pinned


if hasattr(comfy.model_patcher, "ModelPatcherDynamic"):
    import comfy_aimdo.host_buffer

    class Streamed(comfy.model_patcher.ModelPatcherDynamic):
        """The host's own, which leaves CPUs to another class and pins memory of cards."""

        def __new__(cls, *_, **__):
            return object.__new__(cls)

        def partially_unload(self, device, memory_to_free=0, force_patch_weights=False):
            return self.restore_loaded_backups()

    class NoBuffer(SimpleNamespace):
        """Pinned memory, of which a CPU has none."""

        def __init__(self, *_):
            super().__init__(size=0)

    comfy_aimdo.host_buffer.HostBuffer = NoBuffer
else:
    Streamed = Elsewhere


class Reader:
    """A loader of seeded models that counts how often it reads."""

    def __init__(self, make):
        self.make, self.reads, self.made = make, 0, []

    def __call__(self, seed, disable_dynamic=False):
        self.reads += 1
        return self.make(seed)


def streamed(patcher, reader, seed):
    """Returns a patcher on the same modules that the host streams."""
    made = Streamed(patcher.model, CPU, CPU)
    made.object_patches = dict(patcher.object_patches)
    made.force_cast_weights, made.is_clip = patcher.force_cast_weights, patcher.is_clip
    made.cached_patcher_init = (reader, (seed,))
    return made


def streamed_model(seed=0):
    """Returns (MODEL, what reads it again)."""
    reader = Reader(lambda seed: seeded.tiny_model(seed=seed))
    return streamed(reader.make(seed), reader, seed), reader


def streamed_clip(seed=1):
    """Returns (CLIP, what reads its patcher again)."""
    reader = Reader(lambda seed: seeded.tiny_clip(seed=seed).patcher)
    clip = seeded.tiny_clip(seed=seed)
    clip.patcher = streamed(clip.patcher, reader, seed)
    return clip, reader
