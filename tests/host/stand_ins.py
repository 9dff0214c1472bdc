"""Small nodes that do what real packs were seen to do, one a kind, and the host's own executor to
run them in a prompt with ours.
"""

__all__ = ["Executions", "Page", "prompt_of"]

import execution
import torch
from sefi_pack.nodes.apply import ApplySeFiConditioning

import nodes


class Parts:
    """Gives what loaders give: `parts` holds it by name."""

    parts: dict = {}
    INPUT_TYPES = classmethod(lambda cls: {"required": {"name": ("STRING",)}})
    RETURN_TYPES, FUNCTION = ("MODEL", "CLIP", "SEFI_IDENTITY"), "give"

    def give(self, name):
        return self.parts["model"], self.parts["clip"], self.parts[name]


class Keep:
    """An output: keeps the latent it was given."""

    kept: list = []
    INPUT_TYPES = classmethod(lambda cls: {"required": {"latent": ("LATENT",)}})
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "keep", True

    def keep(self, latent):
        self.kept.append(latent["samples"])
        return {}


class DropsExtras:
    """Rebuilds a conditioning from its tensor and what it knows."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"conditioning": ("CONDITIONING",)}})
    RETURN_TYPES, FUNCTION = ("CONDITIONING",), "change"

    def change(self, conditioning):
        keys = ("pooled_output",)
        return ([[t, {k: v for k, v in e.items() if k in keys}] for t, e in conditioning],)


class ReloadsModel:
    """Has the model's file read again, as plots do: what was done to the model is gone."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",)}})
    RETURN_TYPES, FUNCTION = ("MODEL",), "load"

    def load(self, model):
        return (Parts.parts["model"].clone(),)


class Couples:
    """Regions by attention, of each of which the first tensor alone is kept."""

    INPUT_TYPES = classmethod(
        lambda cls: {"required": {"model": ("MODEL",), "region": ("CONDITIONING",)}}
    )
    RETURN_TYPES, FUNCTION = ("MODEL",), "couple"

    def couple(self, model, region):
        rows = region[0][0]

        def mix(n, context, value, options):
            return n, context + 0.1 * rows, value + 0.1 * rows

        patched = model.clone()
        patched.set_model_attn2_patch(mix)
        return (patched,)


class AssertsKeysAreValues:
    """A patch that wants K and V from one context."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",)}})
    RETURN_TYPES, FUNCTION = ("MODEL",), "patch"

    def patch(self, model):
        def require_equal(n, context, value, options):
            assert context.mean() == value.mean(), "k and v must be the same."
            return n, context, value

        patched = model.clone()
        patched.set_model_attn2_patch(require_equal)
        return (patched,)


class AssertsSomethingElse:
    """A patch that asserts the form of K and V, and then finds something else wrong."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",)}})
    RETURN_TYPES, FUNCTION = ("MODEL",), "patch"

    def patch(self, model):
        def require_width(n, context, value, options):
            assert context.shape == value.shape and len(context) == len(value)
            assert n.shape[-1] == 7, "seven channels are asked for"
            return n, context, value

        patched = model.clone()
        patched.set_model_attn2_patch(require_width)
        return (patched,)


class StepByStep:
    """Samples a step of the base prompt, a step of each region, and so on, each in a run of its
    own.
    """

    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {
                "model": ("MODEL",),
                "base": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent": ("LATENT",),
            },
            "optional": {"one": ("CONDITIONING",), "two": ("CONDITIONING",)},
        }
    )
    RETURN_TYPES, FUNCTION = ("LATENT",), "sample"

    def sample(self, model, base, negative, latent, **regions):
        for step in range(4):
            for positive in (base, *regions.values()):
                latent = nodes.KSamplerAdvanced().sample(
                    model, "disable", 3, 4, 4.0, "euler", "normal", positive, negative, latent,
                    step, step + 1, "enable",
                )[0]  # fmt: skip
        return (latent,)


class OwnText:
    """A detailer: samples again with its wildcard's text in the prompt's place, if it has one."""

    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {
                "model": ("MODEL",),
                "clip": ("CLIP",),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent": ("LATENT",),
                "wildcard": ("STRING",),
            }
        }
    )
    RETURN_TYPES, FUNCTION = ("LATENT",), "detail"

    def detail(self, model, clip, positive, negative, latent, wildcard):
        if wildcard:
            (positive,) = nodes.CLIPTextEncode().encode(clip, wildcard)
        return nodes.KSampler().sample(
            model, 3, 2, 4.0, "euler", "normal", positive, negative, latent, 0.5
        )


class LazySwitch:
    """Asks for the one of its two inputs that it passes on."""

    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {
                "second": ("BOOLEAN",),
                "one": ("CONDITIONING", {"lazy": True}),
                "two": ("CONDITIONING", {"lazy": True}),
            }
        }
    )
    RETURN_TYPES, FUNCTION = ("CONDITIONING",), "choose"

    def check_lazy_status(self, second, one=None, two=None):
        return ["two" if second else "one"]

    def choose(self, second, one=None, two=None):
        return (two if second else one,)


