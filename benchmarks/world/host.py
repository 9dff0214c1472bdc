"""Puts the genuine ComfyUI on the path, on the CPU: the package does so before all else.

The folder is `COMFYUI_PATH`, or the one line of `.host-path` in the pack's root. Inside a running
ComfyUI, `comfy` is there already and nothing happens. The host's own `nodes` is never imported
from here: beside the pack it would be the pack's.
"""

__all__ = ["ensure_host"]

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def ensure_host() -> None:
    """Makes `import comfy` work; a no-op where it already does."""
    if importlib.util.find_spec("comfy") is not None:
        return
    place = os.environ.get("COMFYUI_PATH") or (ROOT / ".host-path").read_text().strip()
    if not (Path(place) / "comfy").is_dir():
        raise FileNotFoundError(f"{place}: no ComfyUI here; set COMFYUI_PATH to its root folder.")
    sys.path.insert(0, place)
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
