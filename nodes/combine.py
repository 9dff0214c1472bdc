"""Combine and Blend SeFi Identities: several in one prompt, or mixed into one."""

from collections.abc import Mapping, Sequence

from comfy_api.v0_0_2 import io

from ..sefi_core.identity.edit import blend
from ..sefi_core.identity.group import combine, require_names
from .host.queued import connected_names, refusal
from .newer import found_by
from .sockets import CATEGORY, IdentitySocket

NAMES = ("<a>", "<b>", "<c>", "<d>")
NUMBERS = range(1, len(NAMES) + 1)


def numbered(inputs: Mapping[str, object], name: str, defaults: Sequence) -> list:
    """Returns inputs name_1, name_2 ...; a graph may leave the optional ones out."""
    return [inputs.get(f"{name}_{i}", default) for i, default in enumerate(defaults, 1)]


class CombineSeFiIdentities(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CombineSeFiIdentities",
            display_name="Combine SeFi Identities",
            category=CATEGORY,
            **found_by("several people", "two people"),
            description=(
                "Puts two to four identities into one prompt, each under a name of its own: a "
                "photo of <a> and <b> shaking hands. One Apply SeFi Conditioning serves them all."
            ),
            inputs=[
                *(
                    IdentitySocket.Input(
                        f"identity_{i}",
                        optional=i > 2,
                        tooltip=f"The identity that name_{i} stands for in the prompt. Three "
                        "alike in one picture tend to run together.",
                    )
                    for i in NUMBERS
                ),
                *(
                    io.String.Input(
                        f"name_{i}",
                        default=NAMES[i - 1],
                        optional=i > 2,
                        tooltip=f"What to write in the prompt for identity_{i}: one word, without "
                        "spaces or brackets ( ).",
                    )
                    for i in NUMBERS
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    "identity",
                    display_name="identity",
                    tooltip="All of them as one, for Apply SeFi Conditioning or Save SeFi "
                    "Embedding.",
                )
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        name_1: str | None = NAMES[0],
        name_2: str | None = NAMES[1],
        name_3: str | None = NAMES[2],
        name_4: str | None = NAMES[3],
    ) -> bool | str:
        names = {"name_1": name_1, "name_2": name_2, "name_3": name_3, "name_4": name_4}
        return refusal(lambda: require_names(connected_names(names).values()))

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        identities = numbered(inputs, "identity", [None] * len(NAMES))
        return io.NodeOutput(combine(identities, numbered(inputs, "name", NAMES)))


class BlendSeFiIdentities(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BlendSeFiIdentities",
            display_name="Blend SeFi Identities",
            category=CATEGORY,
            **found_by("mix identities", "average identities"),
            description=(
                "Mixes two to four identities into a new one, somebody between them. Only the "
                "shares count: 3 and 1 is three parts to one. Class word and placeholder are those "
                "of the first."
            ),
            inputs=[
                *(
                    IdentitySocket.Input(
                        f"identity_{i}",
                        optional=i > 2,
                        tooltip="One of those to mix. All must be of one checkpoint family.",
                    )
                    for i in NUMBERS
                ),
                *(
                    io.Float.Input(
                        f"{kind}_weight_{i}",
                        default=1.0,
                        min=0.0,
                        max=10.0,
                        step=0.05,
                        optional=i > 2,
                        tooltip=f"Share of identity_{i} in {effect}. Set its other weight alike "
                        "for a plain mix; 0 leaves it out.",
                    )
                    for i in NUMBERS
                    for kind, effect in (
                        ("key", "where the mixture acts in the picture (keys)"),
                        ("value", "what the mixture looks like (values)"),
                    )
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    "identity", display_name="identity", tooltip="The mixture: a single identity."
                )
            ],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        identities = numbered(inputs, "identity", [None] * len(NAMES))
        shares = [1.0] * len(NAMES)
        key_weights = numbered(inputs, "key_weight", shares)
        value_weights = numbered(inputs, "value_weight", shares)
        return io.NodeOutput(blend(identities, key_weights, value_weights))


NODES = [CombineSeFiIdentities, BlendSeFiIdentities]
