"""Every example workflow, opened from the template browser and run as it is, only smaller."""

import pytest
from comfy_server import PACK_NAME, ROOT

NAMES = ["train_identity", "apply_identity", "train_and_apply"]  # the second uses the first's
WORKFLOWS = ROOT / "workflows"
SMALL = {
    "TrainSeFiID": {"steps": 4, "resolution": 64, "preview_every": 2},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "KSampler": {"steps": 2},
    "LoadSeFiEmbedding": {"embedding": "my_identity_00001_.safetensors"},
}


def open_template(opened, name):
    opened.page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    opened.page.get_by_text(PACK_NAME, exact=True).first.click()
    opened.page.locator(f"img[alt*='{name}']").first.wait_for()
    opened.page.wait_for_function(
        "name => document.querySelector(`img[alt*='${name}']`).naturalWidth > 0", arg=name
    )
    opened.shoot("templates")
    opened.page.get_by_text(name, exact=True).first.click()
    opened.page.wait_for_function(
        "name => app.extensionManager.workflow.activeWorkflow?.path.includes(name)", arg=name
    )


def test_all_of_them_are_here():
    assert sorted(NAMES) == sorted(path.stem for path in WORKFLOWS.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_a_template_opens_and_runs(opened, name):
    open_template(opened, name)
    for kind, values in SMALL.items():
        opened.set_widgets(kind, **values)
    status = opened.run_to_the_end()["status"]
    assert status["status_str"] == "success", status
    if name != "apply_identity":
        opened.wait_for_panel("finished, 4 steps")
        assert opened.dots() == 4
    opened.shoot(name)
