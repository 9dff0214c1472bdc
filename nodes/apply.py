"""Apply SeFi Conditioning: an identity in a prompt."""

from comfy_api.v0_0_2 import io

from .host.apply.sampling import apply_identity
from .host.queued import refusal, require_placeholder
from .newer import FOLDED, found_by
from .sockets import CATEGORY, IdentitySocket


class ApplySeFiConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ApplySeFiConditioning",
            display_name="Apply SeFi Conditioning",
            category=CATEGORY,
            **found_by(
                "identity prompt", "face prompt", "CLIP Text Encode", "V*", essentials=CATEGORY
            ),
            description=(
                "Encodes a prompt with the identity where V* stands. Connect BOTH outputs to the "
                "sampler: without the model, the picture shows the class word."
            ),
            inputs=[
                io.Model.Input(
                    "model", tooltip="Any checkpoint of the family the identity was trained on."
                ),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                IdentitySocket.Input(
                    "identity", tooltip="From Load SeFi Embedding or Train SeFi ID."
                ),
                io.String.Input(
                    "text",
                    default="a photo of V*",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The prompt; V* stands for the identity and already is the noun: a "
                    "photo of V* in the garden. Weights such as (V*:1.2) work.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-1.0,
                    max=3.0,
                    step=0.05,
                    optional=True,
                    tooltip="1: the identity as learned. 0: exactly the plain picture of the "
                    "class word. Above 1 exaggerates.",
                ),
                io.Float.Input(
                    "key_strength",
                    default=1.0,
                    min=-1.0,
                    max=3.0,
                    step=0.05,
                    optional=True,
                    tooltip="Strength of where the identity acts in the picture, on top of "
                    "strength. Lower it when the prompt is not followed.",
                ),
                io.Float.Input(
                    "value_strength",
                    default=1.0,
                    min=-1.0,
                    max=3.0,
                    step=0.05,
                    optional=True,
                    tooltip="Strength of what the identity looks like, on top of strength.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    optional=True,
                    tooltip="When the identity starts. Before, the class word stands in: 0.2 "
                    "leaves the layout free.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    optional=True,
                    tooltip="When the identity ends. After, the class word stands in.",
                ),
                io.String.Input(
                    "placeholder",
                    default="",
                    optional=True,
                    **FOLDED,
                    tooltip="The word that stands for the identity in the text. Empty: the "
                    "identity's own, V*.",
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=16384,
                    optional=True,
                    **FOLDED,
                    tooltip="SDXL only: the width that the picture is said to have had, as in CLIP "
                    "Text Encode (SDXL). 0: the latent's own.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=16384,
                    optional=True,
                    **FOLDED,
                    tooltip="SDXL only: the height that the picture is said to have had. 0: the "
                    "latent's own.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "applied_model",
                    display_name="model",
                    tooltip="To the sampler; LoRAs may follow.",
                ),
                io.Conditioning.Output(
                    "conditioning",
                    display_name="conditioning",
                    tooltip="To the sampler's positive.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, text: str | None = None, placeholder: str | None = "") -> bool | str:
        return refusal(lambda: require_placeholder(text, placeholder))

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        return io.NodeOutput(*apply_identity(**inputs))


NODES = [ApplySeFiConditioning]
