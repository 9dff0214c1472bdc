"""The page's own graph, in which muted nodes still stand."""

__all__ = ["linked_on_page"]

from collections.abc import Mapping, Sequence

OUT = -20  # the node of a subgraph by which its outputs leave it


def linked_on_page(workflow: Mapping, node: str, output: int) -> bool:
    """Returns whether the page has a link from a node's output to any other node.

    Arguments:
        workflow: As the page saves it; another shape has no links.
        node: The node's id; "12:3" is node 3 in the subgraph at node 12.
    """
    try:
        path = node.split(":")
        graphs = [workflow]
        for part in path[:-1]:
            kind = node_in(graphs[-1], part)["type"]
            (graph,) = (g for g in workflow["definitions"]["subgraphs"] if g["id"] == kind)
            graphs.append(graph)
        return linked(graphs, path, output)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return False


def linked(graphs: Sequence[Mapping], path: Sequence[str], output: int) -> bool:
    """Returns whether an output is linked to a node in its graph, or by way of the subgraph's own
    outputs in one around it.
    """
    graph = graphs[-1]
    links = node_in(graph, path[-1])["outputs"][output]["links"] or ()
    targets = [target(graph, link) for link in links]
    return any(node != OUT or linked(graphs[:-1], path[:-1], slot) for node, slot in targets)


def node_in(graph: Mapping, number: str) -> Mapping:
    (found,) = (node for node in graph["nodes"] if str(node["id"]) == number)
    return found


def target(graph: Mapping, number: int) -> tuple[int, int]:
    """Returns the node and the input, in a subgraph its output, that a link of a graph leads to."""
    for link in graph["links"]:
        if isinstance(link, Mapping) and link["id"] == number:
            return link["target_id"], link["target_slot"]
        if not isinstance(link, Mapping) and link[0] == number:
            return link[3], link[4]
    raise KeyError(number)
