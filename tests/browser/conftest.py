"""A genuine server and its page in a headless Chromium, in both renderings of nodes.

Pictures of what was seen are left in tests/browser/shots.
"""

import json
import os
import shutil

import pytest
from comfy_server import ROOT, ComfyServer
from furnished import furnish
from opened import FLAGS, SHOTS, VIEWPORT, Opened, on_the_miniature
from playwright.sync_api import sync_playwright


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comfyui")
    furnish(folder)
    with ComfyServer(folder, packs=[ROOT / "benchmarks/world/comfyui_node"]) as server:
        yield server


@pytest.fixture(scope="session")
def shots():
    """The folder of pictures, emptied."""
    shutil.rmtree(SHOTS, ignore_errors=True)
    SHOTS.mkdir()


@pytest.fixture(scope="module")  # it holds an event loop, which other tests must not meet
def browser(shots):
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.skip("there is no Chromium: install it, or name one in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tabs(server, browser):
    """The tabs opened so far, by whether their nodes are rendered by Vue."""
    tabs = {}
    yield tabs
    for tab in tabs.values():
        tab.page.context.close()


@pytest.fixture
def opened(server, browser, tabs, request):
    """A tab; nothing of ours may complain in it, or ask anybody else for anything."""
    vue = bool(getattr(request, "param", False))
    if vue not in tabs:
        tabs[vue] = Opened(server, browser.new_context(viewport=VIEWPORT), vue)
    yield tabs[vue]
    tabs[vue].clear_queue()
    complaints, abroad = tabs[vue].told()
    assert complaints == []
    assert abroad == []


@pytest.fixture(scope="session")
def miniature():
    """The training workflow on the miniature world: a function of what else it has."""
    text = (ROOT / "workflows/train_identity.json").read_text()
    return lambda **fields: on_the_miniature(json.loads(text)) | fields
