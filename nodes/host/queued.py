"""What a node can tell when a prompt is queued, long before it runs.

The host asks a node with its own constants alone, a link being None, and marks every input that is
asked about. What else stands in the prompt is noted as the server receives it.
"""

__all__ = [
    "connected_names",
    "note",
    "own_inputs",
    "refusal",
    "require_choice",
    "require_placeholder",
]

import math
from collections.abc import Callable, Collection
from contextvars import ContextVar

from comfy_execution.utils import get_executing_context

from ...sefi_core.errors import IdentityFileError, SefiError, SettingsError, one_line
from ...sefi_core.identity.container import load_header
from ...sefi_core.identity.metadata import PLACEHOLDER, texts_of_members
from ...sefi_core.prompts import DEFAULT_PLACEHOLDER, placeholders_in
from ...sefi_core.words import cleaned
from . import folders

COMBINED = {f"identity_{i}": (f"name_{i}", f"<{'abcd'[i - 1]}>") for i in range(1, 5)}
PASSED_ON = {"SaveSeFiEmbedding": "identity", "EditSeFiIdentity": "identity"}
FARTHEST = 32  # nodes

noted: ContextVar[dict | None] = ContextVar("sefi_queued", default=None)


def note(request: dict) -> dict:
    """Notes what a client queues, for the checks that follow in the same task; returns it as it
    is.
    """
    prompt = request.get("prompt") if isinstance(request, dict) else None
    noted.set(prompt if isinstance(prompt, dict) else {})
    return request


def refusal(check: Callable[[], object]) -> bool | str:
    """Returns True, or the sentence with which a check refuses: what the host asks for."""
    try:
        require_finite(own_inputs())
        check()
    except SefiError as error:
        return str(error)
    return True


def require_finite(inputs: dict) -> None:
    """Raises SettingsError for a number that is none: the host lets NaN through its limits."""
    for name, value in inputs.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"{name}: it is {value}; set a number within its limits.")


def require_choice(field: str, value: str, known: Collection[str]) -> None:
    """Raises SettingsError for a choice that there is not; older hosts check none."""
    if value not in list(known):
        raise SettingsError(
            f'{field}: "{one_line(value)}" is unknown; choose one of {", ".join(known)}.'
        )


def own_inputs() -> dict:
    """Returns the inputs of the node that is asked; none outside of a server."""
    context = get_executing_context()
    return inputs_of(context.node_id) if context else {}


def inputs_of(node: str) -> dict:
    inputs = node_of(node).get("inputs")
    return inputs if isinstance(inputs, dict) else {}


def node_of(id: str) -> dict:
    """Returns a node of the prompt as it was received; an empty one if there is none."""
    node = (noted.get() or {}).get(id)
    return node if isinstance(node, dict) else {}


def require_placeholder(text: str | None, placeholder: str | None) -> None:
    """Raises PromptError for a text without its placeholder, as far as the prompt tells; None comes
    by a link.
    """
    if text is None or placeholder is None:
        return
    name = cleaned(str(placeholder))
    if names := [name] if name else placeholders_of("identity"):
        placeholders_in(str(text), names)


def connected_names(names: dict[str, str | None]) -> dict[str, str]:
    """Returns those names of Combine SeFi Identities, by input, whose identity is connected; where
    the prompt does not tell, the two that must be.
    """
    inputs = own_inputs()
    links = {
        name for identity, (name, _) in COMBINED.items() if isinstance(inputs.get(identity), list)
    }
    links = links or {"name_1", "name_2"}
    return {name: text for name, text in names.items() if name in links and text is not None}


def placeholders_of(name: str = "identity") -> list[str]:
    """Returns the placeholders of the identity that is connected to an input of the node that is
    asked; none where the prompt does not tell.
    """
    link = own_inputs().get(name)
    for _ in range(FARTHEST):
        if not isinstance(link, list) or not link:
            return []
        kind, inputs = node_of(str(link[0])).get("class_type"), inputs_of(str(link[0]))
        if kind not in PASSED_ON:
            return own_placeholders(str(kind), inputs)
        link = inputs.get(PASSED_ON[kind])
    return []


def own_placeholders(kind: str, inputs: dict) -> list[str]:
    """Returns the placeholders that a node gives an identity; none if it cannot be told."""
    if kind in ("TrainSeFiID", "TrainSeFiCast"):
        return [DEFAULT_PLACEHOLDER]
    if kind == "LoadSeFiEmbedding":
        return placeholders_in_file(inputs.get("embedding"))
    if kind == "CombineSeFiIdentities":
        names = [
            inputs.get(name, default)
            for identity, (name, default) in COMBINED.items()
            if isinstance(inputs.get(identity), list)
        ]
        return names if all(isinstance(name, str) for name in names) else []
    return []


def placeholders_in_file(name: object) -> list[str]:
    if not isinstance(name, str):
        return []
    try:
        _, metadata = load_header(folders.identity_path(name))
        members = texts_of_members(metadata)
    except IdentityFileError:
        return []
    return [cleaned(texts.get(PLACEHOLDER, "")) or DEFAULT_PLACEHOLDER for texts in members]
