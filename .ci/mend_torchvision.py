"""Lets the registry's torchvision, compiled against CUDA, import beside a CPU-only torch.

Its compiled library does not load there, and its import then stops at two operators that nobody has
declared. The host uses its transforms alone, which need no compiled operator.
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


def imports() -> bool:
    """Whether torchvision imports, in a process of its own."""
    command = [sys.executable, "-c", "import torchvision"]
    return subprocess.run(command, capture_output=True).returncode == 0


if __name__ == "__main__" and not imports():
    packages = Path(importlib.util.find_spec("torch").origin).parents[1]
    extension = packages / "torchvision/extension.py"
    extension.write_text(extension.read_text() + DECLARE)
    if not imports():
        sys.exit("torchvision does not import in .venv; delete .venv and run this again")
