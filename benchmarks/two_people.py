"""Two learned people in one prompt: does each half of the picture show its own?

    python -m benchmarks.two_people

On the miniature world, whose pairs stand side by side. Each person is learned from one picture, as
in benchmarks.quality; then "a photo of <a> and <b>" is sampled with both (Combine SeFi Identities).
The judge looks at the two squares in which the world draws the heads of a pair.
"""
# ruff: noqa: E402 - the pack can be imported after `ensure_pack` only

__all__ = ["main"]

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .methods import METHODS, World, learn_tokens
from .pack import ensure_pack
from .quality import sampled
from .report import RESULTS, STRIPS, save_strip
from .world.drawing import Picture, render
from .world.files import SCALES, miniature
from .world.judge import Judge, identity, load_judge
from .world.scenery import SCENES
from .world.subjects import Subject, code, split

ensure_pack()
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.sefi_core.identity.group import combine

KIND = "person"
PROMPTS = (
    "a photo of {} and {}",
    "a photo of {} and {} at the beach",
    "a photo of {} and {} in the city",
    "a photo of {} and {} in the forest",
)
LEARNED = ("inversion", "prospect", "default")
NAMES = ("<a>", "<b>")
SIDE, TOP, LEFT = 36, 13, (0, 28)  # of the squares around the heads, in pixels
DRAWINGS = 50  # of each pair, to see what the judge can tell

NUMBERS = ("own", "other", "right")

Couple = tuple[Subject, Subject]


@dataclass(frozen=True)
class Score:
    """Means over pictures and halves: the cosine to the half's own person and to the other, and the
    share of halves nearer to their own.
    """

    own: float
    other: float
    right: float


def score(judge: Judge, pictures: Tensor, couple: Couple) -> Score:
    """Judges pictures (B, 64, 64, 3) in [0, 1] of a couple, the first one on the left."""
    truths = [torch.from_numpy(code(subject)) for subject in couple]
    own, other = [], []
    for half, left in enumerate(LEFT):
        crops = pictures[:, TOP : TOP + SIDE, left : left + SIDE]
        codes = judge.look(crops).codes[KIND]
        own.append(identity(codes, truths[half].expand_as(codes)))
        other.append(identity(codes, truths[1 - half].expand_as(codes)))
    near, far = torch.cat(own), torch.cat(other)
    return Score(near.mean().item(), far.mean().item(), (near > far).float().mean().item())


def drawings(couple: Couple) -> Tensor:
    """Returns drawings of a couple: what a perfect model would give."""
    rng = np.random.default_rng(0)
    pictures = [
        render(Picture("pair", couple, scene=str(rng.choice(list(SCENES)))), rng)
        for _ in range(DRAWINGS)
    ]
    return torch.from_numpy(np.stack(pictures).astype(np.float32) / 255.0)


def rows(world: World, couple: Couple, seeds: int) -> dict[str, Tensor]:
    """Returns every row's pictures of a couple."""

    def pictures(prompted: Callable) -> Tensor:
        return torch.cat([sampled(world, prompted, text, seeds) for text in PROMPTS])

    def in_words(first: str, second: str) -> Callable:
        return lambda text: world.plain("")(text.format(first, second))

    found = {
        "drawings (what the judge can tell)": drawings(couple),
        "native names": pictures(in_words(*(subject.name for subject in couple))),
        "class word twice": pictures(in_words(KIND, KIND)),
    }
    for name in LEARNED:
        method = METHODS[name]
        learned = [learn_tokens(world, [method], subject)[method] for subject in couple]
        both = combine(learned, NAMES)
        found[method.label] = pictures(
            lambda text, both=both: apply_identity(
                world.model, world.clip, both, text.format(*NAMES)
            )
        )
    return found


@torch.no_grad()
def main() -> None:
    """Reads the command line, learns, samples, and writes the table and the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--couples", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=4, help="pictures of a prompt")
    parser.add_argument("--scale", type=int, default=4, choices=SCALES, help="which world")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    world, judge = World(miniature(given.scale), given.scale), load_judge()
    scores: dict[str, list[Score]] = {}
    subjects = split(KIND, "test")[: 2 * given.couples]
    couples = list(zip(subjects[::2], subjects[1::2], strict=True))
    for couple in couples:
        names = "-".join(subject.name for subject in couple)
        for number, (label, pictures) in enumerate(rows(world, couple, given.seeds).items()):
            scores.setdefault(label, []).append(score(judge, pictures, couple))
            save_strip(pictures[:: given.seeds], STRIPS / f"{names}-{number}.png")
            print(f"{names:16s} {label:36s} {scores[label][-1]}", flush=True)
    write(scores, given.scale, [[subject.name for subject in couple] for couple in couples])


def write(scores: dict[str, list[Score]], scale: int, couples: list[list[str]]) -> None:
    """Writes the means over couples in a world as JSON, and prints them as a table."""
    means = {
        label: {
            name: round(float(np.mean([getattr(s, name) for s in found])), 3) for name in NUMBERS
        }
        for label, found in scores.items()
    }
    about = {"scale": scale, "couples": couples, "prompts": PROMPTS, "rows": means}
    (RESULTS / "two_people.json").write_text(json.dumps(about, indent=1) + "\n")
    print("| row | ID, own person | ID, the other one | halves nearer to their own |")
    print("| --- | --- | --- | --- |")
    for label, numbers in means.items():
        print(f"| {label} | " + " | ".join(f"{numbers[name]:.3f}" for name in NUMBERS) + " |")


if __name__ == "__main__":
    main()
