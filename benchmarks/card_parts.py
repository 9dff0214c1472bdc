"""What `benchmarks.card` measures, part by part; each returns a dict of numbers.

A number that is not to be had is `absent`: null, with the reason beside it.
"""
# ruff: noqa: E402 - the pack and the host can be imported after `ensure_pack` only

__all__ = [
    "absent",
    "applied",
    "checkpointing",
    "farthest",
    "learning",
    "memory",
    "neutral",
    "one_line",
    "prompts",
    "resumed",
    "steps",
    "trained",
    "waiting",
]

import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from .pack import ensure_pack

ensure_pack()
import comfy.sample
import torch.nn.functional as F
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.text.encoder import class_tokens
from sefi_pack.nodes.host.train.memory import GENERATOR_COPIES, what_memory_needs
from sefi_pack.nodes.host.train.selftest import require_gradients
from sefi_pack.sefi_core.identity.container import load_tensors, save_tensors
from sefi_pack.sefi_core.identity.identity import Identity
from sefi_pack.sefi_core.predict import Source, predict
from sefi_pack.sefi_core.samples import spread_samples
from sefi_pack.sefi_core.stages import even_edges, stage_of
from sefi_pack.sefi_core.training.loop import StepReport, train

from .card_measures import idle_share, most_bytes, waits
from .speed import in_turns
from .speed_peers import Missing, floor, train_lora
from .speed_scene import GUIDANCE, Ready, Scene, clocked, ours, sampling

PROBED = 20  # samples
Record = dict[str, object]


def absent(reason: str) -> Record:
    return {"value": None, "reason": reason}


def steps(scene: Scene, rounds: int, count: int) -> Record:
    """A step beside the bare UNet, forward and backward, and beside Train LoRA; its memory beside
    what the node says.
    """
    found = in_turns(ours, floor, scene, rounds, count)
    step = statistics.median(found["above"])
    try:
        lora: object = statistics.median(train_lora(scene, count))
    except (Missing, RuntimeError) as error:
        lora = absent(one_line(error))
    return {
        "step, seconds": step,
        "bare forward and backward, seconds": statistics.median(found["below"]),
        "step / bare": found["ratio"],
        "Train LoRA, seconds": lora,
        "Train LoRA / step": lora / step if isinstance(lora, float) else lora,
        **memory(scene),
    }


def one_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def memory(scene: Scene, checkpoint: bool = False) -> Record:
    """The most bytes that steps take beside the loaded models, and what the node says before, of
    what its test of the gradients takes.
    """
    with scene.training(checkpoint) as ready:
        backbone, learner, latent = ready.backbone, ready.learner, ready.pool.latents[:1]
        tested = partial(require_gradients, backbone, ready.encoder, latent, backbone.dtype)
        sample = most_bytes(tested, scene.device)
        learned = sum(parameter.nbytes for parameter in learner.generators.parameters())
        forecast = sample * scene.batch + GENERATOR_COPIES * learned
        sentence = what_memory_needs(sample, learner, ready.encoder.again)
        reports = reports_of(ready)
        peak = most_bytes(lambda: list(islice(reports, 2)), scene.device)
    return {
        "peak, bytes": peak, "forecast, bytes": forecast, "peak / forecast": peak / forecast,
        "the node says": sentence,
    }  # fmt: skip


def reports_of(ready: Ready) -> Iterator[StepReport]:
    return train(ready.backbone, ready.encoder, ready.pool, ready.learner)


def checkpointing(scene: Scene, count: int) -> Record:
    """The same step with and without `gradient_checkpointing`; SDXL always has it."""
    found: Record = {}
    for name, asked in (("off", False), ("on", True)):
        if scene.size.is_sdxl and not asked:
            found[name] = absent("SDXL's blocks are always computed again")
            continue
        seconds = statistics.median(ours(scene, count, checkpoint=asked))
        found[name] = {"step, seconds": seconds, **memory(scene, asked)}
    return found


def applied(scene: Scene, rounds: int) -> Record:
    """Twenty steps of sampling with an identity beside the same without."""
    sides = [lambda s, n, a=a: sampling(s, n, applied=a) for a in (True, False)]
    found = in_turns(*sides, scene, rounds, 1)
    return {
        "applied, seconds": statistics.median(found["above"]),
        "plain, seconds": statistics.median(found["below"]),
        "applied / plain": found["ratio"],
    }


def prompts(scene: Scene, count: int) -> Record:
    """Ten prompts through the text encoder as one batch, and one by one."""
    with scene.training() as ready, torch.no_grad():
        words = ready.encoder.class_tokens
        ten, one = ({n: w.expand(k, 1, -1) for n, w in words.items()} for k in (10, 1))
        together = statistics.median(clocked(lambda: ready.encoder.encode(ten), count))
        alone = clocked(lambda: [ready.encoder.encode(one) for _ in range(10)], count)
    return {"one batch, seconds": together, "one by one, seconds": statistics.median(alone)}


