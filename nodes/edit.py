"""Edit SeFi Identity: keys and values, stage by stage."""

from comfy_api.v0_0_2 import io

from ..sefi_core.identity.edit import SOURCES, edit, require_edit
from .host.queued import refusal
from .newer import found_by
from .sockets import CATEGORY, IdentitySocket


class EditSeFiIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EditSeFiIdentity",
            display_name="Edit SeFi Identity",
            category=CATEGORY,
            **found_by("swap keys and values", "stages of an identity"),
            description=(
                "Changes keys and values of chosen stages: hand a stage back to the class word, "
                "take it from a second identity, or swap keys and values. The first stages shape "
                "the layout, the last ones the detail."
            ),
            inputs=[
                IdentitySocket.Input("identity", tooltip="The identity to change a copy of."),
                io.Combo.Input(
                    "keys",
                    options=list(SOURCES["keys"]),
                    default="keep",
                    tooltip="What the keys of the chosen stages become; they say where the "
                    "identity acts in the picture. class word: there it no longer acts. values: "
                    "its own values (set values to keys as well and the two are swapped).",
                ),
                io.Combo.Input(
                    "values",
                    options=list(SOURCES["values"]),
                    default="keep",
                    tooltip="What the values of the chosen stages become; they say what the "
                    "identity looks like. class word: there it looks like anyone. keys: its own "
                    "keys.",
                ),
                io.String.Input(
                    "stages",
                    default="all",
                    tooltip="Which stages change: all, or numbers such as 1, 1-2 or 1,4-5. Stage 1 "
                    "comes first and shapes the layout; the last one draws the detail.",
                ),
                IdentitySocket.Input(
                    "second_identity",
                    optional=True,
                    tooltip="Where the choice second identity takes keys or values from.",
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    "edited_identity",
                    display_name="identity",
                    tooltip="The changed identity, for Apply SeFi Conditioning, another edit or "
                    "Save SeFi Embedding.",
                )
            ],
        )

    @classmethod
    def validate_inputs(
        cls, keys: str | None = None, values: str | None = None, stages: str | None = None
    ) -> bool | str:
        return refusal(lambda: require_edit(keys, values, stages))

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        return io.NodeOutput(edit(**inputs))


NODES = [EditSeFiIdentity]
