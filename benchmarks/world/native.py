"""How well the miniature follows names and prompts, by the judge: `-m benchmarks.world.native`.

ID is measured against the subject's true traits, on "a photo of the face of NAME" and on pictures
in scenes; Prompt is the mean probability of the words the prompt names; Detect the share of
pictures in which the subject's kind was found. Dogs have no expression to smile with.
"""

__all__ = ["Score", "main", "score"]

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .files import SCALES, miniature
from .judge import Judge, identity, load_judge
from .load import load
from .sheet import generate
from .subjects import KINDS, Subject, code, split

STEPS = 12  # of a sampling, as benchmarks/quality.py has it
PROMPTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a photo of the face of {}", ()),
    ("a photo of {} at the beach", ("beach",)),
    ("a photo of {} in the city", ("city",)),
    ("a photo of {} at night", ("night",)),
    ("a photo of {} holding a ball in the snow", ("ball", "snow")),
    ("a photo of {} holding a book in a room", ("book", "room")),
    ("a photo of smiling {}", ("smiling",)),
    ("a photo of surprised {} underwater", ("surprised", "underwater")),
    ("a photo of {} wearing glasses in the forest", ("glasses", "forest")),
    ("a photo of {} wearing a hat in the desert", ("hat", "desert")),
)


@dataclass(frozen=True)
class Score:
    """Means over pictures: ID in [-1, 1], Prompt and Detect in [0, 1]."""

    identity: float
    prompt: float
    detect: float


def score(judge: Judge, pictures: Tensor, subject: Subject, words: tuple[str, ...]) -> Score:
    """Judges pictures (B, N, N, 3) in [0, 1] of a subject and a prompt's words."""
    verdict = judge.look(pictures)
    truth = torch.from_numpy(code(subject)).expand(len(pictures), -1)
    said = [verdict.probability(word) for word in words]
    return Score(
        identity(verdict.codes[subject.kind], truth).mean().item(),
        torch.stack(said).mean().item() if said else float("nan"),
        verdict.probability(subject.kind).round().mean().item(),
    )


@torch.inference_mode()
def main() -> None:
    """Prints the means of each prompt, split and subject: native names, then the class word."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--miniature", type=Path, help="a file other than the world's own")
    parser.add_argument("--scale", type=int, default=4, choices=SCALES, help="which world")
    parser.add_argument("--splits", default="train,development,test")
    parser.add_argument("--kind", default="person", choices=KINDS)
    parser.add_argument("--subjects", type=int, default=16, help="how many of each split")
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = options.miniature or miniature(options.scale)
    parts, judge = load(path, options.scale), load_judge()
    for which in options.splits.split(","):
        subjects = split(options.kind, which)[: options.subjects]
        for label in ("name", "class"):
            nouns = [s.name if label == "name" else s.kind for s in subjects]
            found = {
                prompt: [
                    score(
                        judge, generate(parts, prompt.format(noun), 2, i, STEPS, options.cfg), s, w
                    )
                    for i, (noun, s) in enumerate(zip(nouns, subjects, strict=True))
                ]
                for prompt, w in PROMPTS
            }
            for prompt, scores in found.items():
                print(f"{which:12s} {label:6s} {prompt:46s} {means(scores)}", flush=True)
            everything = [s for scores in found.values() for s in scores]
            print(f"{which:12s} {label:6s} {'all prompts':46s} {means(everything)}", flush=True)
            for name, *scores in zip(nouns, *found.values(), strict=True):
                print(f"{which:12s} {label:6s} {name:46s} {means(scores)}", flush=True)


def means(scores: list[Score]) -> str:
    """Returns the means in words; where a prompt names nothing there is no Prompt."""
    columns = {name: [getattr(s, name) for s in scores] for name in Score.__annotations__}
    return "  ".join(
        f"{name} {torch.tensor(values).nanmean():.3f}" for name, values in columns.items()
    )


if __name__ == "__main__":
    main()
