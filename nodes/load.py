"""Load SeFi Embedding: an identity from a file."""

from comfy_api.v0_0_2 import io

from ..sefi_core.identity.file_format import load_identity
from .host import folders
from .host.queued import refusal
from .newer import found_by
from .sockets import CATEGORY, IdentitySocket


class LoadSeFiEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadSeFiEmbedding",
            display_name="Load SeFi Embedding",
            category=CATEGORY,
            **found_by("load identity", "face", "textual inversion", essentials=CATEGORY),
            description="Loads an identity from models/sefi, or a textual-inversion embedding as "
            "one.",
            inputs=[
                io.Combo.Input(
                    "embedding",
                    options=folders.identity_names(),
                    tooltip="A file in models/sefi, or one of your embeddings under textual "
                    "inversion/. Press R to see new files.",
                )
            ],
            outputs=[
                IdentitySocket.Output(
                    "identity", display_name="identity", tooltip="For Apply SeFi Conditioning."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, embedding: str | None = None, **_) -> tuple:
        return folders.file_state(embedding)

    @classmethod
    def validate_inputs(cls, embedding: str | None = None) -> bool | str:
        return refusal(lambda: embedding is None or folders.identity_path(embedding))

    @classmethod
    def execute(cls, embedding: str) -> io.NodeOutput:
        return io.NodeOutput(load_identity(folders.identity_path(embedding)))


NODES = [LoadSeFiEmbedding]
