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

__all__ = ["ROWS", "main"]

import argparse
import asyncio
import copy
import sys
from pathlib import Path
from types import MethodType
from typing import Any

import torch

from .pack import ROOT, ensure_pack

Graph = dict[str, Any]
SAMPLING = {
    "seed": 3, "steps": 4, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal",
    "denoise": 1.0,
}  # fmt: skip


def sampled(model: str = "apply@0", positive: str = "apply@1", **named: tuple[str, dict]) -> Graph:
    """Returns nodes by name, with a sampler at the end; "name@2" is a node's third output."""
    picture = {
        **SAMPLING,
        "model": model,
        "positive": positive,
        "negative": "negative@0",
        "latent_image": "latent@0",
    }
    return {**named, "picture": ("KSampler", picture)}


def region(kind: str, base: str, of: str, **base_cond: str) -> Graph:
    """Returns Attention Couple with one prompt everywhere and one in a region."""
    inputs = {"model": "apply@0", "base_mask": "mask@0", "cond_1": of, "mask_1": "mask@0"}
    return sampled("couple@0", base, couple=(kind, {**inputs, **base_cond}))


def pipe(model: str, positive: str) -> tuple[str, dict]:
    inputs = {"model": model, "clip": "parts@1", "vae": "parts@3", "positive": positive}
    return "ToBasicPipe", {**inputs, "negative": "negative@0"}


