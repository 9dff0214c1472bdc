"""What watching costs: the speed of a training with its panel open in a page, and without.

    .venv/bin/python benchmarks/panel.py [--pairs 9] [--steps 200]

On one server, in turn, the same training with its workflow open in a page that has this pack's
script and in one that is refused it, in pairs whose order alternates: the host draws its own
progress in both. The figure is the median of the pairs' ratios, with the panel / without; it should
be taken on a machine that does nothing else, which is to say that the browser draws on it, too.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "tests"), str(ROOT / "tests/browser")]
from comfy_server import ComfyServer, Graph, changed, with_miniature  # noqa: E402
from furnished import furnish  # noqa: E402
from opened import FLAGS, Opened, on_the_miniature  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

WORKFLOW = "train_identity"
SCRIPT = "**/sefi.js"
PLACE = "99999999-0000-4000-8000-000000000000"  # the workflow's id: by it a page knows its panel


def seconds(server: ComfyServer, graph: Graph, seed: int) -> float:
    """Returns how long a training takes by the server's clock, from its first step to its last."""
    graph = changed(graph, TrainSeFiID={"train_seed": seed})
    run = server.run(graph, extra={"extra_pnginfo": {"workflow": {"id": PLACE}}})
    if run.status != "success":
        sys.exit(f"{run.status}: {run.error}")
    (status,) = [server.get(f"history/{run.prompt}")[run.prompt]["status"]]
    times = {kind: data["timestamp"] for kind, data in status["messages"]}
    return (times["execution_success"] - times["execution_start"]) / 1000


def training(steps: int) -> Graph:
    """Returns the training alone, on the miniature world."""
    graph = with_miniature(json.loads((ROOT / f"workflows/api/{WORKFLOW}.json").read_text()))
    kept = {"LoadMiniatureWorld", "LoadImage", "TrainSeFiID"}
    graph = {number: node for number, node in graph.items() if node["class_type"] in kept}
    settings = {"steps": steps, "resolution": 64, "preview_every": 0, "checkpoint_every": 0}
    return changed(graph, TrainSeFiID=settings)


def measure(server: ComfyServer, opened: Opened, pairs: int, graph: Graph) -> None:
    workflow = json.loads((ROOT / f"workflows/{WORKFLOW}.json").read_text())
    workflow = on_the_miniature(workflow) | {"id": PLACE}
    taken: dict[str, list[float]] = {"with": [], "without": []}
    seconds(server, graph, 0)  # the first one loads and warms up
    for pair in range(pairs):
        order = list(taken) if pair % 2 else list(reversed(taken))
        for which in order:
            opened.page.unroute_all()
            if which == "without":
                opened.page.route(SCRIPT, lambda route: route.abort())
            opened.load()
            opened.open_workflow(workflow)
            taken[which].append(seconds(server, graph, 1 + 2 * pair + order.index(which)))
            opened.page.wait_for_timeout(1000)
            shown = opened.page.locator(".sefi-dots").count() > 0
            if shown != (which == "with"):
                sys.exit(f"the panel was {'' if shown else 'not '}shown {which} it")
            print(f"pair {pair + 1}, {which} the panel: {taken[which][-1]:.2f} s", flush=True)
    ratios = [a / b for a, b in zip(taken["with"], taken["without"], strict=True)]
    print(
        f"with / without: {statistics.median(ratios):.4f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}, {pairs} pairs)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    packs = [ROOT / "benchmarks/world/comfyui_node"]
    with tempfile.TemporaryDirectory() as folder:
        with ComfyServer(Path(folder), packs) as server, sync_playwright() as playwright:
            furnish(server.folder)
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=FLAGS
            )
            opened = Opened(server, browser.new_context(), vue=False)
            measure(server, opened, options.pairs, training(options.steps))
            browser.close()


if __name__ == "__main__":
    main()
