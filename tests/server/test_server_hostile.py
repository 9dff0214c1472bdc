"""Workflows from strangers: every input of every node of ours with hostile values, over /prompt.

The inputs are those of /object_info, so a node that is added is covered. The server notes what it
opens (audit_pack): nothing outside its folders, and it starts no program.
"""

import json
import os
import sys
from pathlib import Path

import pytest
from comfy_server import ROOT, host_folder

MINIATURE = ROOT / "benchmarks/world/miniature.safetensors"
pytestmark = pytest.mark.skipif(not MINIATURE.is_file(), reason="there is no miniature")

CATEGORY = "SeFi ID"
TEXTS = (
    "../../escape", "C:\\escape", "a\0b", "a\r\nb", "\u202egpj", "\ud800", "x" * 100_000,
    "<img src=x onerror=alert(1)>", "$(touch /tmp/escape)", "__import__('os').mkdir('/tmp/escape')",
    "embedding:../../escape", "(" * 3000, "", None, {"a": 1}, [],
)  # fmt: skip
NUMBERS = (
    -1, 2**31, 2**64, 10**400, 1e308, float("nan"), float("inf"), "", "5; rm", "1e999", None,
    {"a": 1}, [],
)  # fmt: skip
VALUES = {
    "STRING": TEXTS,
    "COMBO": ("/tmp/escape", "..", *TEXTS[::2]),
    "INT": NUMBERS,
    "FLOAT": NUMBERS,
    "BOOLEAN": ("x", None, 5, [], {"a": 1}),
}
LINKED = ("x", 5, None, {"a": 1}, ["9999", 0], ["1", 99], ["1", -1], ["1", "0"], [["1"], 0])
SMALL = {
    "steps": 1, "resolution": 64, "preview_every": 0, "checkpoint_every": 0, "width": 64,
    "height": 64, "class_word": "person", "text": "a photo of V*", "preset": "paper",
}  # fmt: skip
SOURCES = {
    "MODEL": ("LoadMiniatureWorld", {"checkpoint": MINIATURE.name}, 0),
    "CLIP": ("LoadMiniatureWorld", {"checkpoint": MINIATURE.name}, 1),
    "VAE": ("LoadMiniatureWorld", {"checkpoint": MINIATURE.name}, 2),
    "IMAGE": ("LoadImage", {"image": "example.png"}, 0),
    "MASK": ("LoadImage", {"image": "example.png"}, 1),
    "LATENT": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}, 0),
    "SEFI_IDENTITY": ("LoadSeFiEmbedding", {"embedding": "hostile_00001_.safetensors"}, 0),
    "CONDITIONING": None,
}


@pytest.fixture(scope="module")
def server(miniature_server):
    return miniature_server


@pytest.fixture(scope="module")
def nodes(server):
    """Our nodes by id, as the server describes them; there is an identity to load."""
    info = server.get("object_info")
    ours = {name: node for name, node in info.items() if node["category"] == CATEGORY}
    train = graph_for(ours, "TrainSeFiID")
    save = {
        "class_type": "SaveSeFiEmbedding",
        "inputs": {"identity": ["node", 0], "filename_prefix": "hostile"},
    }
    assert server.run({**train, "save": save}).status == "success"
    return ours


def inputs_of(node):
    """Yields (name, type, options) of every input."""
    for group in ("required", "optional"):
        for name, (kind, *options) in node["input"].get(group, {}).items():
            yield name, "COMBO" if isinstance(kind, list) else kind, options[0] if options else {}


def source(kind):
    """Returns the node that gives a type, and a link to it."""
    if kind == "CONDITIONING":
        clip, _ = source("CLIP")
        text = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["CLIP", 1], "text": "a photo"}}
        return {"CLIP": clip["CLIP"], kind: text}, [kind, 0]
    if kind == "SEFI_ATTENTION":
        model, _ = source("MODEL")
        inputs = {"model": ["MODEL", 0], "stages": 5}
        return {**model, kind: {"class_type": "SeFiAttentionMap", "inputs": inputs}}, [kind, 1]
    class_type, inputs, slot = SOURCES[kind]
    return {kind: {"class_type": class_type, "inputs": inputs}}, [kind, slot]


def graph_for(ours, name):
    """Returns a graph that runs one node, as "node", with what it needs."""
    graph, inputs = {}, {}
    for key, kind, options in inputs_of(ours[name]):
        if kind in VALUES:
            inputs[key] = SMALL.get(key, options.get("default"))
            if kind == "COMBO" and "default" not in options and key == "embedding":
                inputs[key] = SOURCES["SEFI_IDENTITY"][1]["embedding"]
        elif key in ours[name]["input"].get("required", {}):
            more, inputs[key] = source(kind)
            graph |= more
    graph["node"] = {"class_type": name, "inputs": inputs}
    if not ours[name]["output_node"]:
        graph["end"] = {"class_type": "PreviewAny", "inputs": {"source": ["node", 0]}}
    return graph


