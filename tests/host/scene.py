"""An artist's graph around one sampler, with or without an identity in its prompt, and a record of
what reached the UNet.
"""

__all__ = ["NEGATIVE", "STEPS", "Chunk", "Scene"]

from dataclasses import dataclass, field, replace
from pathlib import Path

import comfy_extras.nodes_custom_sampler as custom
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.sd import CLIP, VAE
from safetensors.torch import save_file
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.sefi_core.identity.identity import Identity
from torch import Tensor

import nodes

TEXT = "a photo of V* in a garden"
NEGATIVE = "blurry, low quality"
STEPS, CFG, SEED = 2, 4.0, 3


@dataclass(frozen=True)
class Chunk:
    """One conditioning's rows in one model call: contexts and model output, (tiles, B, ...).

    Attributes:
        batch: All rows of that call.
    """

    sigma: float
    batch: int
    mine: bool
    keys: Tensor
    values: Tensor | None
    output: Tensor


@dataclass(frozen=True)
class Scene:
    """One family's models, and who stands in the prompt: an identity, or (None) the class word.

    Attributes:
        calls: What reached the UNet in the last sampling, chunk by chunk.
        own_list: Which of the lists that a sampler compares holds the prompt.
    """

    family: str
    model: ModelPatcher
    clip: CLIP
    vae: VAE
    identity: Identity | None = None
    calls: list[Chunk] = field(default_factory=list)
    own_list: int = 0

    def prompt(self, model: ModelPatcher | None = None, clip: CLIP | None = None, text: str = TEXT):
        """Returns (MODEL, CONDITIONING), from Apply SeFi Conditioning if there is an identity."""
        model, clip = model or self.model, clip or self.clip
        if self.identity is None:
            return model, self.plain(text.replace("V*", "person"), clip)
        return apply_identity(model, clip, self.identity, text)

    def plain(self, text: str = NEGATIVE, clip: CLIP | None = None):
        return nodes.CLIPTextEncode().encode(clip or self.clip, text)[0]

    def latent(self, batch: int = 1, side: int = 64):
        return nodes.EmptyLatentImage().generate(side, side, batch)[0]

    def ksample(
        self,
        model,
        positive,
        negative=None,
        latent=None,
        sampler="euler",
        denoise=1.0,
        compiled=False,
    ):
        torch.manual_seed(0)  # some nodes draw from the global generator
        return nodes.KSampler().sample(
            self.watched(model, with_values=not compiled),
            SEED,
            STEPS,
            CFG,
            sampler,
            "normal",
            positive,
            negative or self.plain(),
            latent or self.latent(),
            denoise,
        )[0]["samples"]

    def advanced(self, guider, sigmas, latent=None, noise=None):
        """Samples with SamplerCustomAdvanced; the guider's model must be `watched`."""
        torch.manual_seed(0)
        noise = noise or custom.RandomNoise.execute(SEED)[0]
        sampler = custom.KSamplerSelect.execute("euler")[0]
        latent = latent or self.latent()
        return custom.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent)[0]

    def schedule(self, model):
        return custom.BasicScheduler.execute(model, "normal", STEPS, 1.0)[0]

    def watched(self, model: ModelPatcher, with_values: bool = True) -> ModelPatcher:
        """Returns a clone whose model calls are recorded, after all else has been done to them."""
        own: set = set()
        seen: list[Tensor] = []

        def note_run(executor, guider, *args, **kwargs):
            entries = [entry for entries in guider.original_conds.values() for entry in entries]
            own.update(entry["uuid"] for entry in entries if "sefi" in entry)
            return executor(guider, *args, **kwargs)

        def note_value(n, context, value, extra_options):
            seen.append(value)
            return n, context, value

        def note_call(executor, x, t, c_concat, c_crossattn, control, options, **kwargs):
            seen.clear()
            output = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
            layout = (-1, len(options["uuids"]), len(options["sigmas"]))
            tensors = (c_crossattn, seen[0] if seen else None, output)
            parts = [x if x is None else x.unflatten(0, layout) for x in tensors]
            self.calls.extend(
                Chunk(
                    float(t[0]),
                    len(x),
                    uuid in own and index == self.own_list,
                    *(part if part is None else part[:, i] for part in parts),
                )
                for i, (uuid, index) in enumerate(
                    zip(options["uuids"], options["cond_or_uncond"], strict=True)
                )
            )
            return output

        self.calls.clear()
        clone = model.clone()
        clone.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "watch", note_run)
        clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "watch", note_call)
        if with_values:
            clone.set_model_attn2_patch(note_value)
        return clone

    def file(self, folder: str, suffix: str) -> Path:
        """Returns where a file of this family is in one of the host's model folders."""
        name = self.family.replace(" ", "_").replace(".", "_")
        path = Path(folder_paths.get_folder_paths(folder)[0]) / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def lora(self) -> str:
        """Returns the name of a seeded LoRA on every weight matrix of attention, UNet and CLIP."""
        path = self.file("loras", "safetensors")
        if not path.is_file():
            generator = torch.Generator().manual_seed(4)
            weights = self.model.model.state_dict() | {
                f"text_encoders.{name}": weight
                for name, weight in self.clip.cond_stage_model.state_dict().items()
            }
            tensors = {}
            for name, weight in weights.items():
                if weight.ndim == 2 and ("attn" in name) and name.endswith(".weight"):
                    base, (out, into) = name.removesuffix(".weight"), weight.shape
                    up = torch.randn(out, 2, generator=generator)
                    down = torch.randn(2, into, generator=generator)
                    tensors[f"{base}.lora_up.weight"] = up * 0.3
                    tensors[f"{base}.lora_down.weight"] = down * into**-0.5
            save_file(tensors, path)
        return path.name

    def listed(self, index: int) -> "Scene":
        """Returns the scene for a sampler that holds the prompt in another of its lists."""
        return replace(self, own_list=index)
