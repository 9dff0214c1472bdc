"""Puts ComfyUI into this process as its own main.py does: on the card if there is one, and with
streamed weights (dynamic VRAM) if asked. Nothing else may be imported before.
"""

__all__ = ["boot"]

import importlib.util
import logging
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NO_LIBRARY = "this ComfyUI streams no weights: its library (comfy-aimdo) is not installed"


def boot(streamed: bool = False) -> str | None:
    """Makes `import comfy` work; a no-op where it already does.

    Returns:
        Why weights cannot be streamed, if that was asked for.
    """
    if importlib.util.find_spec("comfy") is not None:
        return "ComfyUI is in this process already" if streamed else None
    place = os.environ.get("COMFYUI_PATH") or (ROOT / ".host-path").read_text().strip()
    sys.path.insert(0, place)
    import comfy.options

    comfy.options.enable_args_parsing(False)
    library = importlib.util.find_spec("comfy_aimdo") is not None
    if streamed and library:
        import comfy_aimdo.control

        comfy_aimdo.control.init()  # before torch comes
    import torch
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    logging.getLogger().setLevel(logging.ERROR)
    if not streamed:
        return None
    return stream(library, torch.cuda.is_available())


def stream(library: bool, card: bool) -> str | None:
    """Has models streamed from now on; returns why not."""
    if not library:
        return NO_LIBRARY
    if not card:
        return "the host streams weights to cards alone"
    import comfy.memory_management
    import comfy.model_management
    import comfy.model_patcher
    import comfy_aimdo.control

    devices = [device.index for device in comfy.model_management.get_all_torch_devices()]
    try:
        begun = comfy_aimdo.control.init_devices((index, 0) for index in devices)
    except TypeError:  # as its versions before 0.4.10 take them
        begun = comfy_aimdo.control.init_devices(iter(devices))
    if not begun:
        return "the host's library for streamed weights does not run here"
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True
    return None
