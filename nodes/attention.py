"""Attention maps: record them while sampling, draw them over the finished picture."""

from comfy_api.v0_0_2 import io, ui

from .host.maps.attention import watch_attention
from .host.maps.view import draw_attention
from .host.maps.words import split_words
from .host.queued import refusal
from .newer import FOLDED, found_by
from .sockets import CATEGORY, AttentionSocket, IdentitySocket


class SeFiAttentionMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SeFiAttentionMap",
            display_name="SeFi Attention Map",
            category=CATEGORY,
            **found_by("cross-attention heatmap", "DAAM"),
            description=(
                "Records where each word of the prompt acts while the picture is sampled. The "
                "picture stays the same to the last bit. Draw SeFi Attention Map shows it."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model as it would go to the sampler: after Apply SeFi "
                    "Conditioning and any LoRA. SD 1.x, SD 2.x or SDXL.",
                ),
                io.Int.Input(
                    "stages",
                    default=5,
                    min=1,
                    max=50,
                    optional=True,
                    tooltip="Into how many equal phases of denoising the maps are parted. 5 are "
                    "the stages of an identity by default.",
                ),
            ],
            outputs=[
                io.Model.Output("watched_model", display_name="model", tooltip="To the sampler."),
                AttentionSocket.Output(
                    "recorded",
                    display_name="recording",
                    tooltip="To Draw SeFi Attention Map. The sampler fills it.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        return io.NodeOutput(*watch_attention(**inputs, node_id=cls.hidden.unique_id))


class DrawSeFiAttentionMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DrawSeFiAttentionMap",
            display_name="Draw SeFi Attention Map",
            category=CATEGORY,
            **found_by("cross-attention heatmap", "DAAM"),
            description=(
                "Draws where chosen words acted over the finished picture, on the whole and stage "
                "by stage, and says how much of a word lies inside a mask."
            ),
            inputs=[
                AttentionSocket.Input("recording", tooltip="From SeFi Attention Map."),
                io.Latent.Input(
                    "samples",
                    tooltip="The LATENT of the sampler that used the watched model, as it came "
                    "out: it tells which sampling to draw.",
                ),
                io.Image.Input("image", tooltip="The finished pictures: that latent, decoded."),
                io.Clip.Input("clip", tooltip="The text encoder that encoded the prompt."),
                io.String.Input(
                    "text",
                    default="a photo of V*",
                    multiline=True,
                    tooltip="The prompt that was sampled, the same text as in Apply SeFi "
                    "Conditioning (or CLIP Text Encode).",
                ),
                io.String.Input(
                    "words",
                    default="V*",
                    tooltip="Which words to show, with commas between them: V*, red hat. At most "
                    "16.",
                ),
                IdentitySocket.Input(
                    "identity",
                    optional=True,
                    tooltip="Needed only if its placeholder is not V* or takes several tokens.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the first word should act, of the picture's size. The "
                    "node then says which share of it lies there.",
                ),
                io.Float.Input(
                    "opacity",
                    default=0.6,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="How much the colours cover the picture.",
                ),
                io.Int.Input(
                    "prompt_number",
                    default=1,
                    min=1,
                    max=64,
                    optional=True,
                    **FOLDED,
                    tooltip="Which prompt, if several were combined: 1 is the first input of the "
                    "first Conditioning (Combine).",
                ),
                io.String.Input(
                    "placeholder",
                    default="",
                    optional=True,
                    **FOLDED,
                    tooltip="Needed only if Apply SeFi Conditioning was given one. Empty: the "
                    "identity's own, V*.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "overlays",
                    display_name="overlay",
                    tooltip="One picture for each picture and word: dark blue is little, pale "
                    "yellow the most of that word in that picture.",
                ),
                io.Image.Output(
                    "by_stage",
                    display_name="by stage",
                    tooltip="One sheet for each picture: a row for each word, a column for each "
                    "stage.",
                ),
                io.Mask.Output(
                    "heat",
                    display_name="heat",
                    tooltip="The same maps as masks from 0 to 1, one for each picture and word.",
                ),
                io.Float.Output(
                    "share_in_mask",
                    display_name="share in mask",
                    tooltip="Which share of the first word's attention lies inside the mask, the "
                    "mean over the pictures; nan without a mask.",
                ),
                io.String.Output(
                    "report", display_name="report", tooltip="All numbers as a Markdown table."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, words: str | None = None) -> bool | str:
        return refusal(lambda: words is None or split_words(words))

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        overlays, *others = draw_attention(**inputs)
        return io.NodeOutput(overlays, *others, ui=ui.PreviewImage(overlays, cls=cls))


NODES = [SeFiAttentionMap, DrawSeFiAttentionMap]
