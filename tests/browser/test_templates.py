"""Every example workflow, opened from the template browser; two are run as they are, only smaller.

Two ask for a checkpoint that is not here, and the host says so. The others run over HTTP
(tests/server) by the same graphs, but for sdxl, which is sdxl_tags in other words.
"""

import json

import pytest
import torch
from comfy_server import PACK_NAME, ROOT
from sefi_pack.sefi_core.identity.file_format import save_identity
from sefi_pack.sefi_core.identity.identity import Identity

WORKFLOWS = ROOT / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
WITHOUT_CHECKPOINT = ["sdxl", "sdxl_tags"]
RUN = ["train_and_apply", "detailer_and_upscale"]
SMALL = {
    "TrainSeFiID": {
        "steps": 2, "resolution": 64, "preview_every": 0, "checkpoint_every": 0, "preset": "paper",
    },
    "EmptyLatentImage": {"width": 64, "height": 64, "batch_size": 1},
    "KSampler": {"steps": 2},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def identities(server):
    """The two identities that the workflows choose."""
    generator = torch.Generator().manual_seed(1)
    for number in (1, 2):
        pairs = torch.randn(5, 2, 1, 768, generator=generator) * 0.02
        path = server.folder / f"models/sefi/my_identity_{number:05}_.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_identity(Identity({"clip_l": pairs}), path)


def open_template(opened, name):
    """Opens it as an artist does; returns when all its nodes are there."""
    opened.page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    opened.page.get_by_text(PACK_NAME, exact=True).first.click()
    card = opened.page.get_by_test_id(f"template-workflow-{name}")
    card.scroll_into_view_if_needed()  # the pictures of cards out of sight are not fetched
    opened.page.wait_for_function(
        "image => image.naturalWidth > 0", arg=card.locator("img").first.element_handle()
    )
    opened.shoot("templates")
    card.click()
    types = [node["type"] for node in json.loads((WORKFLOWS / f"{name}.json").read_text())["nodes"]]
    opened.page.wait_for_function(
        """([name, types]) => app.extensionManager.workflow.activeWorkflow?.path.includes(name)
            && `${app.graph.nodes.map((node) => node.type).sort()}` === `${types.sort()}`""",
        arg=[name, types],
    )
    for kind, values in SMALL.items():
        opened.set_widgets(kind, **values)


def covered(opened):
    """The nodes that reach into another one, with all that the page has added to them."""
    return opened.page.evaluate(
        """() => {
            const boxes = app.graph.nodes.map((node) => ({
                title: node.title, left: node.pos[0], top: node.pos[1] - 30,
                right: node.pos[0] + node.size[0],
                bottom: node.pos[1] + Math.max(node.size[1], node.computeSize()[1]),
            }))
            return boxes.filter((a) => boxes.some((b) => b !== a && a.left < b.right
                && b.left < a.right && a.top < b.bottom && b.top < a.bottom)).map((a) => a.title)
        }"""
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_CHECKPOINT])
def test_a_template_opens_and_runs(opened, name):
    open_template(opened, name)
    assert covered(opened) == []
    if name.startswith("train"):
        assert opened.page.locator(".sefi-panel").first.is_visible()  # at the zoom it opened with
    if name in RUN:
        status = opened.run_to_the_end()["status"]
        assert status["status_str"] == "success", status
    if name == "train_and_apply":
        opened.wait_for_panel("finished, 2 steps")
        assert opened.dots() == 2
    opened.shoot(name)


@pytest.mark.parametrize("name", WITHOUT_CHECKPOINT)
def test_a_template_opens_and_lacks_its_checkpoint_alone(opened, name):
    open_template(opened, name)
    assert covered(opened) == []
    with opened.page.expect_response("**/prompt") as refused:
        opened.run()
    told = refused.value.json()["node_errors"]
    assert [
        (e["type"], e["extra_info"]["input_name"]) for n in told.values() for e in n["errors"]
    ] == [("value_not_in_list", "ckpt_name")]
    opened.shoot(name)
    opened.page.keyboard.press("Escape")
