"""Evaluate SeFi ID: likeness, detection and prompt following as numbers."""

from comfy_api.v0_0_2 import io, ui

from .host.queued import refusal
from .host.scores.evaluate import evaluate, require_recogniser
from .host.scores.faces import RECOGNISERS, recognisers_state
from .newer import FOLDED, found_by
from .sockets import CATEGORY, IdentitySocket

NUMBERS = {
    "id_score": ("ID", "How alike the faces are, mean cosine; a picture without a face counts 0."),
    "id_face_score": ("ID(F)", "ID of the pictures in face_images."),
    "detect": ("Detect", "Share of the pictures with a face."),
    "prompt_score": ("Prompt", "How well the pictures follow the prompt, mean CLIP cosine."),
    "id_prompt_score": ("ID(P)", "ID with 0 for pictures that do not follow the prompt."),
}


class EvaluateSeFiID(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EvaluateSeFiID",
            display_name="Evaluate SeFi ID",
            category=CATEGORY,
            **found_by("face similarity", "likeness score", "CLIP score"),
            description=(
                "Scores generated pictures as the paper does: how alike the face is, how often "
                "there is one, and whether the prompt was followed. It uses what you have and "
                "downloads nothing: faces need a recogniser (see the help page), the prompt a "
                "CLIP Vision."
            ),
            inputs=[
                io.Image.Input("images", tooltip="The generated pictures, all of one prompt."),
                io.Image.Input(
                    "reference",
                    tooltip="The subject: the training picture, or better other photos of it.",
                ),
                io.String.Input(
                    "text",
                    default="a photo of V*",
                    multiline=True,
                    tooltip="The prompt of the pictures; V* is read as the class word.",
                ),
                io.Image.Input(
                    "face_images",
                    optional=True,
                    tooltip="Pictures of the prompt 'a photo of the face of V*', for ID(F).",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="For Prompt: from Load CLIP Vision, of the same CLIP model as clip.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="For Prompt: the matching text encoder. SD 1.x checkpoints lack a "
                    "part of it; take clip_l from Load CLIP there.",
                ),
                IdentitySocket.Input(
                    "identity",
                    optional=True,
                    tooltip="Needed only if its placeholder is not V* or its class word not "
                    "person.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.23,
                    min=-1.0,
                    max=1.0,
                    step=0.005,
                    optional=True,
                    **FOLDED,
                    tooltip="Below this Prompt a picture counts 0 in ID(P). The paper's value is "
                    "0.23; other CLIP models need another.",
                ),
                io.Combo.Input(
                    "recogniser",
                    options=["auto", *RECOGNISERS, "none"],
                    default="auto",
                    optional=True,
                    **FOLDED,
                    tooltip="What compares faces. auto: the first that is there.",
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
                io.Image.Output("table", display_name="table", tooltip="All of it as a picture."),
                io.String.Output(
                    "report", display_name="report", tooltip="All of it as Markdown tables."
                ),
                *(
                    io.Float.Output(id, display_name=name, tooltip=f"{tip} nan: not measured.")
                    for id, (name, tip) in NUMBERS.items()
                ),
                io.Int.Output(
                    "near_copies",
                    display_name="near copies",
                    tooltip="How many pictures are nearly a reference picture itself.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> tuple[str, ...]:
        return recognisers_state()

    @classmethod
    def validate_inputs(cls, recogniser: str | None = None) -> bool | str:
        return refusal(lambda: recogniser is None or require_recogniser(recogniser))

    @classmethod
    def execute(cls, recogniser: str = "auto", **inputs) -> io.NodeOutput:
        table, *others = evaluate(**inputs, recogniser_choice=recogniser)
        return io.NodeOutput(table, *others, ui=ui.PreviewImage(table, cls=cls))


NODES = [EvaluateSeFiID]
