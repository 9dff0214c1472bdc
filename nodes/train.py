"""Train SeFi ID: a picture becomes an identity."""

from comfy_api.v0_0_2 import io

from ..sefi_core.training.config import ATTENTION_SCOPES, PRESETS
from .host import folders
from .host.train.asked import asked_settings
from .host.train.borrowing import DTYPES
from .host.train.request import Request
from .host.train.trainer import train_identity
from .newer import FOLDED, found_by
from .sockets import CATEGORY, IdentitySocket, Text

DEFAULT = PRESETS["default"]


class TrainSeFiID(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TrainSeFiID",
            display_name="Train SeFi ID",
            category=CATEGORY,
            **found_by(
                "face",
                "likeness",
                "person",
                "subject",
                "dreambooth",
                "textual inversion",
                essentials=CATEGORY,
            ),
            description=(
                "Learns one person (or pet, or thing) from one picture, for use in any prompt. "
                "The checkpoint is not changed. Cancel keeps what was learned so far."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="An SD 1.x, SD 2.x or SDXL checkpoint, with its LoRAs if you like.",
                ),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                io.Image.Input(
                    "image",
                    tooltip="One picture of the subject, or several of the same one. Crop to "
                    "head and shoulders; a border of one colour is cut off, and the largest "
                    "square around the middle (or around the mask) is used.",
                ),
                io.String.Input(
                    "class_word",
                    default="person",
                    tooltip="What the subject is, in one word: person, dog, car. The identity "
                    "starts from this word and it stands in wherever the identity does not "
                    "act.",
                ),
                io.Int.Input(
                    "steps",
                    default=DEFAULT.steps,
                    min=1,
                    max=100000,
                    tooltip="Training steps. The preset default is made for 1000, as the paper's: "
                    "in the first 480 five candidates for a start learn, of which the weakest "
                    "drop out, then every stage goes on from the best. With fewer steps both "
                    "parts are shorter and the likeness weaker.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=DEFAULT.learning_rate,
                    min=0.0,
                    max=1.0,
                    step=1e-6,
                    tooltip="How far each step moves. The paper's value is "
                    "0.005; lower it if the pictures become harsh.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="default",
                    tooltip="default: the paper's method, begun from the best of five candidates, "
                    "with the subject alone learned. paper: the paper's recipe, to compare; for "
                    "its letter also set attention_loss_weight to 0.003 and attention_loss to "
                    "all tokens. Expect it to be less stable.",
                ),
                io.Float.Input(
                    "attention_loss_weight",
                    default=DEFAULT.attention_loss_weight,
                    min=0.0,
                    max=1000.0,
                    step=0.0001,
                    tooltip="How strongly the attention loss keeps the identity from taking over "
                    "the rest of the prompt. Lower: closer likeness, less obedient prompts. "
                    "Higher: the reverse. The paper's value, for all tokens, is 0.003.",
                ),
                io.Int.Input(
                    "train_seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    tooltip="The same seed, picture and settings give the same identity. Change "
                    "it to train anew.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the subject is: only that is learned, and the crop is "
                    "centred on it. Without one, a picture's alpha channel serves, or else the "
                    "model finds the subject by itself. All white: the whole picture counts.",
                ),
                io.Int.Input(
                    "stages",
                    default=Request.stages,
                    min=1,
                    max=50,
                    optional=True,
                    **FOLDED,
                    tooltip="How many phases of denoising get a token pair of their own, from "
                    "layout to detail. The paper's value is 5.",
                ),
                io.Combo.Input(
                    "attention_loss",
                    options=list(ATTENTION_SCOPES),
                    default=Request.attention_loss,
                    optional=True,
                    **FOLDED,
                    tooltip="Which words of the training prompt the attention loss watches, so "
                    "that prompts are not ignored later. all tokens, the paper's choice, at a "
                    "weight of 0.003: more obedience, a little less likeness. off: the reverse.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=Request.batch_size,
                    min=1,
                    max=1024,
                    optional=True,
                    **FOLDED,
                    tooltip="Samples per step. More is steadier, slower and needs more memory. "
                    "The paper's value is 1.",
                ),
                io.Int.Input(
                    "resolution",
                    default=Request.resolution,
                    min=0,
                    max=4096,
                    step=64,
                    optional=True,
                    **FOLDED,
                    tooltip="Side of the training pictures in pixels. 0: the model's own size.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=["auto", *DTYPES],
                    default=Request.dtype,
                    optional=True,
                    **FOLDED,
                    tooltip="Number format of the model while training. auto: its own, or bf16 "
                    "in place of fp16 where the card has it.",
                ),
                io.Int.Input(
                    "preview_every",
                    default=Request.preview_every,
                    min=0,
                    max=100000,
                    optional=True,
                    tooltip="Sample a picture with the identity so far every so many steps. 0: "
                    "never.",
                ),
                io.Int.Input(
                    "checkpoint_every",
                    default=Request.checkpoint_every,
                    min=0,
                    max=100000,
                    optional=True,
                    **FOLDED,
                    tooltip="Save the running training every so many steps. 0: only when it is "
                    "stopped.",
                ),
                io.Combo.Input(
                    "resume",
                    options=folders.checkpoint_names(),
                    default=Request.resume,
                    optional=True,
                    tooltip="A stopped training to go on with, exactly as if it had not been "
                    "stopped. Picture and settings must be the same. Press R to see new "
                    "ones.",
                ),
                io.String.Input(
                    "name",
                    default=Request.name,
                    optional=True,
                    **FOLDED,
                    tooltip="Names the checkpoints of this training in output/sefi.",
                ),
                io.Boolean.Input(
                    "gradient_checkpointing",
                    default=Request.gradient_checkpointing,
                    optional=True,
                    **FOLDED,
                    tooltip="Much less memory, slower steps, the same result: parts of the model "
                    "are computed twice instead of remembered. Turn it on when memory runs out.",
                ),
                io.String.Input(
                    "caption",
                    default=Request.caption,
                    multiline=True,
                    optional=True,
                    tooltip="What else is in the photo, so that it is not learned as the subject: "
                    "wearing a red hat, at the beach. One line for all pictures, or one for each, "
                    "- where there is nothing to say.",
                ),
                io.String.Input(
                    "training_prompts",
                    default=Request.training_prompts,
                    multiline=True,
                    optional=True,
                    tooltip="What the picture is called while it is learned, with V* for the "
                    "subject; of several lines one is drawn each time. Say what the picture shows. "
                    "Empty: a photo of the face of V* for a person, man, girl and the like, a "
                    "photo of V* for all else; write the face for an animal's close-up, too. For "
                    "checkpoints that speak tags: best quality, V*, solo.",
                ),
                io.Int.Input(
                    "tokens",
                    default=Request.tokens,
                    min=1,
                    max=8,
                    optional=True,
                    **FOLDED,
                    tooltip="Vectors that stand for the subject in each stage. The paper's value "
                    "is 1. More hold more detail, take as much room in every prompt, and follow "
                    "prompts less.",
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    "identity",
                    display_name="identity",
                    tooltip="For Apply SeFi Conditioning and Save SeFi Embedding.",
                ),
                io.LossMap.Output(
                    "loss_map",
                    display_name="loss_map",
                    tooltip="The losses of every step, for Plot Loss Graph. With the preset "
                    "default the denoising loss is higher once a start is selected, from where on "
                    "less noisy pictures are learned from too, and single steps that see noise "
                    "alone stand out.",
                ),
                io.Image.Output(
                    "samples",
                    display_name="samples",
                    tooltip="The previews, oldest first; the cropped picture if none was made.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            is_output_node=True,  # its panel is worth running it for, whatever is connected
        )

    @classmethod
    def validate_inputs(
        cls,
        class_word: Text = None,
        name: Text = None,
        resume: Text = None,
        resolution: int = 0,
        caption: Text = None,
        training_prompts: Text = None,
    ) -> bool | str:
        return asked_settings(class_word, name, resume, resolution, caption, training_prompts)

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        place = {"node_id": cls.hidden.unique_id, "workflow": cls.hidden.extra_pnginfo}
        *outputs, panel = train_identity(**inputs, **place)
        return io.NodeOutput(*outputs, ui=panel)


NODES = [TrainSeFiID]
