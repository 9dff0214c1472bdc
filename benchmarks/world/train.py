"""Trains the miniature: `python -m benchmarks.world.train --steps N`; run it again to go on.

loss = weight(sigma) * (noise - predicted noise)^2, weight = (1 + sigma^2) * min(1, 5 sigma^2)

is plain eps-prediction, weighted as v-prediction is: without the first factor the noisiest
timesteps, where the picture is laid out, hardly count. The second factor (min-SNR) holds the last
details back, which are dear and teach little.

The learning rate is flat for the first half of `--steps` and falls along a cosine to 2 % after
it; a larger `--steps` later extends the flat part, a smaller one begins the fall.

`--start FILE` begins with another miniature's weights in place of random ones: after a change of
the world or of the schedule (`--scale`), what it knows of drawing is worth keeping.

`--offset D` adds to the noise of every picture one number a channel, with deviation D. SDXL learned
so, with 0.05 (Podell et al. 2023, Sec. 2.5): its noise hides little of what is large, but sampling
begins where nothing is to be seen. On latents of an eighth of its side 0.4 does that.
"""

__all__ = ["main"]

import argparse
import csv
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .dataset import Batch, Batches, Words, pictures_to_range
from .files import Checkpoint, read
from .host import ROOT
from .model import Miniature
from .patches import Patches
from .subjects import KINDS, TRAITS

SEED = 20
SNR_CEILING = 5.0
SAVE_SECONDS = 300
DEFAULT_RUN = ROOT / "benchmarks" / "world" / "run"


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    run: Path
    steps: int
    batch: int
    rate: float
    threads: int
    compile: bool
    start: Path | None = None
    scale: int = 1
    offset: float = 0.0


def weight_at(sigma: Tensor) -> Tensor:
    """Returns the loss weights of noise levels sigma, same shape."""
    return (1.0 + sigma**2) * (SNR_CEILING * sigma**2).clamp(max=1.0)


def rate_at(step: int, options: Options) -> float:
    """Returns the learning rate of a step: warm, flat, then a cosine."""
    warm = min(1.0, (step + 1) / 200)
    late = max(0.0, 2.0 * step / options.steps - 1.0)
    fall = 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * min(late, 1.0)))
    return options.rate * warm * fall


