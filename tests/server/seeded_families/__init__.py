"""Load Seeded Family: small models of the real widths, made from a seed; for tests alone.

The UNets are weights only, which the host's own loader must recognise. The text encoders have the
real widths and three layers: the host's loader takes them whole or not at all, and a whole CLIP-G
takes minutes to train with on a processor.
"""

import importlib.util
from pathlib import Path

import comfy.sd
import comfy.supported_models as supported
import torch
from comfy import sdxl_clip
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import sd2_clip
from comfy_api.latest import ComfyExtension, io

SEEDED = Path(__file__).resolve().parents[2] / "seeded.py"
spec = importlib.util.spec_from_file_location("seeded_for_server", SEEDED)
seeded = importlib.util.module_from_spec(spec)
spec.loader.exec_module(seeded)

WIDE = {"model_channels": 320, "num_head_channels": 64}
SD2 = {
    "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 1, 1, 1],
    "transformer_depth": [1, 0, 1, 0, 0, 0, 0, 0], "transformer_depth_output": [1] + [0] * 11,
    "context_dim": 1024,
}  # fmt: skip
SDXL = {  # of the family, the layout with fewest layers: KOALA 700M
    "num_res_blocks": [1, 1, 1], "channel_mult": [1, 1, 1], "transformer_depth": [0, 2, 5],
    "transformer_depth_output": [0, 0, 1, 1, 1, 1], "context_dim": 2048, "adm_in_channels": 2816,
}  # fmt: skip
CLIPS = {
    "SD 2.x": (sd2_clip.SD2Tokenizer, sd2_clip.SD2ClipModel),
    "SDXL": (sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLClipModel),
}
# By this the host tells SD 2.x checkpoints that predict velocity from those that predict noise.
VELOCITY_MARK = "output_blocks.11.1.transformer_blocks.0.norm1.bias"


def load_model(family: str) -> tuple:
    if family == "SDXL":
        made = seeded.tiny_sdxl(**WIDE, **SDXL)
    else:
        made = seeded.tiny_sd2(**{**WIDE, **SD2})
    weights = made.model.diffusion_model.state_dict()
    if family == "SD 2.x v":
        weights[VELOCITY_MARK] = torch.linspace(-0.3, 0.3, 320)
    model = comfy.sd.load_diffusion_model_state_dict(weights)
    expected = supported.KOALA_700M if family == "SDXL" else supported.SD20
    if type(model.model.model_config) is not expected:
        raise TypeError(f"the host took {family} for {type(model.model.model_config).__name__}")
    return model


def load_clip(family: str) -> comfy.sd.CLIP:
    names = ("clip_l", "clip_g", "clip_h")
    shallow = {f"{name}_model_config": {"num_hidden_layers": 3} for name in names}
    clip = comfy.sd.CLIP(ClipTarget(*CLIPS[family.removesuffix(" v")]), model_options=shallow)
    seeded.seed_weights(clip.cond_stage_model, 1)
    return clip


class LoadSeededFamily(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadSeededFamily",
            display_name="Load Seeded Family",
            category="sefi/development",
            inputs=[io.Combo.Input("family", options=["SD 2.x", "SD 2.x v", "SDXL"])],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, family: str) -> io.NodeOutput:
        return io.NodeOutput(load_model(family), load_clip(family), seeded.seeded_vae())


class SeededFamilies(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadSeededFamily]


async def comfy_entrypoint() -> SeededFamilies:
    return SeededFamilies()
