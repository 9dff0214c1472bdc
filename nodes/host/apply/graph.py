"""The prompt that the host executes, asked which Apply SeFi Conditioning leads to which sampler."""

__all__ = ["PromptGraph"]

from collections.abc import Iterator

from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import is_link

import nodes

APPLY, CONDITIONING = "ApplySeFiConditioning", 1  # the node's class and the output's number
PICTURES = {"LATENT", "IMAGE", "MASK"}


class PromptGraph:
    """One prompt, nodes that were added while it ran included.

    Arguments:
        workflow: The page's own graph, in which muted nodes still stand; None without a page.
    """

    def __init__(self, prompt: DynamicPrompt, workflow: dict | None = None) -> None:
        self.prompt, self.workflow = prompt, workflow or {}

    def applies(self) -> list[str]:
        """Returns the ids of all Apply SeFi Conditioning."""
        ids = self.prompt.all_node_ids()
        return sorted(i for i in ids if self.prompt.get_node(i)["class_type"] == APPLY)

    def name(self, node: str) -> str:
        """Returns how a node is called in a sentence: KSampler (5)."""
        kind = self.prompt.get_node(node)["class_type"] if self.prompt.has_node(node) else "sampler"
        return f"{kind} ({self.shown(node)})"

    def shown(self, node: str) -> str:
        """Returns the id of the node that the page shows in a node's place."""
        return str(self.prompt.get_display_node_id(node))

    def ways(self, apply: str, node: str, pictures: bool = False) -> set[str]:
        """Returns the kinds of the sockets by which an Apply's conditioning leads into a node;
        through a picture made with it, only if asked. A lazy input may stay unused and leads
        nowhere.
        """
        if not self.prompt.has_node(node):
            return set()
        found: set[str] = set()
        for source, number, kind in self.sources(node):
            if not pictures and kind in PICTURES:
                continue
            if (source, number) == (apply, CONDITIONING) or self.leads(apply, source, pictures):
                found.add(kind)
        return found

    def leads(self, apply: str, node: str, pictures: bool) -> bool:
        """Returns whether an Apply's conditioning leads into a node at all."""
        waiting, seen = [node], set()
        while waiting:
            if (node := waiting.pop()) in seen:
                continue
            seen.add(node)
            for source, number, kind in self.sources(node):
                if pictures or kind not in PICTURES:
                    if (source, number) == (apply, CONDITIONING):
                        return True
                    waiting.append(source)
        return False

    def sources(self, node: str) -> Iterator[tuple[str, int, str]]:
        """Yields (node, output, kind) of what is linked to a node's inputs that are not lazy."""
        described = self.prompt.get_node(node)
        kinds = nodes.NODE_CLASS_MAPPINGS[described["class_type"]].INPUT_TYPES()
        options = {**kinds.get("required", {}), **kinds.get("optional", {})}
        for name, value in described["inputs"].items():
            if not is_link(value) or any(
                isinstance(part, dict) and part.get("lazy") for part in options.get(name, ())
            ):
                continue
            source, number = str(value[0]), int(value[1])
            outputs = nodes.NODE_CLASS_MAPPINGS[
                self.prompt.get_node(source)["class_type"]
            ].RETURN_TYPES
            yield source, number, str(outputs[number]) if number < len(outputs) else "*"

    def connected(self, apply: str) -> bool:
        """Returns whether an Apply's conditioning leads anywhere, be it to a muted node."""
        links = (
            value
            for node in self.prompt.all_node_ids()
            for value in self.prompt.get_node(node)["inputs"].values()
        )
        if any(is_link(v) and (str(v[0]), v[1]) == (apply, CONDITIONING) for v in links):
            return True
        shown = self.shown(apply).split(":")[-1]  # "12:3" is node 3 of the subgraph at node 12
        graphs = [self.workflow, *self.workflow.get("definitions", {}).get("subgraphs", ())]
        return any(
            node.get("type") == APPLY
            and str(node.get("id")) == shown
            and len(outputs := node.get("outputs") or ()) > CONDITIONING
            and bool(outputs[CONDITIONING].get("links"))
            for graph in graphs
            for node in graph.get("nodes", ())
        )