class Run:
    """One training run: networks, their moving average, optimiser and place in the data."""

    def __init__(self, options: Options) -> None:
        torch.manual_seed(SEED)
        self.options, self.step, self.words = options, 0, Words()
        fitting = next(iter(Batches(self.words, 4096, SEED + 1)))
        self.patches = Patches.fit(pictures_to_range(fitting.pictures))
        self.model = Miniature(self.words.tokens, options.scale)
        self.begun_from = self.begin_from(read(options.start)) if options.start else ""
        self.average = [p.detach().clone() for p in self.model.parameters()]
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), options.rate, (0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.generator = torch.Generator().manual_seed(SEED)
        self.forward = torch.compile(self.model) if options.compile else self.model
        self.log: list[tuple[int, float, float, float]] = []

    @torch.no_grad()
    def begin_from(self, before: Checkpoint) -> str:
        """Takes the weights of a miniature; names keep the traits that both worlds have."""
        self.patches = Patches(**before.part("patches"))
        self.model.unet.load_state_dict(before.part("unet"))
        self.model.text.load_state_dict(before.part("text"), strict=False)  # it has no token table
        rows = self.model.text.get_input_embeddings().weight
        for word, number in self.words.numbers.items():
            rows[number] = before.row(word)
        rows[0], rows[1] = before.row("<start>"), before.row("<end>")
        for kind, basis in zip(KINDS, self.model.names, strict=True):
            former = dict(
                zip(before.card["traits"][kind], before.tensors[f"names.{kind}"], strict=True)
            )
            for i, trait in enumerate(TRAITS[kind]):
                basis[i] = former.get(trait, basis[i])
        earlier = f" after {former}" if (former := before.card.get("begun_from")) else ""
        same = before.scale == self.options.scale
        where = "on an earlier form of the world" if same else f"at s = {before.scale}"
        return f"{before.card['steps']:,} steps {where}{earlier}"

    @property
    def path(self) -> Path:
        """Where the state is kept."""
        return self.options.run / "state.pt"

    def save(self) -> None:
        """Writes the whole state, or leaves the last one as it was."""
        partial = self.path.with_suffix(".partial")
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "patches": self.patches.tensors(),
            "log": self.log,
            "batch": self.options.batch,
            "scale": self.options.scale,
            "offset": self.options.offset,
            "begun_from": self.begun_from,
        }
        torch.save(state, partial)
        partial.replace(self.path)

    def resume(self) -> None:
        """Goes on from the last saved state, if there is one."""
        if not self.path.exists():
            return
        state = torch.load(self.path)
        for name in ("scale", "offset"):
            if state[name] != getattr(self.options, name):
                raise SystemExit(f"--{name}: {self.path} was begun with {state[name]}.")
        self.step, self.log, self.begun_from = state["step"], state["log"], state["begun_from"]
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.patches = Patches(**state["patches"])

    def train(self) -> Iterator[tuple[int, float, float]]:
        """Trains to the last step, yielding the steps done and both losses of `train_on`."""
        batches = Batches(self.words, self.options.batch, SEED, first=self.step)
        for batch in DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4):
            if self.step >= self.options.steps:
                return
            losses = self.train_on(batch)
            self.step += 1
            yield self.step, *losses

    def train_on(self, batch: Batch) -> tuple[float, float]:
        """Takes one optimiser step; returns the loss without and with its weight."""
        latents = self.patches.encode(pictures_to_range(batch.pictures))
        timestep = torch.randint(0, 1000, (len(latents),), generator=self.generator)
        noise = torch.randn(latents.shape, generator=self.generator)
        if self.options.offset:
            shift = torch.randn(*latents.shape[:2], 1, 1, generator=self.generator)
            noise += self.options.offset * shift
        sigma = self.model.sigmas[timestep].view(-1, 1, 1, 1)
        noisy = (latents + sigma * noise) / (sigma**2 + 1) ** 0.5
        embeds = self.model.embed(batch.indices, batch.slots, batch.codes)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.forward(noisy, timestep, embeds)
        error = (predicted.float() - noise).square().mean(dim=(1, 2, 3))  # (B,)
        objective = (weight_at(sigma.flatten()) * error).mean()
        objective.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(self.step, self.options)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.follow()
        return error.mean().item(), objective.item()

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the average towards the weights; slowly once it has found them."""
        keep = min(0.999, (1 + self.step) / (10 + self.step))
        parameters: list[Tensor] = [p.detach() for p in self.model.parameters()]
        torch._foreach_lerp_(self.average, parameters, 1.0 - keep)


def write_curve(run: Run) -> None:
    """Writes the loss curve as CSV and PNG."""
    from matplotlib.figure import Figure

    with open(run.options.run / "loss.csv", "w", newline="") as file:
        csv.writer(file).writerows([("step", "loss", "weighted", "seconds"), *run.log])
    figure = Figure(figsize=(7, 4))
    axes = figure.add_subplot(xlabel="step", ylabel="mean squared error of the noise", yscale="log")
    axes.plot([row[0] for row in run.log], [row[1] for row in run.log])
    figure.savefig(run.options.run / "loss.png", dpi=120)


def main() -> None:
    """Reads the command line, then trains, printing a line every 50 steps."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, default=DEFAULT_RUN, help="folder of the run's state")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="faster after a minute; needs g++")
    parser.add_argument("--start", type=Path, help="another miniature to begin with")
    parser.add_argument("--scale", type=int, default=1, help="of the noise schedule, see model.py")
    parser.add_argument("--offset", type=float, default=0.0, help="deviation of the offset noise")
    options = Options(**vars(parser.parse_args()))
    options.run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    run = Run(options)
    run.resume()
    window: list[tuple[float, float]] = []
    begun = saved = time.monotonic()
    for step, *losses in run.train():
        window.append(losses)
        if step % 50 == 0:
            seconds = (time.monotonic() - begun) / len(window)
            plain, weighted = (sum(column) / len(window) for column in zip(*window, strict=True))
            run.log.append((step, plain, weighted, seconds))
            left = (options.steps - step) * seconds / 60
            print(
                f"step {step}/{options.steps}  loss {plain:.4f}  weighted {weighted:.4f}  "
                f"{seconds:.2f} s/step  {left:.0f} min left  {time.strftime('%H:%M')}",
                flush=True,
            )
            window, begun = [], time.monotonic()
        if time.monotonic() - saved > SAVE_SECONDS:
            run.save()
            write_curve(run)
            saved = time.monotonic()
    run.save()
    write_curve(run)


if __name__ == "__main__":
    main()
