"""What can go wrong with a whole server, done on purpose: `python -m benchmarks.faults_server`.

A server is killed in the middle of a training and started again in its folder; two clients queue
trainings, applied identities and plain prompts into each other.

Counted as in benchmarks/faults.py: lost, leaked, wrong. Every picture and identity is compared,
bit for bit, with what the same prompt gives on a server that does nothing else. The table goes to
docs/reliability.md. On the miniature world; a restart takes as long as the host takes to start.
"""

__all__ = ["PACKS", "furnish", "training"]

import json
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from .faults import ROOT, Row, options, print_table

sys.path.append(str(ROOT / "tests"))
from comfy_server import ComfyServer, Event, Graph, changed, node_of, with_miniature

PACKS = (ROOT / "benchmarks/world/comfyui_node",)
STEPS = 12
KINDS = 10  # different prompts of each client
SHORT = {"steps": STEPS, "resolution": 64, "preview_every": 0, "checkpoint_every": 1}


def furnish(folder: Path) -> None:
    """Puts a picture to learn from into a server's folder."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    (folder / "input").mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / "input/face.png")


def training(seed: int, name: str, **settings: object) -> Graph:
    """Returns a training of the miniature, its identity saved as `name`, and a picture with it."""
    graph = json.loads((ROOT / "workflows/api/train_and_apply.json").read_text())
    return changed(
        with_miniature(graph),
        LoadImage={"image": "face.png"},
        TrainSeFiID={**SHORT, "train_seed": seed, "name": name, **settings},
        SaveSeFiEmbedding={"filename_prefix": name},
        EmptyLatentImage={"width": 128, "height": 128},
        KSampler={"steps": 2, "seed": seed},
        SaveImage={"filename_prefix": name},
    )


def plain(seed: int, name: str) -> Graph:
    """Returns a picture of an ordinary prompt."""
    graph = training(seed, name)
    apply = node_of(graph, "ApplySeFiConditioning")
    clip, model = (graph[apply]["inputs"][socket] for socket in ("clip", "model"))
    text = {"text": "a photo of person at the beach", "clip": clip}
    graph["positive"] = {"class_type": "CLIPTextEncode", "inputs": text}
    graph = changed(graph, KSampler={"model": model, "positive": ["positive", 0]})
    ours = ("TrainSeFiID", "SaveSeFiEmbedding", "ApplySeFiConditioning", "PreviewImage")
    others = (*ours, "LossGraphNode", "LoadImage")
    return {number: node for number, node in graph.items() if node["class_type"] not in others}


def results(server: ComfyServer, name: str) -> list[bytes]:
    """Returns the pixels and pairs that runs have left under a name, and removes the files."""
    pictures = sorted((server.folder / "output").glob(f"{name}_*.png"))
    identities = sorted((server.folder / "models/sefi").glob(f"{name}_*.safetensors"))
    found = [np.asarray(Image.open(path)).tobytes() for path in pictures]
    found += [load_file(path)["pairs.clip_l"].tobytes() for path in identities]
    for path in (*pictures, *identities):
        path.unlink()
    return found


def fresh(server: ComfyServer, graph: Graph, name: str) -> list[bytes]:
    """Runs a graph with nothing that an earlier training has left; returns its results."""
    for path in (server.folder / "output/sefi").rglob("*.safetensors"):
        path.unlink()
    run = server.run(graph)
    if run.status != "success":
        raise RuntimeError(f"{name}: {run.status} {run.error}")
    return results(server, name)


def restarted(folder: Path, times: int, random: Random) -> Row:
    """Kills the server at a random step of a training; the next server resumes it."""
    folder = folder / "restart"
    furnish(folder)
    row = Row()
    with ComfyServer(folder, PACKS) as server:
        whole = fresh(server, training(1, "whole"), "whole")
        picture = fresh(server, plain(1, "plain"), "plain")
    for trial in range(times):
        name, at = f"killed{trial}", random.randint(1, STEPS - 1)
        with ComfyServer(folder, PACKS) as server:
            kill_at(server, training(1, name), at)
        with ComfyServer(folder, PACKS) as server:
            judge_restart(row, server, name, at, whole, picture)
    return row


def kill_at(server: ComfyServer, graph: Graph, step: int) -> None:
    """Runs a graph and kills the server as soon as a training's bar has reached a step."""

    def watch(event: Event) -> None:
        if event.kind == "sefi.progress" and event.data["done"] >= step:
            server.process.kill()

    try:
        server.run(graph, watch)
    except RuntimeError:
        return  # it is gone, as it should be
    raise RuntimeError("the training ended before the server was killed")


