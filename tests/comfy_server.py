"""A genuine ComfyUI server in a folder of its own, driven over HTTP and its websocket.

    with ComfyServer(folder) as server:
        run = server.run(graph)

Models, inputs, outputs and custom nodes live in `folder`; nothing is written elsewhere.
"""

__all__ = [
    "PACK_NAME",
    "ROOT",
    "ComfyServer",
    "Event",
    "Graph",
    "Run",
    "changed",
    "host_folder",
    "link",
    "node_of",
    "with_miniature",
]

import copy
import json
import os
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
import websocket

ROOT = Path(__file__).resolve().parent.parent
PACK_NAME = "ComfyUI-SeFi-ID"
START_SECONDS = 600
SILENCE_SECONDS = 3600  # large pictures encoded on a slow machine; a server that ends is not silent
LOG_LINES = 40
TEXT_MESSAGE = 3  # the host's number of a binary message that holds a line of text for a node

Graph = dict[str, dict[str, Any]]
"""What `/prompt` takes: {node id: {"class_type": ..., "inputs": {...}}}."""


@dataclass(frozen=True)
class Event:
    """One message of the websocket: `kind` is its name, or "text" for a line on a node."""

    kind: str
    data: dict[str, Any]

    @property
    def line(self) -> tuple[str, str] | None:
        """The node and the text that the message shows on it; None if it shows none."""
        data = self.data
        if self.kind == "text":
            return data["node"], data["text"]
        if self.kind != "sefi.progress":
            return None
        text = data["note"] or f"step {data['done']} / {data['total']}"
        if data["points"] and not data["note"]:
            text += "\nloss {1}, attention {2}".format(*data["points"][-1])
        return data["node"], text


@dataclass
class Run:
    """What became of a queued graph.

    Attributes:
        status: "success", "error", "interrupted", or "refused" (it was not even queued).
        outputs: What each output node shows, by node id.
        error: The host's message; for a refused graph, those of all nodes.
        events: Everything that the websocket told meanwhile.
        prompt: The host's id of it.
    """

    status: str = "success"
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str = ""
    events: list[Event] = field(default_factory=list)
    prompt: str = ""

    def texts(self, node_id: str) -> list[str]:
        """Returns the lines of text that a node showed, in order."""
        lines = (event.line for event in self.events)
        return [line[1] for line in lines if line and line[0] == node_id]

    def steps(self, node_id: str) -> list[int]:
        """Returns the values that a node's progress bar took, in order."""
        progress = (e.data for e in self.events if e.kind == "progress")
        return [int(data["value"]) for data in progress if data["node"] == node_id]

    def cached(self) -> set[str]:
        """Returns the nodes that were not executed, because the host remembered their results."""
        return {
            node for e in self.events if e.kind == "execution_cached" for node in e.data["nodes"]
        }


def host_folder() -> Path:
    """Returns the folder of the ComfyUI to start: COMFYUI_PATH, or the one that set-up noted."""
    return Path(os.environ.get("COMFYUI_PATH") or (ROOT / ".host-path").read_text().strip())


def node_of(graph: Graph, class_type: str) -> str:
    """Returns the id of a graph's only node of a class."""
    (found,) = (number for number, node in graph.items() if node["class_type"] == class_type)
    return found


def changed(graph: Graph, **inputs: dict[str, Any]) -> Graph:
    """Returns a copy of a graph with other inputs for its nodes, by their class."""
    graph = copy.deepcopy(graph)
    for class_type, values in inputs.items():
        graph[node_of(graph, class_type)]["inputs"] |= values
    return graph


def with_miniature(graph: Graph) -> Graph:
    """Returns a copy of a graph in which the miniature world stands in for its checkpoint."""
    graph = copy.deepcopy(graph)
    loader = graph[node_of(graph, "CheckpointLoaderSimple")]
    loader.update(class_type="LoadMiniatureWorld", inputs={"checkpoint": "miniature.safetensors"})
    return graph


