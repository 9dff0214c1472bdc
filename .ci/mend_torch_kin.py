"""Lets the registry's torchvision and torchaudio, compiled against CUDA, import beside a CPU-only
torch.

Their compiled libraries do not load there. torchvision's import then stops at two operators that
nobody has declared, torchaudio's at the library, which is put aside. The host uses their transforms
alone, which need no compiled operator.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

DECLARE = """

if not _has_ops():
    _declared = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _declared.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def imports(name: str) -> bool:
    """Whether a package imports, in a process of its own."""
    command = [sys.executable, "-c", f"import {name}"]
    return subprocess.run(command, capture_output=True).returncode == 0


def mend_torchvision(folder: Path) -> None:
    extension = folder / "extension.py"
    extension.write_text(extension.read_text() + DECLARE)


def mend_torchaudio(folder: Path) -> None:
    for library in folder.glob("lib/*.so"):
        library.rename(library.with_suffix(".unused"))


if __name__ == "__main__":
    packages = Path(importlib.util.find_spec("torch").origin).parents[1]
    for name, mend in {"torchvision": mend_torchvision, "torchaudio": mend_torchaudio}.items():
        if not imports(name):
            mend(packages / name)
        if not imports(name):
            sys.exit(f"{name} does not import; delete {sys.prefix} and run this again")
