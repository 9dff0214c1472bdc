"""cast.py with the miniature world in a checkpoint's place, which no loader of the host reads.

python tests/cast_on_miniature.py FOLDER --comfyui PATH --checkpoint miniature.safetensors ...
"""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND, WORLD = str(ROOT / "cast.py"), str(ROOT / "benchmarks/world")


def command() -> object:
    """Returns cast.py as a module."""
    spec = importlib.util.spec_from_file_location("cast_command", COMMAND)
    module = sys.modules["cast_command"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(path: str, root: str = str(ROOT), world: str = WORLD) -> tuple:
    """Returns the miniature's MODEL, CLIP and VAE; in a worker of Ray too, where only what stands
    in here is known.
    """
    import importlib
    import sys
    import types

    import nodes  # the host's: the pack's own root is on no path

    assert root not in sys.path and not nodes.__file__.startswith(f"{root}/nodes"), sys.path
    package = sys.modules["miniature_world"] = types.ModuleType("miniature_world")
    package.__path__ = [world]
    return importlib.import_module("miniature_world.load").load(path)


if __name__ == "__main__":
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT / "tests"]
    os.chdir(ROOT)  # where somebody may well start it from
    sys.exit(command().main(sys.argv[1:], load))
