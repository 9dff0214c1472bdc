"""What becomes of one Apply SeFi Conditioning in one sampler."""

__all__ = ["Applied", "Arrival", "contexts_of"]

from dataclasses import dataclass, field
from itertools import pairwise
from uuid import uuid4
from weakref import WeakValueDictionary

from ....sefi_core.contexts import StagedContext


@dataclass(frozen=True)
class Applied:
    """One run of Apply SeFi Conditioning, which its model clone and its conditioning both carry.

    Attributes:
        node: Its node's id in the prompt; None outside an execution.
        name: The placeholders in its text, as the artist reads them.
        active: (low, high): it acts for timesteps low <= t < high; never at strength 0.
    """

    node: str | None
    name: str
    active: tuple[int, int]
    id: str = field(default_factory=lambda: uuid4().hex)


contexts_of: WeakValueDictionary[str, StagedContext] = WeakValueDictionary()
"""By an Apply's id, while its conditioning lives; some nodes keep the plain tensor alone."""


@dataclass
class Arrival:
    """All runs of the sampler together.

    Attributes:
        on_model: A run of it is over whose model carried the Apply.
        given: It has taken up the conditioning, whatever its model.
        carried: It has done so with a model that understands it.
        words: A prompt of a run has its words and not the identity, alone or beside others.
        zeroed: The conditioning came emptied, and not as a negative one.
        acted: The UNet has read it within its active range.
        stages: In which the UNet has read it.
        span: The first and last timestep of the latest run that carried it.
    """

    on_model: bool = False
    given: bool = False
    carried: bool = False
    words: bool = False
    zeroed: bool = False
    acted: bool = False
    stages: set[int] = field(default_factory=set)
    span: tuple[int, int] | None = None

    def note(
        self,
        reached: bool,
        span: tuple[int, int],
        edges: tuple[int, ...],
        active: tuple[int, int],
    ) -> None:
        """Adds a run that carried the Apply.

        Arguments:
            reached: Whether the UNet has read it.
            span: The first and last timestep.
            edges: Its S + 1 descending stage edges.
            active: (low, high), as in Applied.
        """
        self.span, (first, last) = span, span
        if reached:
            self.stages |= {
                stage
                for stage, (high, low) in enumerate(pairwise(edges))
                if last < high and low <= first
            }
            self.acted |= max(last, active[0]) <= min(first, active[1] - 1)
