"""An account of one execution of a prompt: what became of each identity in each sampler.

Whoever samples with our model tells it what arrived; a conditioning tells it that a sampler has
taken it up, whatever that one's model. When the execution is over it says what was lost.
"""

__all__ = ["Account", "Given", "account_here"]

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

from comfy_execution.progress import NodeState, ProgressRegistry, get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer
from torch import Tensor

from ....sefi_core.contexts import StagedContext
from ..page.telling import tell
from .arrivals import Applied, Arrival, contexts_of
from .graph import PromptGraph
from .honouring import stands_in
from .losses import kept_from_prompt, losses

FOUND = "All identities of this node have reached their samplers."
_complained: set[tuple[str, str, str]] = set()  # where a loss is shown


class Account:
    """What is known of one execution.

    Arguments:
        prompt: The execution's id.

    Attributes:
        arrivals: By sampler node and Apply.
    """

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.arrivals: dict[str, dict[Applied, Arrival]] = {}
        self.told: set[str | None] = set()
        self.closed = False
        self.progress = get_progress_state()
        self.graph, self.client = queued(prompt, self.progress)
        # The host runs a prompt in an event loop of its own, whose end cancels what still waits.
        with contextlib.suppress(RuntimeError):  # no loop in this thread: the next prompt closes it
            self.waiting = asyncio.get_running_loop().create_task(asyncio.Event().wait())
            self.waiting.add_done_callback(lambda task: self.close())

    def at(self, sampler: str, applied: Applied) -> Arrival:
        """Returns the arrival of an Apply in a sampler, a new one at first."""
        return self.arrivals.setdefault(sampler, {}).setdefault(applied, Arrival())

    def others(self, sampler: str, on_model: tuple[Applied, ...]) -> dict[Applied, StagedContext]:
        """Returns the contexts of what the model carries and the sampler was not given as such,
        though it is connected: another node may have appended the prompt to one that was.
        """
        return {
            applied: contexts_of[applied.id]
            for applied in on_model
            if applied.node and applied.id in contexts_of and self.graph
            if not self.at(sampler, applied).given
            if self.graph.ways(applied.node, sampler, sure=False)
        }

    @contextlib.contextmanager
    def run(
        self, sampler: str, on_model: tuple[Applied, ...], prompts: Sequence[Tensor]
    ) -> Iterator[None]:
        """Around a run of a sampler, with its prompts (1, L, C); its model carries `on_model`."""
        for applied in on_model:
            if not self.at(sampler, applied).given and self.graph:
                self.tell(applied.node, kept_from_prompt(self.graph, applied, sampler))
        yield
        for applied in on_model:
            arrival = self.at(sampler, applied)
            arrival.on_model = True
            if not arrival.given and (contexts := contexts_of.get(applied.id)):
                arrival.words |= any(stands_in(contexts.reference, plain) for plain in prompts)

    def tell(self, apply: str | None, sentence: str | None) -> None:
        """Says one sentence an Apply, in its node and in the console."""
        if sentence and apply not in self.told:
            self.told.add(apply)
            place = self.place(apply)
            _complained.add(place)
            tell(sentence, *place)

    def close(self) -> None:
        """Says what was lost; once. A node that an error or the artist has ended is no evidence."""
        if self.closed or self.graph is None:
            return
        self.closed = True
        whole = {n: found for n, found in self.arrivals.items() if self.finished(n)}
        for apply, sentence in losses(self.graph, whole):
            self.tell(apply, sentence)
        fine = {a.node for found in whole.values() for a, at in found.items() if at.acted}
        for apply in fine - self.told:
            if (place := self.place(apply)) in _complained:
                _complained.discard(place)
                tell(FOUND, *place)

    def finished(self, node: str) -> bool:
        state = self.progress.nodes.get(node)
        return state is not None and state["state"] is NodeState.Finished

    def place(self, node: str) -> tuple[str, str, str]:
        """Returns where a node of the prompt is shown: node, workflow and client."""
        return self.graph.shown(node), str(self.graph.workflow.get("id") or ""), self.client


class Given(dict):
    """An entry's own "model_conds", which the host copies when a sampler takes the entry up, before
    it adds what the model reads. Empty, so that entries batch as ever.
    """

    def __init__(self, applied: Applied) -> None:
        super().__init__()
        self.applied = applied

    def copy(self) -> dict:
        if here := account_here():
            account, sampler = here
            account.at(sampler, self.applied).given = True
        return dict(self)


_latest: Account | None = None  # the host executes one prompt at a time


def account_here() -> tuple[Account, str] | None:
    """Returns the account of the execution that runs here and the id of the node that runs; None
    outside one.
    """
    global _latest
    if (context := get_executing_context()) is None:
        return None
    if _latest is None or _latest.prompt != context.prompt_id or _latest.closed:
        if _latest is not None:
            _latest.close()
        _latest = Account(context.prompt_id)
    return _latest, str(context.node_id)


def queued(prompt: str, progress: ProgressRegistry) -> tuple[PromptGraph | None, str]:
    """Returns the graph of the execution that runs, None if the host knows another, and the client
    that queued it.
    """
    if progress.prompt_id != prompt:
        return None, ""
    queue = getattr(getattr(PromptServer, "instance", None), "prompt_queue", None)
    running = queue.get_current_queue_volatile()[0] if queue is not None else ()
    extra = next((item[3] for item in running if item[1] == prompt), {})
    workflow = (extra.get("extra_pnginfo") or {}).get("workflow")
    return PromptGraph(progress.dynprompt, workflow), extra.get("client_id") or ""