def learning(scene: Scene, count: int) -> Record:
    """The denoising loss on fixed samples before a training and after."""
    with scene.training(steps=count, learning_rate=2e-2, ema=0.9) as ready:
        before = probe(ready)
        list(reports_of(ready))
        after = probe(ready)
    return {"steps": count, "before": before, "after": after, "lowered": after < before}


@torch.no_grad()
def probe(ready: Ready) -> float:
    learner, losses = ready.learner, []
    samples = spread_samples(ready.pool, PROBED, 0, seed=1)
    source = [Source(ready.encoder, learner.kept())]
    for part in samples.split(learner.config.batch_size):
        rows = stage_of(part.timesteps, even_edges(learner.config.stages))
        made = predict(ready.backbone, source, part, rows, with_maps=False)
        losses.append(F.mse_loss(made.output, made.target).item() * len(part))
    return sum(losses) / PROBED


def resumed(scene: Scene, count: int) -> Record:
    """A training whose state goes through a file half way, beside one that does not, and beside
    the same once more.
    """
    whole, again = (trained(scene, count) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        with scene.training(steps=count) as ready:
            list(islice(reports_of(ready), count // 2))
            save_tensors(ready.learner.state(), path, {})
        with scene.training(steps=count) as ready:
            ready.learner.restore(load_tensors(path, 1 << 32)[0])
            list(reports_of(ready))
            late = ready.learner.pairs()
    return {
        "steps": count,
        "resumed, largest difference": farthest(whole, late),
        "the same again, largest difference": farthest(whole, again),
        "bit for bit": farthest(whole, late) == 0.0,
    }


def trained(scene: Scene, count: int) -> dict[str, Tensor]:
    with scene.training(steps=count) as ready:
        list(reports_of(ready))
        return ready.learner.pairs()


def farthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def waiting(scene: Scene, fewer: int, more: int) -> Record:
    """How often a step waits for the card, and how long the card waits for a step."""
    with scene.training() as ready:
        reports = reports_of(ready)
        next(reports)
        counted = waits(lambda: next(reports), fewer, more)
        idle: object = absent("a CPU does what Python asks for at once: nothing of it could idle")
        if scene.device.type == "cuda":
            idle = idle_share(lambda: next(reports), fewer)
    return {"waits of a step": counted, "idle share of a step": idle}


@torch.inference_mode()
def neutral(scene: Scene) -> Record:
    """The largest difference between the plain picture and that of an identity whose every pair is
    the class word, where prompts have a place.
    """
    model, clip, _ = scene.models
    tokens = class_tokens(clip, "person")
    identity = Identity({n: t.cpu().expand(5, 2, 1, -1).clone() for n, t in tokens.items()})
    patched, conditioning = apply_identity(model, clip, identity, "a photo of V*")
    plain, wall, negative = (encoded(clip, text) for text in ("a photo of person", "a wall", ""))
    found = {}
    for name, (place, denoise) in places(scene.size.side, wall).items():
        pictures = [
            sampled(scene, m, place(c), negative, denoise)
            for m, c in ((model, plain), (patched, conditioning))
        ]
        found[name] = float((pictures[0] - pictures[1]).abs().max())
    return found


def encoded(clip: object, text: str) -> list:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def places(side: int, wall: list) -> dict[str, tuple[Callable[[list], list], float]]:
    """Returns by name what is done to a prompt, and the share of noise that is sampled from."""

    def with_options(conditioning: list, beside: list, **options: object) -> list:
        return [[context, {**kept, **options}] for context, kept in conditioning] + beside

    half, mask = side // 2, torch.zeros(1, side, side)
    mask[:, :half] = 1.0
    area = {"area": (half, half, half // 2, half // 2), "strength": 1.0}
    masked = {"mask": mask, "mask_strength": 1.0, "set_area_to_bounds": True}
    ranged = {"start_percent": 0.0, "end_percent": 0.6}
    return {
        "alone": (lambda c: c, 1.0),
        "area": (lambda c: with_options(c, wall, **area), 1.0),
        "mask": (lambda c: with_options(c, wall, **masked), 1.0),
        "range": (lambda c: with_options(c, [], **ranged), 1.0),
        "img2img": (lambda c: c, 0.5),
    }


def sampled(scene: Scene, model: object, positive: list, negative: list, denoise: float) -> Tensor:
    latent = scene.pool(3).latents[:1].cpu()
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    return comfy.sample.sample(
        model, noise, 4, GUIDANCE, "euler", "normal", positive, negative,
        latent if denoise < 1.0 else torch.zeros_like(latent), denoise=denoise,
        disable_pbar=True, seed=0,
    )  # fmt: skip
