"""The prompt that the host executes, asked which Apply SeFi Conditioning leads to which sampler."""

__all__ = ["PromptGraph"]

from collections import Counter
from collections.abc import Iterator

from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import is_link

import nodes

from .workflow import linked_on_page

APPLY, CONDITIONING = "ApplySeFiConditioning", 1  # the node's class and the output's number
PICTURES = {"LATENT", "IMAGE", "MASK"}
JOINED = {"CONDITIONING", "MODEL"}
CHOICES = {"BOOLEAN", "INT", "COMBO", "*"}


class PromptGraph:
    """One prompt, nodes that were added while it ran included.

    Arguments:
        workflow: The page's own graph, in which muted nodes still stand; None without a page.
    """

    def __init__(self, prompt: DynamicPrompt, workflow: dict | None = None) -> None:
        self.prompt, self.workflow = prompt, workflow or {}
        self.inputs: dict[str, dict] = {}  # by class; to ask one may mean to list its files

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

    def ways(self, apply: str, node: str, pictures: bool = False, sure: bool = True) -> set[str]:
        """Returns the kinds of the sockets by which an Apply's conditioning leads into a node;
        through a picture made with it, only if asked.

        Arguments:
            sure: Leave out what may stay unused, a lazy input or one of a switch's several.
        """
        if not self.prompt.has_node(node):
            return set()
        found: set[str] = set()
        for source, number, kind, lazy in self.sources(node):
            if (lazy and sure) or (kind in PICTURES and not pictures):
                continue
            if (source, number) == (apply, CONDITIONING) or self.leads(
                apply, source, pictures, sure
            ):
                found.add(kind)
        return found

    def leads(self, apply: str, node: str, pictures: bool, sure: bool) -> bool:
        """Returns whether an Apply's conditioning leads into a node at all, as `ways`."""
        waiting, seen = [node], set()
        while waiting:
            if (node := waiting.pop()) in seen:
                continue
            seen.add(node)
            chosen = self.chosen_kinds(node) if sure else ()
            for source, number, kind, lazy in self.sources(node):
                if (lazy and sure) or (kind in PICTURES and not pictures) or kind in chosen:
                    continue
                if (source, number) == (apply, CONDITIONING):
                    return True
                waiting.append(source)
        return False

    def chosen_kinds(self, node: str) -> set[str]:
        """Returns the kinds of which a node may take several and pass on one, as a switch does.

        A number with a fraction weighs, it does not choose. Prompts and models that are taken
        without a choice to make, or a socket for anything, are joined.
        """
        types = {
            str(kind) if isinstance(kind, str) else "COMBO"
            for described in self.inputs_of(node).values()
            for kind in described[:1]
        }
        if "FLOAT" in types:
            return set()
        outputs = self.class_of(node).RETURN_TYPES
        found = Counter(kind for _, _, kind, _ in self.sources(node))
        return {
            kind
            for kind in found
            if sum(count for other, count in found.items() if alike(kind, other)) > 1
            if sum(alike(kind, output) for output in outputs) == 1
            if kind not in JOINED or types & CHOICES or "*" in outputs
        }

    def sources(self, node: str) -> Iterator[tuple[str, int, str, bool]]:
        """Yields (node, output, kind, lazy) of what is linked to a node's inputs."""
        inputs = self.inputs_of(node)
        for name, value in self.prompt.get_node(node)["inputs"].items():
            if is_link(value):
                source, number = str(value[0]), int(value[1])
                outputs = self.class_of(source).RETURN_TYPES
                kind = str(outputs[number]) if number < len(outputs) else "*"
                options = (part for part in inputs.get(name, ()) if isinstance(part, dict))
                yield source, number, kind, any(part.get("lazy") for part in options)

    def class_of(self, node: str) -> type:
        return nodes.NODE_CLASS_MAPPINGS[self.prompt.get_node(node)["class_type"]]

    def inputs_of(self, node: str) -> dict[str, tuple]:
        """Returns what a node's class says of its inputs, by their names."""
        kind = self.prompt.get_node(node)["class_type"]
        if kind not in self.inputs:
            described = self.class_of(node).INPUT_TYPES()
            parts = (described.get("required", {}), described.get("optional", {}))
            self.inputs[kind] = {**parts[0], **parts[1]}
        return self.inputs[kind]

    def connected(self, apply: str) -> bool:
        """Returns whether an Apply's conditioning leads anywhere, be it to a muted node."""
        links = (
            value
            for node in self.prompt.all_node_ids()
            for value in self.prompt.get_node(node)["inputs"].values()
        )
        if any(is_link(v) and (str(v[0]), v[1]) == (apply, CONDITIONING) for v in links):
            return True
        return linked_on_page(self.workflow, self.shown(apply), CONDITIONING)


def alike(one: str, other: str) -> bool:
    """Returns whether sockets of two kinds can hold the same thing; "*" is of any kind."""
    return one == other or "*" in (one, other)
