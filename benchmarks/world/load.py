"""The miniature as ComfyUI's own objects: `load()` gives what a checkpoint loader gives.

A `ModelPatcher` around a `BaseModel`, a `comfy.sd.CLIP` with the SD 1.x tokenizer and all 49,408
token rows, and a `comfy.sd.VAE` around the patch transform, 4 pixels to a latent. The stock
Empty Latent Image divides by 8, so 128 x 128 there gives a 64 x 64 picture here.
"""

__all__ = ["load"]

from pathlib import Path

import comfy.model_management as management
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from .files import MINIATURE, Checkpoint, read
from .model import LATENT_CHANNELS, TEXT_CONFIG, TOKEN_WIDTH, base_model
from .patches import PATCH, Patches
from .subjects import KINDS, named


class PatchAutoencoder(nn.Module):
    """The patch transform with the methods the host calls on an autoencoder."""

    def __init__(self, patches: Patches) -> None:
        super().__init__()
        for name, tensor in patches.tensors().items():
            self.register_buffer(name, tensor)

    def encode(self, pictures: Tensor) -> Tensor:
        """Returns latents (B, C, h, w) of pictures (B, 3, 4h, 4w) in [-1, 1]."""
        return Patches(self.mean, self.basis, self.scale).encode(pictures)

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pictures (B, 3, 4h, 4w) of latents (B, C, h, w)."""
        return Patches(self.mean, self.basis, self.scale).decode(latents)


class MiniatureVAE(comfy.sd.VAE):
    """The host's VAE around the patch transform: made by the host as its own VAE without weights,
    then given the transform and what it is.
    """

    def __init__(self, patches: Patches) -> None:
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)
        self.first_stage_model = PatchAutoencoder(patches)
        self.downscale_ratio = self.upscale_ratio = PATCH
        self.latent_channels = LATENT_CHANNELS
        self.memory_used_encode = self.memory_used_decode = lambda shape, _: 64 * shape.numel()
        self.disable_offload = False
        self.size = None  # of the model before
        offload = management.vae_offload_device()
        self.patcher = ModelPatcher(self.first_stage_model, self.device, offload)
        self.model_size()


class MiniatureTokenizer(comfy.sd1_clip.SDTokenizer):
    """CLIP's tokenizer; `embedding:name` files must be as wide as the miniature's rows."""

    def __init__(self, **options: object) -> None:
        super().__init__(embedding_size=TOKEN_WIDTH, **options)


def load(
    path: Path | str = MINIATURE, scale: int | None = None
) -> tuple[ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """Loads a miniature as MODEL, CLIP and VAE, on the schedule of a scale or else its own."""
    checkpoint = read(Path(path))
    patches = Patches(**checkpoint.part("patches"))
    model = load_model(checkpoint, patches, scale or checkpoint.scale)
    return model, load_clip(checkpoint), MiniatureVAE(patches)


def load_model(checkpoint: Checkpoint, patches: Patches, scale: int) -> ModelPatcher:
    """Returns the diffusion model on a schedule, with factors for the host's latent previews."""
    model = base_model(scale)
    model.diffusion_model.load_state_dict(checkpoint.part("unet"))
    model.latent_format.latent_rgb_factors = patches.rgb_factors().tolist()
    model.latent_format.latent_rgb_factors_bias = (
        patches.mean.unflatten(0, (3, -1)).mean(1).tolist()
    )
    device, offload = management.get_torch_device(), management.unet_offload_device()
    return ModelPatcher(model.requires_grad_(False), device, offload)


def load_clip(checkpoint: Checkpoint) -> comfy.sd.CLIP:
    """Returns the text encoder; token rows that the file leaves out read as filler words.

    Names that the world has given since the file was written get the rows that are theirs.
    """
    target = comfy.supported_models_base.ClipTarget(
        comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel
    )
    clip = comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        tokenizer_data={"clip_l_tokenizer_class": MiniatureTokenizer},
        model_options={"clip_l_model_config": TEXT_CONFIG, "dtype": torch.float32},
    )
    transformer = clip.cond_stage_model.clip_l.transformer
    rows = torch.stack([checkpoint.row(word) for word in checkpoint.card["fillers"]]).mean(dim=0)
    table = rows.repeat(transformer.get_input_embeddings().num_embeddings, 1)  # (49408, E)
    table[checkpoint.tensors["tokens.ids"].long()] = checkpoint.tensors["tokens.rows"]
    for kind in KINDS:
        for name, subject in named(kind).items():
            if name not in checkpoint.card["words"]:
                _, (token, *_), *_ = clip.tokenize(name)["l"][0]
                table[token] = checkpoint.subject_row(subject)
    state = checkpoint.part("text")
    state["text_model.embeddings.token_embedding.weight"] = table
    transformer.load_state_dict(state)
    return clip
