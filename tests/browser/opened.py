"""ComfyUI's page as an artist has it open: what the tests do in it, and what it complains about."""

__all__ = ["FLAGS", "PATIENCE", "SHOTS", "VIEWPORT", "Opened", "on_the_miniature"]

from pathlib import Path
from typing import Any

from comfy_server import PACK_NAME, ComfyServer
from playwright.sync_api import BrowserContext, ConsoleMessage, Page

SHOTS = Path(__file__).parent / "shots"
VIEWPORT = {"width": 1500, "height": 1000}
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.Minimap.Visible": False,
    "LiteGraph.Canvas.MaximumFps": 10,  # drawn without a card, by the processors that train
}
REGISTRY = "https://api.comfy.org/"  # the host asks it about every pack in a workflow
PATIENCE = 400_000  # ms, of a busy machine


def on_the_miniature(workflow: dict[str, Any]) -> dict[str, Any]:
    """Returns a workflow with the miniature world in place of its checkpoint."""
    for node in workflow["nodes"]:
        if node["type"] == "CheckpointLoaderSimple":
            (socket,) = node["inputs"]
            socket["name"] = socket["widget"]["name"] = "checkpoint"
            node |= {"type": "LoadMiniatureWorld", "properties": {}}
            node["widgets_values"] = ["miniature.safetensors"]
    return workflow


class Opened:
    """A tab. `complaints` are errors and warnings of ours; `ours_abroad` the requests to anybody
    but the server that our code has made.
    """

    def __init__(self, server: ComfyServer, context: BrowserContext, vue: bool) -> None:
        self.server, self.vue = server, vue
        self.complaints: list[str] = []
        self.ours_abroad: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.note(str(error.stack)))
        wire = context.new_cdp_session(self.page)
        wire.send("Network.enable")
        wire.on("Network.requestWillBeSent", self.watch)
        self.load()

    def load(self) -> None:
        """Opens the page, or reloads it."""
        for name, value in {**SETTINGS, "Comfy.VueNodes.Enabled": self.vue}.items():
            self.server.post(f"settings/{name}", value)
        self.page.goto(f"http://{self.server.address}/", wait_until="domcontentloaded")
        self.page.wait_for_function("window.app?.graph && app.extensionManager?.setting")
        self.page.wait_for_selector("[data-testid=queue-button]")
        self.page.wait_for_function("app.graph.nodes.length || app.graph.id")

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.note(f"{message.text} {message.location}")

    def note(self, complaint: str) -> None:
        if "sefi" in complaint.lower() and REGISTRY not in complaint:
            self.complaints.append(complaint)

    def watch(self, event: dict[str, Any]) -> None:
        url = event["request"]["url"]
        if self.server.address not in url and not url.startswith(("data:", "blob:")):
            if PACK_NAME in str(event["initiator"]) or not url.startswith(REGISTRY):
                self.ours_abroad.append(url)

    def told(self) -> tuple[list[str], list[str]]:
        """Returns the complaints and our requests abroad since the last time."""
        told = self.complaints, self.ours_abroad
        self.complaints, self.ours_abroad = [], []
        return told

    def open_workflow(self, graph: dict[str, Any]) -> None:
        self.page.evaluate("graph => app.loadGraphData(graph)", graph)

    def put_cast(self) -> None:
        """Puts Train SeFi Cast, linked to the checkpoint, in place of all other nodes."""
        self.page.evaluate(
            """() => {
                const was = app.graph.nodes.find((n) => n.type === 'TrainSeFiID')
                const loader = was.getInputNode(0)
                const made = LiteGraph.createNode('TrainSeFiCast')
                made.pos = [...was.pos]
                app.graph.add(made)
                for (const [slot, name] of ['model', 'clip', 'vae'].entries())
                    loader.connect(slot, made, made.findInputSlot(name))
                for (const node of [...app.graph.nodes])
                    if (node !== made && node !== loader) app.graph.remove(node)
            }"""
        )

    def set_widgets(self, kind: str, **values: Any) -> None:
        """Sets widgets of the nodes of a kind."""
        self.page.evaluate(
            """([kind, values]) => {
                for (const node of app.graph.nodes.filter((n) => n.type === kind))
                    for (const widget of node.widgets)
                        if (widget.name in values) widget.value = values[widget.name]
            }""",
            [kind, values],
        )

    def run(self) -> None:
        """Presses Run."""
        place = self.page.get_by_test_id("queue-button")
        inner = place.get_by_role("button")  # in newer pages the place is the button itself
        (inner.first if inner.count() else place).click()

    def run_to_the_end(self) -> dict[str, Any]:
        """Presses Run and returns what the host remembers of that run when it is over."""
        before = set(self.server.get("history"))
        self.run()
        while not (new := set(self.server.get("history")) - before):
            self.page.wait_for_timeout(1000)
        return self.server.get("history")[new.pop()]

    def wait_until_idle(self) -> None:
        """Returns when all that is queued is done."""
        while any(self.server.get("queue").values()):
            self.page.wait_for_timeout(1000)

    def clear_queue(self) -> None:
        self.server.post("queue", {"clear": True})
        if self.server.get("queue")["queue_running"]:
            self.server.interrupt()
            self.wait_until_idle()

    def panel(self) -> str:
        """The text of the panel of the training."""
        return self.page.locator(".sefi-panel").first.inner_text()

    def wait_for_panel(self, text: str) -> None:
        self.page.locator(".sefi-panel", has_text=text).first.wait_for()

    def dots(self) -> int:
        """How many points the denoising chart has."""
        paths = self.page.locator(".sefi-denoising .sefi-dots").evaluate_all(
            "paths => paths.map((path) => path.getAttribute('d')).join('')"
        )
        return paths.count("M")

    def press_widget(self, kind: str, label: str) -> None:
        """Presses a button on the node of a kind, drawn or made of HTML."""
        if self.vue:
            self.page.get_by_role("button", name=label).first.click()
            return
        x, y = self.page.evaluate(
            """async ([kind, label]) => {
                const node = app.graph.nodes.find((n) => n.type === kind)
                app.canvas.ds.scale = 1
                app.canvas.ds.offset = [300 - node.pos[0], 200 - node.pos[1]]
                app.canvas.draw(true, true)
                await new Promise(requestAnimationFrame)
                const widget = node.widgets.find((w) => w.name === label)
                const box = app.canvas.canvas.getBoundingClientRect()
                return [box.x + 300 + node.size[0] / 2, box.y + 200 + widget.last_y + 10]
            }""",
            [kind, label],
        )
        self.page.mouse.click(x, y)

    def shoot(self, name: str) -> None:
        """Leaves a picture of the page."""
        self.page.screenshot(path=SHOTS / f"{name}.png")
