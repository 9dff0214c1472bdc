"""Writes docs/messages.md, every sentence an artist can meet, from the code that says it:
`python -m benchmarks.messages`.

A sentence is the text of a SefiError that is raised, or that a function builds to be raised; what
is filled in stands as <name>.
"""

__all__ = ["Message", "messages", "page"]

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/messages.md"
FOLDERS = ("sefi_core", "nodes")
KINDS = {
    "PromptError": "Prompts",
    "PictureError": "Pictures and masks",
    "SettingsError": "Settings and names",
    "MismatchError": "Families",
    "IdentityFileError": "Files",
    "TrainingError": "Trainings",
}
DULL = {"one_line", "join", "len", "str", "sorted", "list", "self", "getattr", "type", "max", "min",
        "items", "values", "map", "shape"}  # fmt: skip
HEAD = """# What the nodes can say

Every sentence with which a node refuses, made from the code by `python -m benchmarks.messages`.
What is filled in stands in angle brackets. After each of them model, CLIP and files are as they
were.
"""


@dataclass(frozen=True)
class Message:
    """One sentence: the kind of its error, its text, and where the code says it."""

    kind: str
    text: str
    place: str


def messages() -> list[Message]:
    """Returns every sentence of the pack, in the order of the code."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return [message for path in files for message in of(path)]


def of(path: Path) -> Iterator[Message]:
    """Yields the sentences of one file."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        kind, arguments = node.func.id, node.args
        if kind == "refused" and len(arguments) == 2:  # container.py's short form
            kind, text = "IdentityFileError", f"<file name>: {spoken(arguments[1])}."
        elif kind in KINDS and len(arguments) == 1:
            text = spoken(arguments[0])
        else:
            continue
        if len(re.sub("<[^>]*>", "", text)) > 20:  # not one that only passes on another
            yield Message(kind, text, f"{path.relative_to(ROOT)}:{node.lineno}")


def spoken(node: ast.expr) -> str:
    """Returns a string expression as text, what is filled in by its name."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(spoken(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return f"<{filled(node.value)}>"
    if isinstance(node, ast.BinOp):
        return spoken(node.left) + spoken(node.right)
    return f"<{filled(node)}>"


def filled(node: ast.expr) -> str:
    """Returns a short name of an expression that is filled in."""
    attributes = [n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)]
    names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    telling = [name for name in [*attributes, *names] if name not in DULL]
    return telling[0].replace("__name__", "kind").replace("_", " ") if telling else "..."


def page() -> str:
    """Returns the page as it should be."""
    found, parts = messages(), [HEAD]
    for kind, title in KINDS.items():
        texts = sorted({message.text for message in found if message.kind == kind})
        parts.append(f"\n## {title}\n\n" + "".join(f"- {text}\n" for text in texts))
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
