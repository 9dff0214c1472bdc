"""Content hashes: the same training asked for again is recognised whatever the file, the workflow
or the day.
"""

__all__ = ["digest_of", "hash_of_settings", "hash_of_tensors"]

import hashlib
import json
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

PROBED = 64  # numbers of a tensor that show whether it is still the one that was read
_read: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # tensor -> (stamp, digest)


def digest_of(tensor: Tensor, dtype: torch.dtype | None = None) -> bytes:
    """Returns a hash of a tensor's dtype, shape and bytes, as it is in `dtype`, whatever its type
    makes of them; read once for as long as the tensor stands.
    """
    plain = tensor.as_subclass(Tensor)
    dtype = dtype or plain.dtype
    if plain.is_meta:  # holds nothing
        return f"meta {dtype} {list(plain.shape)}".encode()
    stamp = (dtype, *stamp_of(plain))
    found = _read.get(tensor)
    if found is None or found[0] != stamp:
        digest = hashlib.sha256(f"{dtype} {list(plain.shape)}\n".encode())
        digest.update(bytes_of(plain.to(dtype)))
        found = stamp, digest.digest()
        _read[tensor] = found
    return found[1]


def stamp_of(tensor: Tensor) -> tuple:
    """Returns what tells that a tensor's numbers are those that were read. Inference tensors count
    no changes, so a few numbers are looked at as well.
    """
    version = -1 if tensor.is_inference() else tensor._version
    flat = tensor.detach().reshape(-1) if tensor.is_contiguous() else tensor.detach().flatten()
    few = flat[:: max(1, len(flat) // PROBED)]
    return tensor.data_ptr(), version, bytes(bytes_of(few))


def bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def hash_of_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Returns 32 hex digits of every name, dtype, shape and byte."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()[:32]


def hash_of_settings(settings: dict) -> str:
    """Returns 32 hex digits of a JSON-like dict, whatever its order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]
