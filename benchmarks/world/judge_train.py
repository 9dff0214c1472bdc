"""Trains the judge and prints what it can do: `python -m benchmarks.world.judge`."""

__all__ = ["evaluate", "main"]

import argparse
import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from .drawing import ATTRIBUTES, Picture, render, sample
from .judge import FOUND, JUDGE, PLACES, THINGS, Judge, identity, load_judge
from .patches import Patches
from .subjects import KINDS, TRAITS, Kind, code

SEED, HELD_OUT_SEED = 40, 41

Labels = dict[str, Tensor]


def labels(picture: Picture) -> dict[str, np.ndarray]:
    """Returns what the judge should say; codes are not a number where they are not asked."""
    answers = {kind: np.full(len(TRAITS[kind]), np.nan, np.float32) for kind in KINDS}
    if len(picture.subjects) == 1:
        (subject,) = picture.subjects
        answers[subject.kind] = code(subject)
    first = picture.subjects[0].kind if picture.subjects else "nobody"
    return {
        **answers,
        "found": np.int64(FOUND.index(first)),
        "scene": np.int64(PLACES.index(picture.scene or "plain")),
        "thing": np.int64(THINGS.index(picture.thing or "nothing")),
        "attributes": np.array([a in picture.attributes for a in ATTRIBUTES], dtype=np.float32),
    }


class Drawings(IterableDataset):
    """An endless row of labelled batches: pictures (B, 3, N, N) in [-1, 1] and labels; of one kind
    of subject, alone in the picture, if one is given.
    """

    def __init__(self, size: int, seed: int, kind: Kind | None = None) -> None:
        self.size, self.seed, self.kind = size, seed, kind

    def __iter__(self) -> Iterator[tuple[Tensor, Labels]]:
        rng = np.random.default_rng(self.seed)
        while True:
            wanted = (p for p in iter(lambda: sample(rng), None) if self.wants(p))
            scenes = [*islice(wanted, self.size)]
            drawn = np.stack([render(picture, rng) for picture in scenes])
            answers = [labels(picture) for picture in scenes]
            told = {k: torch.from_numpy(np.stack([a[k] for a in answers])) for k in answers[0]}
            yield torch.from_numpy(drawn).movedim(-1, 1).float() / 127.5 - 1.0, told

    def wants(self, picture: Picture) -> bool:
        return self.kind is None or [s.kind for s in picture.subjects] == [self.kind]


def spoil(pictures: Tensor, patches: Patches, generator: torch.Generator) -> Tensor:
    """Blurs, noises and recolours a little, half of the pictures after the patch transform."""

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(pictures), 1, 1, 1, generator=generator)

    coded = patches.decode(patches.encode(pictures))
    pictures = torch.where(draw(0, 1) < 0.5, coded, pictures)
    smooth = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pictures = torch.lerp(pictures, smooth, draw(0, 1) ** 2)
    noise = torch.randn(pictures.shape, generator=generator)
    return (pictures + draw(0, 0.12) * noise) * draw(0.94, 1.06) + draw(-0.04, 0.04)


def loss_of(answers: dict[str, Tensor], told: Labels) -> Tensor:
    """Adds the questions' losses."""
    total = F.binary_cross_entropy_with_logits(answers["attributes"], told["attributes"])
    for name in ("found", "scene", "thing"):
        total = total + 0.5 * F.cross_entropy(answers[name], told[name])
    for kind in KINDS:
        asked = told[kind].isfinite().all(dim=-1)
        if asked.any():
            total = total + 2.0 * F.mse_loss(answers[kind][asked], told[kind][asked])
    return total