def judge_restart(
    row: Row, server: ComfyServer, name: str, at: int, whole: list[bytes], picture: list[bytes]
) -> None:
    """Resumes on a server that has just been started, and counts what is not as it should be."""
    row.tried += 1
    inputs = server.get("object_info/TrainSeFiID")["TrainSeFiID"]["input"]["optional"]
    offered = [file for file in inputs["resume"][1]["options"] if file.startswith(f"{name}_")]
    done = max((done_of(server, file) for file in offered), default=0)
    row.lost += done < at - 1  # the step whose checkpoint was being written may be gone
    for path in server.folder.rglob("*.tmp"):
        os.utime(path, (0, 0))  # an hour and more goes by
    graph = changed(training(1, name), TrainSeFiID={"resume": offered[0]} if offered else {})
    run = server.run(graph)
    row.wrong += run.status != "success" or results(server, name) != whole
    row.wrong += fresh(server, plain(1, "plain"), "plain") != picture
    row.leaked += len(list(server.folder.rglob("*.tmp")))


def done_of(server: ComfyServer, checkpoint: str) -> int:
    return len(load_file(server.folder / "output/sefi" / checkpoint)["losses"])


def crowded(folder: Path, times: int, random: Random) -> Row:
    """Two clients queue `times` prompts in all, in an order of their own."""
    folder = folder / "clients"
    furnish(folder)
    row = Row()
    with ComfyServer(folder, PACKS) as server:
        expected = [fresh(server, graph_of(kind, "alone"), "alone") for kind in range(KINDS)]
        for path in (server.folder / "output/sefi").rglob("*.safetensors"):
            path.unlink()
        orders = [[number % KINDS for number in range(max(1, times // 2))] for _ in range(2)]
        clients = []
        for client, order in enumerate(orders):
            random.shuffle(order)
            clients.append(threading.Thread(target=visit, args=(server, client, order, row)))
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        for client, order in enumerate(orders):
            for number, kind in enumerate(order):
                row.tried += 1
                row.wrong += results(server, f"c{client}n{number}x") != expected[kind]
        row.leaked += len(list(server.folder.rglob("*.tmp")))
    return row


def graph_of(kind: int, name: str) -> Graph:
    """Returns one of the different prompts: every other one trains."""
    return plain(kind, name) if kind % 2 else training(kind, name)


def visit(server: ComfyServer, client: int, order: list[int], row: Row) -> None:
    """Queues all prompts of a client at once, then waits for the last word about each."""
    identity, waiting = uuid.uuid4().hex, []
    for number, kind in enumerate(order):
        body = {"prompt": graph_of(kind, f"c{client}n{number}x"), "client_id": identity}
        waiting.append(server.post("prompt", body).json()["prompt_id"])
    for prompt in waiting:
        row.lost += told_of(server, prompt)["status"]["status_str"] != "success"


def told_of(server: ComfyServer, prompt: str) -> dict:
    """Returns what the host remembers of a prompt, as soon as it is done with."""
    while prompt not in (history := server.get(f"history/{prompt}")):
        time.sleep(0.5)
    return history[prompt]


FAULTS: dict[str, tuple[Callable[[Path, int, Random], Row], int]] = {
    "server killed while training, started again": (restarted, 20),
    "prompts of two clients at once": (crowded, 100),
}


def main() -> None:
    """Reads the command line, goes through the faults and prints the table."""
    given = options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        bad = print_table(FAULTS, Path(folder), given)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