def link(target: Path, place: Path) -> None:
    """Makes `place` a link to `target`, whatever it linked to before."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target.resolve(), target_is_directory=target.is_dir())


class ComfyServer:
    """A server process; a context manager that starts and stops it.

    Arguments:
        folder: Its base directory, made if missing and kept afterwards.
        packs: Custom nodes besides this pack, to link into it.
        flags: Command-line flags of the host besides the ones for isolation.
    """

    def __init__(
        self, folder: Path, packs: Iterable[Path] = (), flags: Iterable[str] = ("--cpu",)
    ) -> None:
        self.folder, self.flags = folder.resolve(), tuple(flags)
        self.log = self.folder / "server.log"
        self.client = uuid.uuid4().hex
        for name in ("input", "output", "temp", "user", "models/checkpoints", "custom_nodes"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        link(ROOT, self.folder / "custom_nodes" / PACK_NAME)
        for pack in packs:
            link(pack, self.folder / "custom_nodes" / pack.name)

    def __enter__(self) -> "ComfyServer":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [sys.executable, "main.py", "--port", self.address.split(":")[1]]
        command += ["--base-directory", str(self.folder), "--database-url", "sqlite:///:memory:"]
        command += ["--disable-api-nodes", *self.flags]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=host_folder(), stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self.wait_until_ready()
            self.socket = websocket.create_connection(
                f"ws://{self.address}/ws?clientId={self.client}", timeout=SILENCE_SECONDS
            )
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()
        self.stop()

    def stop(self) -> None:
        """Ends the process, by force if it does not listen."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait_until_ready(self) -> None:
        """Returns as soon as the server answers.

        Raises:
            RuntimeError: It ended, or took too long; with the end of its log.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.get("system_stats")
                return
            except requests.ConnectionError:
                time.sleep(0.2)
        raise RuntimeError(f"ComfyUI did not start. {self.log_tail()}")

    def log_tail(self) -> str:
        """Returns the last lines of the server's log, and where the rest is."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join([f"The end of {self.log}:", *lines])

    def fetch(self, path: str) -> requests.Response:
        """Returns the server's answer at a path; raises requests.HTTPError for a refusal."""
        response = requests.get(f"http://{self.address}/{path}", timeout=60)
        response.raise_for_status()
        return response

    def get(self, path: str) -> Any:
        """Returns the JSON at a path."""
        return self.fetch(path).json()

    def post(self, path: str, body: dict[str, Any]) -> requests.Response:
        # Not requests' own JSON, which refuses the NaN that a page can send.
        return requests.post(
            f"http://{self.address}/{path}",
            data=json.dumps(body),
            headers={"Content-Type": "application/json"},
            timeout=60,
        )

    def interrupt(self) -> None:
        """Presses the stop button."""
        self.post("interrupt", {}).raise_for_status()

    def run(
        self,
        graph: Graph,
        watch: Callable[[Event], None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Run:
        """Queues a graph, follows it to its end and returns what became of it.

        Arguments:
            watch: Called with every event as it comes.
            extra: What a page sends beside the graph: the workflow, in `extra_pnginfo`.
        """
        body = {"prompt": graph, "client_id": self.client, "extra_data": extra or {}}
        answer = self.post("prompt", body).json()
        if "prompt_id" not in answer:
            return Run("refused", error=refusal_in(answer))
        run = Run(prompt=answer["prompt_id"])
        for event in self.events(answer["prompt_id"]):
            run.events.append(event)
            if watch is not None:
                watch(event)
            if event.kind in ("execution_error", "execution_interrupted"):
                run.status = event.kind.removeprefix("execution_")
                run.error = event.data.get("exception_message", "").strip()
        run.outputs = self.get(f"history/{answer['prompt_id']}")[answer["prompt_id"]]["outputs"]
        return run

    def events(self, prompt_id: str) -> Iterator[Event]:
        """Yields what the websocket tells, until the graph is done with.

        Raises:
            RuntimeError: The server ended or fell silent; with the end of its log.
        """
        while True:
            try:
                message = self.socket.recv()
            except (OSError, websocket.WebSocketException) as error:
                raise RuntimeError(f"ComfyUI is gone ({error}). {self.log_tail()}") from error
            if isinstance(message, bytes):
                event = text_event(message)
            else:
                told = json.loads(message)
                event = Event(told["type"], told["data"])
            if event is None:
                continue
            yield event
            # The last word about a graph: by then its history is written.
            if event.kind == "executing" and event.data == {"node": None, "prompt_id": prompt_id}:
                return


def refusal_in(answer: dict[str, Any]) -> str:
    """Returns the sentence with which one of our nodes refused a graph; all messages of another."""
    errors = [error for node in answer["node_errors"].values() for error in node["errors"]]
    custom = [error for error in errors if error["type"] == "custom_validation_failed"]
    if custom and custom == errors:
        return str(custom[0]["details"]).partition(" - ")[2]
    return json.dumps([answer["error"], answer["node_errors"]])


def text_event(message: bytes) -> Event | None:
    """Returns a binary message's line of text for a node; None for a picture."""
    kind, length = struct.unpack_from(">II", message)
    if kind != TEXT_MESSAGE:
        return None
    node, text = message[8 : 8 + length].decode(), message[8 + length :].decode()
    return Event("text", {"node": node, "text": text})
