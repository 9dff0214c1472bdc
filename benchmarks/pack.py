"""Puts the pack itself in this process, as `sefi_pack`: call `ensure_pack` before importing that.

As in the tests, its root leaves sys.path, where its `nodes` would hide the host's.
"""

__all__ = ["ensure_pack"]

import importlib
import sys
import types
from pathlib import Path

from .world.host import ensure_host

ROOT = Path(__file__).resolve().parent.parent


def ensure_pack() -> None:
    """Makes `import sefi_pack` work, and the host's modules that its nodes import."""
    ensure_host()
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    if "sefi_pack" not in sys.modules:
        pack = types.ModuleType("sefi_pack")
        pack.__path__ = [str(ROOT)]
        sys.modules["sefi_pack"] = pack
    # The host's `utils` is a package only if it comes before the host's `nodes`.
    importlib.import_module("utils.extra_config")
