"""The host remembers what nodes gave: a prompt that is queued again is not encoded again, so the
pack needs no cache of its own.
"""

import torch
from comfy_server import changed, node_of
from sefi_pack.sefi_core.identity.file_format import save_identity
from sefi_pack.sefi_core.identity.identity import Identity

NAME = "cached_00001_.safetensors"
SMALL = {"EmptyLatentImage": {"width": 64, "height": 64}, "KSampler": {"steps": 2, "seed": 1}}


def executed(run):
    """Returns the nodes that ran."""
    return {e.data["node"] for e in run.events if e.kind == "executing"} - {None}


def test_a_second_queue_of_a_prompt_encodes_nothing_again(server, graphs):
    pairs = torch.randn(5, 2, 1, 768, generator=torch.Generator().manual_seed(0)) * 0.02
    save_identity(Identity({"clip_l": pairs}), server.folder / "models/sefi" / NAME)
    graph = changed(graphs["apply_identity"], LoadSeFiEmbedding={"embedding": NAME}, **SMALL)
    first = server.run(graph)
    assert (first.status, first.error) == ("success", "")
    again = server.run(changed(graph, KSampler={"seed": 2}))
    assert again.status == "success"
    kinds = {node: graph[node]["class_type"] for node in graph}
    drawing = {node for node in graph if kinds[node] in ("KSampler", "VAEDecode", "SaveImage")}
    assert executed(again) == drawing
    assert set(graph) - drawing <= again.cached()
    apply = node_of(graph, "ApplySeFiConditioning")
    assert apply in executed(server.run(changed(graph, ApplySeFiConditioning={"text": "V*, old"})))
