"""The identity file, a `.safetensors` (full text: docs/identity-file.md).

Tensors, float16 or float32, finite:
    pairs.<encoder>   [stages, 2, tokens, width]; axis 1 is (K, V); stage 0 is the noisiest
    <encoder>         [tokens, width], the mean of the V tokens: any embedding loader reads it
Metadata, text: format = "sefi-id", format_version, sefi.class_word, sefi.stages, sefi.stage_edges,
modelspec.trigger_phrase (the placeholder), and what else is known of it.

A file is of version 1 unless it needs version 2: strengths other than 1 (sefi.strengths), or
several identities (pairs.<n>.<encoder>, each one's metadata listed in sefi.identities).

Also read: textual-inversion embeddings (`emb_params`, or `clip_l` / `clip_g` alone), as an identity
of one stage. Files are checked before they are believed, never unpickled, and written whole or not
at all.
"""

__all__ = ["load_identity", "save_identity"]

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import IdentityFileError, SefiError, one_line
from ..families import ENCODERS, FAMILIES, family_of_widths
from .container import load_tensors, save_tensors
from .edit import stage_mean
from .group import IdentityGroup, joined
from .identity import Identity
from .metadata import (
    IDENTITIES,
    PLACEHOLDER,
    STRENGTHS,
    kept,
    meaning,
    member_from,
    texts_of_members,
)

FORMAT, FORMAT_VERSION = "sefi-id", 2
MAX_IDENTITY = 8 << 20  # bytes; fifty stages for both text encoders of SDXL take less than 1 MiB


def save_identity(
    identity: Identity | IdentityGroup,
    path: Path,
    metadata: dict[str, str] | None = None,
    anew: bool = False,
) -> None:
    """Writes an identity with its own and the given metadata; equal ones are equal bytes. `anew`
    never replaces a file.

    Raises:
        IdentityFileError: It is larger than a reader takes, or the folder takes no file.
    """
    members = identity.members
    tensors = {
        f"pairs.{prefix}{name}": pairs.clone()  # one identity may stand under two names
        for prefix, member in zip(prefixes(members), members, strict=True)
        for name, pairs in member.pairs.items()
    }
    size = sum(pairs.numel() * pairs.itemsize for pairs in tensors.values())
    if size > MAX_IDENTITY // 2:  # what else is in the file takes less than the other half
        raise IdentityFileError(
            f"{one_line(path.name)}: an identity of {size >> 20} MiB is larger than the "
            f"{MAX_IDENTITY >> 21} MiB that are read back; train one of fewer stages."
        )
    tensors |= fallback(members)
    told = {**identity.metadata, **(metadata or {})}
    save_tensors(tensors, path, metadata_of(identity, tensors, told), anew)


def metadata_of(
    identity: Identity | IdentityGroup, tensors: dict[str, Tensor], told: dict[str, str]
) -> dict[str, str]:
    """Returns a file's metadata: what is told of it, what its tensors mean, and the keys of the
    model-metadata specification.
    """
    members = identity.members
    texts = meaning(members[0])
    if len(members) > 1:
        each = [{**member.metadata, **meaning(member)} for member in members]
        texts = {IDENTITIES: json.dumps(each, sort_keys=True)}
    predicts = {**members[0].metadata, **told}.get("modelspec.prediction_type")
    family = family_of_widths(identity.widths)
    base = family.named(predicts == "v") if family else "custom"
    digest = hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors)))
    return {
        **told,
        **texts,
        "format": FORMAT,
        "format_version": "2" if texts.keys() & {IDENTITIES, STRENGTHS} else "1",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{base}/sefi-identity",
        "modelspec.implementation": "https://arxiv.org/abs/2402.00631",
        PLACEHOLDER: identity.placeholder,
        "modelspec.hash_sha256": f"0x{digest.hexdigest()}",
    }


def prefixes(members: Sequence[object]) -> list[str]:
    """Returns what stands before the encoder in each member's tensor names."""
    return [""] if len(members) == 1 else [f"{n}." for n in range(len(members))]


def fallback(members: Iterable[Identity]) -> dict[str, Tensor]:
    """Returns by encoder the tokens (T, E) for plain embedding loaders, members one after another;
    none for those of whose V nothing acts.
    """
    means = [mean for member in members if (mean := stage_mean(member, axis=1))]
    return {name: torch.cat([mean[name] for mean in means]) for name in (means[0] if means else ())}


def load_identity(path: Path) -> Identity | IdentityGroup:
    """Reads an identity, several from one file, or a textual-inversion embedding as one.

    Raises:
        IdentityFileError: The file is neither, damaged, or from a newer version.
    """
    try:
        tensors, metadata = load_tensors(path, MAX_IDENTITY)
    except IdentityFileError as error:
        raise IdentityFileError(f"embedding: {error}") from error
    try:
        if metadata.get("format") == FORMAT:
            return identity_from(tensors, metadata)
        return identity_from_embedding(tensors)
    except SefiError as error:
        raise IdentityFileError(f"embedding: {one_line(path.name)}: {error}") from error


def identity_from(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Identity | IdentityGroup:
    version = metadata.get("format_version", "")
    if not re.fullmatch("[0-9]{1,9}", version):
        raise IdentityFileError(
            "its format version is not a number; ask its maker to save it again."
        )
    if int(version) > FORMAT_VERSION:
        raise IdentityFileError(
            f"it has format version {version}, this pack reads up to {FORMAT_VERSION}; update "
            "ComfyUI-SeFi-ID."
        )
    listed = texts_of_members(metadata)
    keys = [
        {name: key for name in ENCODERS if (key := f"pairs.{prefix}{name}") in tensors}
        for prefix in prefixes(listed)
    ]
    unknown = set(tensors) - {name for each in keys for pair in each.items() for name in pair}
    dtypes = {tensors[key].dtype for each in keys for key in each.values()}
    if unknown or dtypes - {torch.float16, torch.float32}:
        raise IdentityFileError(
            "it holds tensors that an identity of this version does not have "
            f"({one_line(', '.join(sorted(unknown))) or 'not float16 or float32'}); update "
            "ComfyUI-SeFi-ID, or ask its maker to save it again."
        )
    return joined(
        [
            member_from({name: tensors[key] for name, key in each.items()}, texts)
            for each, texts in zip(keys, listed, strict=True)
        ],
        kept(metadata),
    )


def identity_from_embedding(tensors: dict[str, Tensor]) -> Identity:
    """Returns an embedding's vectors as an identity of one stage whose K and V are equal."""
    named = {name: tensors[name] for name in ENCODERS if name in tensors}
    if "emb_params" in tensors:
        widths = {width: name for family in FAMILIES for name, width in family.widths}
        vectors = tensors["emb_params"]
        named = {widths.get(vectors.shape[-1] if vectors.ndim else 0, "clip_l"): vectors}
    if not named:
        raise IdentityFileError(
            "it is no SeFi identity and no textual-inversion embedding (it holds "
            f"{one_line(', '.join(sorted(tensors))) or 'nothing'}); choose another file."
        )
    if not all(vectors.ndim in (1, 2) and vectors.numel() for vectors in named.values()):
        raise IdentityFileError(
            "it looks like a textual-inversion embedding, but its vectors are empty or no list of "
            "tokens; choose another file."
        )
    return Identity(
        {
            name: vectors.float().reshape(-1, vectors.shape[-1]).expand(1, 2, -1, -1).contiguous()
            for name, vectors in named.items()
        }
    )
