"""What all demos share: where things lie, a graph run in view, files fetched and named."""

__all__ = [
    "BASE",
    "OUT",
    "ROOT",
    "Terminal",
    "download",
    "fetched",
    "give",
    "keep",
    "queue",
    "say",
    "workflow",
]

import json
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))
from comfy_server import ComfyServer, Event, Graph, Run  # noqa: E402

BASE, OUT = ROOT / "demo/comfyui", ROOT / "demo/out"
LINE_SECONDS = 10  # between lines of progress where they cannot be overwritten


class Terminal:
    """Shows where a graph is: a line that is overwritten, or one now and then."""

    shown = 0.0  # of all graphs: short ones in a row say no more than one long one

    def __init__(self, graph: Graph) -> None:
        self.titles = {number: node["_meta"]["title"] for number, node in graph.items()}
        self.node = ""

    def watch(self, event: Event) -> None:
        """Takes an event of the server."""
        if event.kind == "executing" and event.data["node"]:
            self.node = event.data["node"]
            self.show("")
        elif event.line:
            self.node, text = event.line
            self.show(text.replace("\n", "   "))

    def show(self, text: str) -> None:
        line = f"  {self.titles.get(self.node, self.node)}  {text}"
        if sys.stdout.isatty():
            print(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
        elif text and (
            time.monotonic() - Terminal.shown > LINE_SECONDS or text.startswith("Saved")
        ):
            Terminal.shown = time.monotonic()
            print(line, flush=True)

    def end(self) -> None:
        if sys.stdout.isatty():
            print("\r\033[K", end="", flush=True)


def say(text: str) -> None:
    print(f"[demo] {text}", flush=True)


def give(picture: Path) -> None:
    """Puts a picture into the server's input folder; newer hosts refuse a link that leads out."""
    place = BASE / "input" / picture.name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    shutil.copy(picture, place)


def keep(path: Path, what: str) -> None:
    say(f"{path}  {what}")


def queue(server: ComfyServer, graph: Graph) -> Run:
    """Runs a graph in view; ends the demo if it fails."""
    terminal = Terminal(graph)
    run = server.run(graph, terminal.watch)
    terminal.end()
    if run.status != "success":
        sys.exit(f"[demo] {run.status}: {run.error}\n{server.log_tail()}")
    return run


def workflow(name: str) -> Graph:
    """Returns the API twin of an example workflow."""
    return json.loads((ROOT / f"workflows/api/{name}.json").read_text())


def fetched(server: ComfyServer, picture: dict[str, str]) -> bytes:
    """Returns the file of a picture that a node shows."""
    return server.fetch(f"view?{urlencode(picture)}").content


def download(server: ComfyServer, picture: dict[str, str], name: str, what: str) -> None:
    (OUT / name).write_bytes(fetched(server, picture))
    keep(OUT / name, what)