def hostile_graphs(ours, name):
    """Yields (what it tries, whether it is a widget's, graph); a number in range is not hostile."""
    for key, kind, options in inputs_of(ours[name]):
        for value in VALUES.get(kind, LINKED):
            if isinstance(value, int) and options.get("min", 1) <= value <= options.get("max", 0):
                continue
            graph = graph_for(ours, name)
            graph["node"]["inputs"][key] = value
            yield f"{name}.{key} = {value!r:.60}", kind in VALUES, graph


def audit(server, start=0):
    """Returns what the server has noted since, and where the log ends."""
    with (server.folder / "audit.log").open("rb") as log:
        log.seek(start)
        lines = log.read().splitlines()
        return [json.loads(line) for line in lines], log.tell()


CHANGES = {  # how many of an event's arguments are paths
    "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1, "os.truncate": 1, "os.rename": 2, "os.link": 2,
    "os.symlink": 2,
}  # fmt: skip


def faults(events, server):
    """Returns what the server should not have done."""
    writable = [
        server.folder / name
        for name in ("output", "temp", "user", "models/sefi", "models/embeddings")
    ]
    readable = [
        server.folder, ROOT, host_folder(), Path(sys.prefix), Path(sys.base_prefix), Path("/proc"),
        Path("/sys"), Path("/etc/mime.types"), Path("/usr"), Path(sys.executable).resolve().parent,
    ]  # fmt: skip
    readable += [path.resolve() for path in readable]

    def inside(path, folders):
        path = Path(os.path.abspath(path))
        return any(path == folder or folder in path.parents for folder in folders)

    found = []
    for event, arguments in events:
        if event == "open":
            path, _, flags = arguments
            writes = int(flags) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if not path.isdigit() and not inside(path, writable if writes else readable):
                found.append((event, arguments))
        elif event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink",
                       "os.truncate"):  # fmt: skip
            paths = (
                arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
            )
            if not all(inside(path, writable) for path in paths):
                found.append((event, arguments))
        elif event.startswith(("subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn",
                               "os.fork", "pty.", "socket.connect")):  # fmt: skip
            found.append((event, arguments))
    return found


def listing(folder):
    return {path for path in folder.rglob("*") if "audit.log" not in path.name}


def test_hostile_values_are_told_in_a_sentence_and_touch_nothing(server, nodes):
    _, start = audit(server)
    before, tmp = listing(server.folder), set(Path("/tmp").glob("*escape*"))
    tried, wrong, refused = 0, [], 0
    for name in nodes:
        for what, widget, graph in hostile_graphs(nodes, name):
            run = server.run(graph)
            tried += 1
            refused += run.status in ("refused", "error")
            # A text where a link belongs can only be written by hand: there any refusal will do.
            if run.status == "error" and widget and not sentence(run.error):
                wrong.append((what, run.error[:300]))
            if any("<img" in text or "onerror" in text for text in run.texts("node")):
                wrong.append((what, "HTML reaches the page"))
    assert not wrong, "\n".join(map(str, wrong))
    assert tried > 100 and refused > tried / 2
    events, _ = audit(server, start)
    assert len(events) > tried / 10  # the audit does watch
    assert faults(events, server) == []
    made = listing(server.folder) - before
    allowed = [
        server.folder / name for name in ("output", "temp", "models/sefi", "models/embeddings")
    ]
    assert [p for p in made if not any(folder in (p, *p.parents) for folder in allowed)] == []
    assert not [path for path in made if path.suffix == ".tmp"]
    assert set(Path("/tmp").glob("*escape*")) == tmp and not list(server.folder.rglob("*escape*"))
    assert server.get("system_stats")


def sentence(said):
    """Whether an error reads as one sentence: no traceback, no line end, no name of a class."""
    names = (
        "Traceback",
        "object has no attribute",
        "object is not",
        "mismatch",
        "torch.",
        "NoneType",
    )
    whole = 20 < len(said) < 1000 and "\n" not in said and said.isprintable()
    return whole and said.endswith(".") and not any(name in said for name in names)


def test_the_audit_sees_what_it_should(server):
    outside = [["open", ["/etc/passwd", "r", "0"]], ["open", ["/tmp/x", "w", str(os.O_WRONLY)]],
               ["os.remove", ["/tmp/x"]], ["subprocess.Popen", ["ls"]]]  # fmt: skip
    inside = [["open", [str(server.folder / "output/x"), "w", str(os.O_WRONLY)]]]
    assert len(faults(outside, server)) == 4 and faults(inside, server) == []
    assert len(faults([["open", [f"{server.folder}/output/../../x", "w", "1"]]], server)) == 1


def test_a_graph_still_works_after_them(server, nodes):
    graph = graph_for(nodes, "ApplySeFiConditioning")
    graph["node"]["inputs"]["text"] = "a photo of V* at the end"
    assert server.run(graph).status == "success"
