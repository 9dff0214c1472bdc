"""Which recording a latent was watched by, also when that one is no longer there.

The host may let go of a node's outputs to free memory and keep the sampler's: the node then makes a
new recording, which knows nothing of the latent. That is no wrong link.
"""

__all__ = ["Owner", "Watched", "fingerprint"]

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar
from weakref import ref

from torch import Tensor

MOST, OWNERS = 256, 8  # latents remembered, and recordings of each; some hundred bytes each

Kind = TypeVar("Kind")


def fingerprint(samples: Tensor) -> str:
    """Returns what tells a latent from others, whatever has become of its device and dtype."""
    half = samples.detach().half().cpu().contiguous()
    return hashlib.sha256(repr(tuple(half.shape)).encode() + half.numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class Owner(Generic[Kind]):
    """The recording that watched a latent, as long as anybody holds it, and the node it was of."""

    recording: "ref[Kind]"
    node_id: str | None

    def made_place_for(self, recording: Kind) -> bool:
        """Whether `recording` stands where this one did, or is this one, which has dropped the
        latent; otherwise it is another's.
        """
        living = self.recording()
        same_node = self.node_id is not None and self.node_id == recording.node_id
        return living is None or living is recording or same_node


class Watched(Generic[Kind]):
    """The last latents that any recording watched."""

    def __init__(self) -> None:
        self.owners: OrderedDict[str, list[Owner[Kind]]] = OrderedDict()
        self.lock = Lock()

    def note(self, ended: str, recording: Kind, node_id: str | None) -> None:
        """Remembers who watched a latent."""
        with self.lock:
            before = self.owners.pop(ended, [])[1 - OWNERS :]
            self.owners[ended] = [*before, Owner(ref(recording), node_id)]
            while len(self.owners) > MOST:
                self.owners.popitem(last=False)

    def owners_of(self, ended: str) -> list[Owner[Kind]]:
        """Returns who watched a latent: several, where one watched model was watched again."""
        with self.lock:
            return self.owners.get(ended, [])