class Switch:
    """Has both of its inputs made and passes on one, as switches that know no laziness do."""

    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {
                "second": ("BOOLEAN",), "one": ("CONDITIONING",), "two": ("CONDITIONING",)
            }
        }
    )  # fmt: skip
    RETURN_TYPES, FUNCTION = ("CONDITIONING",), "choose"

    def choose(self, second, one, two):
        return (two if second else one,)


class Anything(dict):
    """The inputs of a node that takes what it is given and names none."""

    def __contains__(self, name):
        return True

    def __getitem__(self, name):
        return ("*",)


class AnySwitch:
    """Passes on the first that there is, of any kind."""

    INPUT_TYPES = classmethod(lambda cls: {"optional": Anything()})
    RETURN_TYPES, FUNCTION = ("*",), "choose"

    def choose(self, any_01=None, any_02=None):
        return (any_02 if any_01 is None else any_01,)


class MarksBoth:
    """Takes and gives both prompts, as nodes for inpainting do."""

    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {
                "positive": ("CONDITIONING",), "negative": ("CONDITIONING",), "mark": ("BOOLEAN",)
            }
        }
    )  # fmt: skip
    RETURN_TYPES, FUNCTION = ("CONDITIONING", "CONDITIONING"), "mark"

    def mark(self, positive, negative, mark):
        return positive, negative


class JoinsOrAppends:
    """Appends one prompt to another, or has both, as is chosen."""

    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {
                "operation": (["append", "join"],),
                "one": ("CONDITIONING",),
                "two": ("CONDITIONING",),
            }
        }
    )
    RETURN_TYPES, FUNCTION = ("CONDITIONING",), "mix"

    def mix(self, operation, one, two):
        if operation == "join":
            return (one + two,)
        return nodes.ConditioningConcat().concat(one, two)


class Texts:
    """Several texts, for each of which what follows runs once."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"texts": ("STRING",)}})
    RETURN_TYPES, OUTPUT_IS_LIST, FUNCTION = ("STRING",), (True,), "give"

    def give(self, texts):
        return (texts.split("|"),)


CLASSES = (
    Parts, Keep, DropsExtras, ReloadsModel, Couples, AssertsKeysAreValues, AssertsSomethingElse,
    StepByStep, OwnText, LazySwitch, Switch, AnySwitch, MarksBoth, JoinsOrAppends,
    Texts,
)  # fmt: skip


class Queue:
    """What the host says about the prompt that runs."""

    running: tuple = ()

    def get_current_queue_volatile(self):
        return ([self.running] if self.running else [], [])


CLIENT = "the tab that queues"


class Page:
    """A server as the executor sees it; `said` is what pages are told, (node, text)."""

    def __init__(self):
        self.client_id = self.last_node_id = self.last_prompt_id = None
        self.sockets_metadata: dict = {}
        self.prompt_queue = Queue()
        self.said: list[tuple[str, str]] = []

    def send_sync(self, event, data, sid=None):
        if event == "sefi.note" and sid == CLIENT:
            self.said.append((data["node"], data["line"]))


class Executions:
    """The host's executor, whose caches live on from prompt to prompt."""

    def __init__(self, page):
        names = {cls.__name__: cls for cls in CLASSES}
        nodes.NODE_CLASS_MAPPINGS.update({**names, "ApplySeFiConditioning": ApplySeFiConditioning})
        self.page, self.count = page, 0
        self.executor = execution.PromptExecutor(
            page,
            cache_type=execution.CacheType.CLASSIC,
            cache_args={"lru": 0, "ram": 0, "ram_inactive": 0},
        )

    def run(self, prompt, workflow=None):
        """Executes a prompt; returns (latents, what the page was told, the host's messages)."""
        self.count += 1
        prompt_id, extra = f"prompt {self.count}", {"client_id": CLIENT}
        if workflow is not None:
            extra["extra_pnginfo"] = {"workflow": workflow}
        self.page.prompt_queue.running = (0, prompt_id, prompt, extra, [])
        Keep.kept, before = [], len(self.page.said)
        outputs = [i for i, node in prompt.items() if node["class_type"] == "Keep"]
        with torch.inference_mode():
            self.executor.execute(prompt, prompt_id, extra, outputs)
        return Keep.kept, self.page.said[before:], self.executor.status_messages


def prompt_of(**named):
    """Returns a prompt of nodes by name: (class, {input: value or "name@output"})."""
    names = {name: str(number) for number, name in enumerate(named, start=1)}

    def link(value):
        if isinstance(value, str) and value.split("@")[0] in names and "@" in value:
            name, output = value.split("@")
            return [names[name], int(output)]
        return value

    return {
        names[name]: {"class_type": kind, "inputs": {k: link(v) for k, v in inputs.items()}}
        for name, (kind, inputs) in named.items()
    }
