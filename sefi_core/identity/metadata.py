"""The metadata of an identity file: what its tensors mean, for one identity or for several."""

__all__ = [
    "IDENTITIES",
    "PLACEHOLDER",
    "STRENGTHS",
    "kept",
    "meaning",
    "member_from",
    "texts_of_members",
]

import json

from torch import Tensor

from ..errors import IdentityFileError
from .identity import Identity

CLASS_WORD, EDGES, STRENGTHS = "sefi.class_word", "sefi.stage_edges", "sefi.strengths"
IDENTITIES, PLACEHOLDER = "sefi.identities", "modelspec.trigger_phrase"
WRITTEN = {
    *("format", "format_version", "sefi.stages", CLASS_WORD, EDGES, STRENGTHS, IDENTITIES),
    *(PLACEHOLDER, "modelspec.sai_model_spec", "modelspec.architecture"),
    *("modelspec.implementation", "modelspec.hash_sha256"),
}  # by every save anew; the rest of the metadata is kept as it is


def meaning(member: Identity) -> dict[str, str]:
    """Returns the metadata without which an identity's pairs mean nothing."""
    texts = {
        CLASS_WORD: member.class_word,
        "sefi.stages": str(member.stages),
        EDGES: json.dumps(list(member.edges)),
        PLACEHOLDER: member.placeholder,
    }
    if any(strength != 1.0 for pair in member.strengths for strength in pair):
        texts[STRENGTHS] = json.dumps(member.strengths)
    return texts


def texts_of_members(metadata: dict[str, str]) -> list[dict[str, str]]:
    """Returns the metadata of every identity in the file."""
    if IDENTITIES not in metadata:
        return [metadata]
    try:
        listed = json.loads(metadata[IDENTITIES])
        if len(listed) < 2 or not all(
            isinstance(text, str) for texts in listed for text in texts.values()
        ):
            raise TypeError
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise IdentityFileError(
            "its list of identities is not one of texts about two or more; ask its maker to save "
            "it again."
        ) from error
    return listed


def member_from(pairs: dict[str, Tensor], metadata: dict[str, str]) -> Identity:
    """Returns one identity of a file."""
    try:
        edges = json.loads(metadata[EDGES])
        if not isinstance(edges, list) or not all(type(edge) is int for edge in edges):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IdentityFileError(
            "its stage edges are not a list of whole numbers; ask its maker to save it again."
        ) from error
    try:
        strengths = json.loads(metadata.get(STRENGTHS, "[]"))
        strengths = tuple((float(key), float(value)) for key, value in strengths)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise IdentityFileError(
            "its strengths are not a list of pairs of numbers; ask its maker to save it again."
        ) from error
    return Identity(
        {name: value.float() for name, value in pairs.items()},
        class_word=metadata.get(CLASS_WORD) or "person",
        placeholder=metadata.get(PLACEHOLDER) or Identity.placeholder,
        edges=tuple(edges),
        metadata=kept(metadata),
        strengths=strengths,
    )


def kept(metadata: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in metadata.items() if name not in WRITTEN}
