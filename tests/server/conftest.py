"""One genuine server for all tests, with what the example workflows need in its folders."""

import json

import pytest
from comfy_server import ROOT, ComfyServer
from furnished import furnish


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comfyui")
    furnish(folder)
    with ComfyServer(folder, packs=[ROOT / "tests/server/seeded_families"]) as server:
        yield server


@pytest.fixture(scope="session")
def graphs():
    """The API twins of the workflows, by name."""
    twins = (ROOT / "workflows/api").glob("*.json")
    return {path.stem: json.loads(path.read_text()) for path in twins}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    server = getattr(item, "funcargs", {}).get("server")
    if report.failed and isinstance(server, ComfyServer):
        report.sections.append(("ComfyUI", server.log_tail()))
    return report
