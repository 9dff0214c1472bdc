"""The pack under the name `sefi_pack`, as a host would load it.

Its root never goes on sys.path, where its `nodes` would hide the host's module of that name.
"""

import os
import sys
import types
from collections import Counter
from pathlib import Path

# Before torch comes: its threads wait without burning the processors that others need.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

# A machine that is busy with something else is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

SHARED = ("browser", "server")  # folders whose tests share a server, and a page


class ByServer(LoadScopeScheduling):
    """With several processes, a file's tests are of one, and so are those of a shared folder."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        folder = path.partition("/")[0]
        return folder if folder in SHARED else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByServer:
    return ByServer(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no process waits for it at the end."""
    sizes = Counter(item.path for item in items)

    def place(item: pytest.Item) -> tuple[bool, int, str]:
        shared = item.path.parent.name in SHARED
        return not shared, 0 if shared else -sizes[item.path], str(item.path)

    items.sort(key=place)


pack = types.ModuleType("sefi_pack")
pack.__path__ = [str(ROOT)]
sys.modules["sefi_pack"] = pack
