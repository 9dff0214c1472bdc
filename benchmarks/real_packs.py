"""Runs real packs beside ours, by hand: `python -m benchmarks.real_packs FOLDER`.

FOLDER holds checkouts of other packs, each under its own name; name it custom_nodes, some ask for
that. Those that can be imported are loaded by ComfyUI's own loader, and their rows are printed as a
table:

neutral: how far an identity that is its class word takes the picture from the plain prompt's,
    relative; 0 is bit for bit.
acts: whether a learned identity changes the picture.
said: what its node tells the artist. A row that does not act and says nothing is a silent loss.

Nothing is downloaded, and the packs' code runs in this process: look at it first.
"""

__all__ = ["main"]

import argparse
import asyncio
import copy
import sys
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import torch

from .pack import ROOT, ensure_pack
from .real_packs_rows import ROWS, SDXL_ROWS, Graph, applied
from .real_packs_sdxl import sdxl_parts


def graph_of(row: Graph, who: str) -> Graph:
    """Returns a row as a prompt of the host: with an identity, or ("") the class word's words."""
    from stand_ins import prompt_of

    base: Graph = {
        "parts": ("Parts", {"name": who or "neutral"}),
        "latent": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "mask": ("SolidMask", {"value": 1.0, "width": 64, "height": 64}),
        "negative": ("CLIPTextEncode", {"clip": "parts@1", "text": "blurry"}),
        "wall": ("CLIPTextEncode", {"clip": "parts@1", "text": "a photo of a wall"}),
        "apply": applied("parts@0"),
    }
    prompt = prompt_of(**{**base, **row, "kept": ("Keep", {"latent": "picture@0"})})
    if who:
        return prompt
    prompt = copy.deepcopy(prompt)
    links = {0: prompt["6"]["inputs"]["model"], 1: ["6", 0]}
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] == "6":
                node["inputs"][name] = links[value[1]]
    words = {"clip": ["1", 1], "text": "a photo of person"}
    prompt["6"] = {"class_type": "CLIPTextEncode", "inputs": words}
    return prompt


def measure(host: Any, row: Graph) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Returns a row's latents by whose they are, "" for the plain prompt's, and what is said."""
    pictures: dict[str, torch.Tensor] = {}
    said: list[str] = []
    for who in ("", "neutral", "learned"):
        kept, told, messages = host.run(graph_of(row, who))
        event, error = messages[-1]
        if event != "execution_error":
            pictures[who], said = kept[0], [text for _, text in told]
            continue
        said = [error["exception_message"].strip()]
        if not who:
            break
    return pictures, said


def cells(pictures: dict[str, torch.Tensor], said: list[str]) -> list[str]:
    """Returns a row's cells: neutral, acts, said."""
    words = " ".join(said) or "-"
    if "" not in pictures:
        return ["fails without us", "-", words]
    if "neutral" not in pictures:
        return ["refused", "refused", words]
    plain, neutral = pictures[""], pictures["neutral"]
    far = float((neutral - plain).norm() / plain.norm())
    acts = "refused"
    if "learned" in pictures:
        acts = "no" if torch.equal(pictures["learned"], neutral) else "yes"
    return [f"{far:.1e}" if far else "0", acts, words]


def prepared(folder: Path) -> Any:
    """Returns the host's executor, every pack of the folder loaded."""
    from server import PromptServer
    from stand_ins import Executions, Page, Parts, Queue

    import nodes

    page = PromptServer(asyncio.new_event_loop())  # packs add routes to it; it serves nobody
    page.prompt_queue, page.said = Queue(), []
    page.send_sync = MethodType(Page.send_sync, page)
    asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    sys.path.append(str(folder.resolve().parent))
    for pack in sorted(path for path in folder.iterdir() if path.is_dir()):
        loaded = asyncio.run(nodes.load_custom_node(str(pack)))
        print(f"{'loaded' if loaded else 'NOT loaded'}: {pack.name}", file=sys.stderr)
    Parts.RETURN_TYPES = (*Parts.RETURN_TYPES, "VAE")
    Parts.give = lambda self, name: (*(self.parts[n] for n in ("model", "clip", name, "vae")),)
    nodes.NODE_CLASS_MAPPINGS["Thing"] = type(
        "Thing", (Parts,), {"RETURN_TYPES": ("*",), "give": lambda self, name: (self.parts[name],)}
    )
    return Executions(page)


def sd1_parts() -> dict[str, Any]:
    import seeded

    return {
        "model": seeded.tiny_model(), "clip": seeded.tiny_clip(), "vae": seeded.seeded_vae()
    }  # fmt: skip


def people(clip: Any) -> dict[str, Any]:
    """Returns an identity that is its class word and one that is learned."""
    from sefi_pack.nodes.host.text.encoder import class_tokens
    from sefi_pack.sefi_core.identity.identity import Identity

    tokens = class_tokens(clip, "person")
    generator = torch.Generator().manual_seed(7)
    learned = {
        name: 0.3 * torch.randn(5, 2, 1, token.shape[-1], generator=generator)
        for name, token in tokens.items()
    }
    neutral = {name: token.clone().expand(5, 2, 1, -1) for name, token in tokens.items()}
    return {"neutral": Identity(neutral), "learned": Identity(learned)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="checkouts of other packs")
    folder = parser.parse_args().folder
    ensure_pack()
    sys.path += [str(ROOT / "tests"), str(ROOT / "tests/host")]
    torch.set_num_threads(1)
    host = prepared(folder)
    print("| pack, node | neutral | acts | said |\n| --- | --- | --- | --- |")
    for parts, rows in ((sd1_parts, ROWS), (sdxl_parts, SDXL_ROWS)):
        print_rows(host, parts, rows)


def print_rows(host: Any, parts: Callable[[], dict[str, Any]], rows: dict[str, Graph]) -> None:
    """Prints the rows of one family."""
    from stand_ins import Parts

    import nodes

    with torch.inference_mode():
        Parts.parts = parts()
        Parts.parts.update(people(Parts.parts["clip"]))
    alone = None
    for name, row in rows.items():
        missing = {k for k, _ in row.values()} - nodes.NODE_CLASS_MAPPINGS.keys()
        shown = [f"not there: {', '.join(sorted(missing))}", "", ""]
        if not missing:
            pictures, said = measure(host, row)
            shown = cells(pictures, said)
            if alone is None:
                alone = pictures[""]
            elif torch.equal(pictures.get("", 0 * alone), alone):
                shown[0] += ", as without the pack"
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
