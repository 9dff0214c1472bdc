"""Content hashes: the same training asked for again is recognised whatever the file, the workflow
or the day.
"""

__all__ = ["hash_of_settings", "hash_of_tensors"]

import hashlib
import json
from collections.abc import Iterable

import torch
from torch import Tensor


def hash_of_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Returns 32 hex digits of every name, dtype, shape and byte."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def hash_of_settings(settings: dict) -> str:
    """Returns 32 hex digits of a JSON-like dict, whatever its order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]
