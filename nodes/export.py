"""Export SeFi as Textual Inversion: an identity for people without this pack."""

from comfy_api.v0_0_2 import io

from ..sefi_core.identity.edit import AXES
from ..sefi_core.identity.identity import Identity
from .host.identities.saving import require_export, save_new_embedding
from .host.queued import refusal
from .newer import found_by
from .sockets import CATEGORY, IdentitySocket


class ExportSeFiAsTextualInversion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExportSeFiAsTextualInversion",
            display_name="Export SeFi as Textual Inversion",
            category=CATEGORY,
            **found_by("save embedding", "textual inversion"),
            description=(
                "Writes the identity into models/embeddings as an ordinary embedding, for any "
                "prompt and for other programs. It is weaker than the identity: one vector, the "
                "mean of all stages."
            ),
            inputs=[
                IdentitySocket.Input("identity", tooltip="A single identity."),
                io.String.Input(
                    "filename_prefix",
                    default="my_identity",
                    tooltip="Name of the embedding, without spaces. If it is taken, a number is "
                    "added. A / makes a sub-folder.",
                ),
                io.Combo.Input(
                    "tokens",
                    options=list(reversed(AXES)),
                    default="values",
                    optional=True,
                    tooltip="Which of the identity's tokens to average. values: what it looks "
                    "like. keys: where it acts.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "prompt",
                    display_name="prompt",
                    tooltip="What to write in a prompt: embedding: and the name.",
                )
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, filename_prefix: str | None = None, tokens: str | None = None
    ) -> bool | str:
        return refusal(lambda: require_export(filename_prefix, tokens))

    @classmethod
    def execute(
        cls, identity: Identity, filename_prefix: str, tokens: str = "values"
    ) -> io.NodeOutput:
        prompt, line = save_new_embedding(identity, filename_prefix, tokens, cls.hidden.unique_id)
        return io.NodeOutput(prompt, ui={"text": (line,), "sefi_saved": (line,)})


NODES = [ExportSeFiAsTextualInversion]