@torch.no_grad()
def evaluate(judge: Judge, count: int = 4000) -> dict[str, float]:
    """Returns the judge's figures on drawings it has not seen."""
    pictures, told = next(iter(Drawings(count, HELD_OUT_SEED)))
    answers = {name: torch.cat(parts) for name, parts in collect(judge, pictures).items()}
    figures = {}
    for kind in KINDS:
        asked = told[kind].isfinite().all(dim=-1)
        said, truth = answers[kind][asked], told[kind][asked]
        figures[f"ID to truth, {kind}"] = identity(said, truth).mean().item()
        figures[f"ID of strangers, {kind}"] = identity(said, said.roll(1, 0)).mean().item()
        spread = identity(said, said.roll(1, 0)).quantile(0.95).item()
        figures[f"ID of strangers, {kind}, 95th percentile"] = spread
    for name in ("found", "scene", "thing"):
        figures[name] = (answers[name].argmax(-1) == told[name]).float().mean().item()
    right = (answers["attributes"] > 0) == told["attributes"].bool()
    for i, name in enumerate(ATTRIBUTES):
        figures[name] = right[:, i].float().mean().item()
    return figures


def collect(judge: Judge, pictures: Tensor) -> dict[str, list[Tensor]]:
    """Returns each head's answers in slices of 500 pictures."""
    parts = [judge(slice_) for slice_ in pictures.split(500)]
    return {name: [part[name] for part in parts] for name in parts[0]}


def train(steps: int, batch: int) -> Judge:
    """Trains all of a judge but the traits of dogs from its seed."""
    torch.manual_seed(SEED)
    judge = Judge()
    judge.dogs.requires_grad_(False)
    descend(judge, judge, Drawings(batch, SEED), steps, 2e-3)
    return judge


def train_dogs(judge: Judge, steps: int, batch: int) -> None:
    """Trains the body of dogs, from the other body on, and its head."""
    torch.manual_seed(SEED)
    judge.dogs.load_state_dict(judge.body.state_dict())
    learning = nn.ModuleList([judge.dogs, judge.heads["dog"]]).requires_grad_(True)
    descend(judge, learning, Drawings(batch, SEED + 3, "dog"), steps, 1e-3)


def descend(
    judge: Judge, learning: nn.Module, drawings: Drawings, steps: int, highest: float
) -> None:
    """Lets a part of a judge learn from drawings; the rest stays as it is."""
    generator = torch.Generator().manual_seed(SEED)
    patches = Patches.fit(next(iter(Drawings(2048, SEED + 2)))[0])
    optimiser = torch.optim.AdamW(learning.parameters(), highest, weight_decay=0.01)
    begun = time.monotonic()
    loader = DataLoader(drawings, batch_size=None, num_workers=1, prefetch_factor=4)
    learning.train()
    for step, (pictures, told) in zip(range(steps), loader, strict=False):
        fallen = 0.51 + 0.49 * math.cos(math.pi * step / steps)
        for group in optimiser.param_groups:
            group["lr"] = highest * min(1.0, (step + 1) / 100) * fallen
        with torch.autocast("cpu", torch.bfloat16):
            answers = judge(spoil(pictures, patches, generator))
        loss = loss_of({k: v.float() for k, v in answers.items()}, told)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % 100 == 0:
            pace = (time.monotonic() - begun) / (step + 1)
            print(f"step {step + 1}/{steps}  loss {loss.item():.3f}  {pace:.3f} s/step", flush=True)
    judge.train(False)


def main() -> None:
    """Trains, writes the fp16 file, and prints the figures of what was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--dog-steps", type=int, default=1200)
    parser.add_argument("--dogs", action="store_true", help="train dogs' part of the file alone")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=JUDGE)
    parser.add_argument("--evaluate", action="store_true", help="only print the figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.evaluate:
        judge = load_judge(options.out) if options.dogs else train(options.steps, options.batch)
        train_dogs(judge, options.dog_steps, options.batch)
        state = judge.state_dict()
        kept = {k: v.half() for k, v in sorted(state.items()) if v.is_floating_point()}
        options.out.write_bytes(save(kept))
    for name, figure in evaluate(load_judge(options.out)).items():
        print(f"{name:40s} {figure:.3f}")


if __name__ == "__main__":
    main()
