"""Load Miniature World: a toy checkpoint for tests and demos, never shipped to artists.

Link this folder into ComfyUI's `custom_nodes`. The pack's own `nodes/` must not be seen as the
host's `nodes`, so the pack's root does not go on the path: `benchmarks.world` is loaded by place.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from comfy_api.latest import ComfyExtension, io

WORLD = Path(__file__).resolve().parents[1]
ALIAS = "sefi_miniature_world"


def world() -> ModuleType:
    """Returns the package `benchmarks.world` under a name of its own."""
    if ALIAS not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            ALIAS, WORLD / "__init__.py", submodule_search_locations=[str(WORLD)]
        )
        sys.modules[ALIAS] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[ALIAS])
    return sys.modules[ALIAS]


class LoadMiniatureWorld(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadMiniatureWorld",
            display_name="Load Miniature World",
            category="sefi/development",
            description="A toy checkpoint, trained on a small drawn world: 64 x 64 pictures.",
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=sorted(path.name for path in WORLD.glob("miniature*.safetensors")),
                    default="miniature.safetensors",
                    optional=True,
                ),
                io.Int.Input(
                    "scale",
                    default=0,
                    min=0,
                    max=8,
                    optional=True,
                    tooltip="Divides Stable Diffusion's noise levels; 0: as the file has learned.",
                ),
            ],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, checkpoint: str = "miniature.safetensors", scale: int = 0) -> io.NodeOutput:
        loader = importlib.import_module(f"{world().__name__}.load")
        return io.NodeOutput(*loader.load(WORLD / checkpoint, scale or None))


class EmptyMiniatureLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyMiniatureLatent",
            display_name="Empty Miniature Latent",
            category="sefi/development",
            description="Latents of 64 x 64 pictures, as Empty Latent Image makes at 128 x 128.",
            inputs=[io.Int.Input("batch_size", default=1, min=1, max=256)],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, batch_size: int = 1) -> io.NodeOutput:
        return io.NodeOutput({"samples": torch.zeros(batch_size, 16, 16, 16)})


class MiniatureWorld(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadMiniatureWorld, EmptyMiniatureLatent]


async def comfy_entrypoint() -> MiniatureWorld:
    return MiniatureWorld()
