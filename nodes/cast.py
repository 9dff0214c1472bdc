"""Train SeFi Cast: a folder of people becomes their identities."""

from comfy_api.v0_0_2 import io

from .host.cast.caster import asked_cast, cast_state, train_cast
from .lists import first, given
from .newer import FOLDED, found_by
from .sockets import CATEGORY, IdentitySocket, Text
from .train import TrainSeFiID

TRAIN = {part.id: part for part in TrainSeFiID.define_schema().inputs}


class TrainSeFiCast(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TrainSeFiCast",
            display_name="Train SeFi Cast",
            category=CATEGORY,
            **found_by("cast", "people", "batch training", "folder of faces", "many characters"),
            description=(
                "Learns everybody of a folder, several at once, each from a picture or from a "
                "sub-folder of pictures. Identities are saved to models/sefi as they are done; "
                "who was learned before is not learned again."
            ),
            inputs=[
                *(TRAIN[name] for name in ("model", "clip", "vae")),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="A folder in ComfyUI's input folder. Each picture in it is a person, "
                    "and so is each sub-folder of pictures; their names are the files'. Beside "
                    "anna.png may lie anna.txt, what else is in the picture, and anna.mask.png, "
                    "white where she is.",
                ),
                *(TRAIN[name] for name in ("class_word", "steps", "learning_rate", "preset")),
                *(TRAIN[name] for name in ("attention_loss_weight", "train_seed")),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="People beside those of the folder, or in its place: a batch or a list "
                    "of pictures, one a person.",
                ),
                io.String.Input(
                    "names",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Names of the people in images, one on each line, in their order.",
                ),
                *(TRAIN[name] for name in ("stages", "attention_loss", "batch_size")),
                *(TRAIN[name] for name in ("resolution", "dtype")),
                io.Int.Input(
                    "preview_every",
                    default=250,
                    min=0,
                    max=100000,
                    optional=True,
                    tooltip="Sample a picture of each person every so many steps. 0: never.",
                ),
                TRAIN["checkpoint_every"],
                TRAIN["gradient_checkpointing"],
                TRAIN["training_prompts"],
                TRAIN["tokens"],
                io.Int.Input(
                    "at_once",
                    default=0,
                    min=0,
                    max=256,
                    optional=True,
                    **FOLDED,
                    tooltip="How many people learn at once. 0: as many as memory allows.",
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    "identities",
                    display_name="identities",
                    is_output_list=True,
                    tooltip="A list: what follows runs once for each person, in the order of their "
                    "names.",
                ),
                io.Image.Output(
                    "contact_sheet",
                    display_name="contact_sheet",
                    tooltip="Everybody in one picture, under their names.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            is_input_list=True,  # a list of images is one cast
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        folder: list[Text] | None = None,
        class_word: list[Text] | None = None,
        resolution: list[int | None] | None = None,
        training_prompts: list[Text] | None = None,
    ) -> bool | str:
        return asked_cast(*map(first, (folder, class_word, resolution, training_prompts)))

    @classmethod
    def fingerprint_inputs(cls, folder: list[Text] | None = None, **_) -> tuple:
        return cast_state(first(folder))

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        place = {"node_id": cls.hidden.unique_id, "workflow": cls.hidden.extra_pnginfo}
        *outputs, panel = train_cast(**given(inputs, "images", "names"), **place)
        return io.NodeOutput(*outputs, ui=panel)


NODES = [TrainSeFiCast]
