"""Save SeFi Embedding: an identity into a file to keep and share."""

from comfy_api.v0_0_2 import io

from ..sefi_core.identity.identity import Identity
from .host.folders import new_identity_path
from .host.identities.saving import save_new_identity
from .host.queued import refusal
from .newer import found_by
from .sockets import CATEGORY, IdentitySocket


class SaveSeFiEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveSeFiEmbedding",
            display_name="Save SeFi Embedding",
            category=CATEGORY,
            **found_by("save identity", "export identity", essentials=CATEGORY),
            description="Writes the identity into models/sefi as a small .safetensors and never "
            "overwrites one.",
            inputs=[
                IdentitySocket.Input("identity", tooltip="From Train SeFi ID."),
                io.String.Input(
                    "filename_prefix",
                    default="my_identity",
                    tooltip="Name of the file; a number is added. A / makes a sub-folder.",
                ),
                io.Image.Input(
                    "thumbnail",
                    optional=True,
                    tooltip="The cover shown in browsers. Use a generated picture: whoever gets "
                    "the file sees it.",
                ),
                io.String.Input(
                    "title", default="", optional=True, tooltip="A title for browsers."
                ),
                io.String.Input("author", default="", optional=True, tooltip="Who made it."),
                io.String.Input(
                    "notes",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Anything to remember.",
                ),
                io.Boolean.Input(
                    "include_source_hash",
                    default=True,
                    optional=True,
                    tooltip="Keep a fingerprint of the training picture in the file. It shows "
                    "that two files come from one picture; the picture cannot be recovered "
                    "from it.",
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    "saved_identity", display_name="identity", tooltip="The same identity."
                )
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        return refusal(lambda: filename_prefix is None or new_identity_path(filename_prefix))

    @classmethod
    def execute(cls, identity: Identity, **inputs) -> io.NodeOutput:
        written = save_new_identity(identity, **inputs, node_id=cls.hidden.unique_id)
        return io.NodeOutput(identity, ui={"text": (written,), "sefi_saved": (written,)})


NODES = [SaveSeFiEmbedding]