def provider(basic_pipe: str) -> tuple[str, dict]:
    names = {"cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "sigma_factor": 1.0}
    return "KSamplerAdvancedProvider", {**names, "basic_pipe": basic_pipe}


REGIONAL = {
    "whole": pipe("apply@0", "wall@0"),
    "person": pipe("apply@0", "apply@1"),
    "base": provider("whole@0"),
    "inside": provider("person@0"),
    "place": ("RegionalPrompt", {"mask": "mask@0", "advanced_sampler": "inside@0"}),
    "picture": (
        "RegionalSampler",
        {
            "seed": 3, "seed_2nd": 0, "seed_2nd_mode": "ignore", "steps": 6, "base_only_steps": 1,
            "denoise": 1.0, "samples": "latent@0", "base_sampler": "base@0",
            "regional_prompts": "place@0", "overlap_factor": 10, "restore_latent": True,
            "additional_mode": "ratio between", "additional_sampler": "AUTO",
            "additional_sigma_ratio": 0.3,
        },
    ),
}  # fmt: skip
CADS = {"noise_scale": 0.25, "t1": 0.0, "t2": 0.9, "key": "both", "seed": 3}
PPM, CGEM = "AttentionCouplePPM", "AttentionCouple|cgem156"
ROWS: dict[str, Graph] = {
    "no other pack": sampled(),
    "CADS, after ours": sampled("cads@0", cads=("CADS", {"model": "apply@0", **CADS})),
    "ppm CADS, after ours": sampled(
        "cads@0",
        cads=(
            "CADSPPM", {"model": "apply@0", "scale": 0.25, "start_percent": 0.0, "end_percent": 0.9}
        ),
    ),
    "ppm Attention Couple, ours everywhere": region(PPM, "apply@1", "wall@0", base_cond="apply@1"),
    "ppm Attention Couple, ours in the region": region(
        PPM, "wall@0", "apply@1", base_cond="wall@0"
    ),
    "cgem Attention Couple, ours everywhere": region(CGEM, "apply@1", "wall@0"),
    "cgem Attention Couple, ours in the region": region(CGEM, "wall@0", "apply@1"),
    "Impact EditBasicPipe, positive alone": sampled(
        "out@0",
        "out@3",
        plain=pipe("parts@0", "wall@0"),
        edited=("EditBasicPipe", {"basic_pipe": "plain@0", "positive": "apply@1"}),
        out=("FromBasicPipe", {"basic_pipe": "edited@0"}),
    ),
    "Impact EditBasicPipe, model and positive": sampled(
        "out@0",
        "out@3",
        plain=pipe("parts@0", "wall@0"),
        edited=(
            "EditBasicPipe", {"basic_pipe": "plain@0", "model": "apply@0", "positive": "apply@1"}
        ),
        out=("FromBasicPipe", {"basic_pipe": "edited@0"}),
    ),
    "Impact RegionalSampler": REGIONAL,
}  # fmt: skip


def graph_of(row: Graph, who: str) -> Graph:
    """Returns a row as a prompt of the host: with an identity, or ("") the class word's words."""
    from stand_ins import prompt_of

    prompt = prompt_of(
        parts=("Parts", {"name": who or "neutral"}),
        latent=("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        mask=("SolidMask", {"value": 1.0, "width": 64, "height": 64}),
        negative=("CLIPTextEncode", {"clip": "parts@1", "text": "blurry"}),
        wall=("CLIPTextEncode", {"clip": "parts@1", "text": "a photo of a wall"}),
        apply=(
            "ApplySeFiConditioning",
            {"model": "parts@0", "clip": "parts@1", "identity": "parts@2", "text": "a photo of V*"},
        ),
        **row,
        kept=("Keep", {"latent": "picture@0"}),
    )
    if who:
        return prompt
    links, prompt = {0: ["1", 0], 1: ["6", 0]}, copy.deepcopy(prompt)
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] == "6":
                node["inputs"][name] = links[value[1]]
    words = {"clip": ["1", 1], "text": "a photo of person"}
    prompt["6"] = {"class_type": "CLIPTextEncode", "inputs": words}
    return prompt


def measure(host: Any, row: Graph) -> tuple[str, str, str]:
    """Returns a row's three cells."""
    pictures, said = {}, []
    for who in ("", "neutral", "learned"):
        kept, told, messages = host.run(graph_of(row, who))
        event, error = messages[-1]
        if event == "execution_error":
            sentence = error["exception_message"].strip()
            return "refused" if who else "fails without us", "-", sentence
        pictures[who], said = kept[0], [text for _, text in told]
    plain, neutral, learned = pictures.values()
    far = float((neutral - plain).norm() / plain.norm())
    acts = not torch.equal(learned, neutral)
    return f"{far:.1e}" if far else "0", "yes" if acts else "no", " ".join(said) or "-"


def prepared(folder: Path) -> Any:
    """Returns the host's executor with small models, every pack of the folder loaded."""
    import seeded
    from sefi_pack.nodes.host.text.encoder import class_tokens
    from sefi_pack.sefi_core.identity.identity import Identity
    from server import PromptServer
    from stand_ins import Executions, Page, Parts, Queue

    import nodes

    page = PromptServer(asyncio.new_event_loop())  # packs add routes to it; it serves nobody
    page.prompt_queue, page.said = Queue(), []
    for name in ("send_sync", "send_progress_text"):
        setattr(page, name, MethodType(getattr(Page, name), page))
    asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    sys.path.append(str(folder.resolve().parent))
    for pack in sorted(path for path in folder.iterdir() if path.is_dir()):
        loaded = asyncio.run(nodes.load_custom_node(str(pack)))
        print(f"{'loaded' if loaded else 'NOT loaded'}: {pack.name}", file=sys.stderr)
    model, clip = seeded.tiny_model(), seeded.tiny_clip()
    tokens = class_tokens(clip, "person")
    generator = torch.Generator().manual_seed(7)
    Parts.RETURN_TYPES = (*Parts.RETURN_TYPES, "VAE")
    Parts.give = lambda self, name: (*(self.parts[n] for n in ("model", "clip", name, "vae")),)
    Parts.parts = {
        "model": model,
        "clip": clip,
        "vae": seeded.seeded_vae(),
        "neutral": Identity({n: t.clone().expand(5, 2, 1, -1) for n, t in tokens.items()}),
        "learned": Identity(
            {n: 0.3 * torch.randn(5, 2, 1, t.shape[-1], generator=generator)
             for n, t in tokens.items()}
        ),
    }  # fmt: skip
    return Executions(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="checkouts of other packs")
    folder = parser.parse_args().folder
    ensure_pack()
    sys.path += [str(ROOT / "tests"), str(ROOT / "tests/host")]
    torch.set_num_threads(1)
    with torch.inference_mode():
        host = prepared(folder)
    import nodes

    print("| pack, node | neutral | acts | said |\n| --- | --- | --- | --- |")
    for name, row in ROWS.items():
        missing = {k for k, _ in row.values()} - nodes.NODE_CLASS_MAPPINGS.keys()
        cells = (f"not there: {', '.join(sorted(missing))}", "", "")
        print(f"| {name} | {' | '.join(cells if missing else measure(host, row))} |", flush=True)


if __name__ == "__main__":
    main()
