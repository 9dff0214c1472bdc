"""How well the miniature follows names and prompts, by the judge: `-m benchmarks.world.native`.

ID is measured against the subject's true traits, on "a photo of the face of NAME" and on pictures
in scenes; Prompt is the mean probability of the words the prompt names; Detect the share of
pictures in which the subject's kind was found.
"""

__all__ = ["Score", "main", "score"]

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .files import MINIATURE
from .judge import Judge, identity, load_judge
from .load import load
from .sheet import generate
from .subjects import Subject, code, split

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
    """Prints a line for each prompt: native names, and the class word as the lower bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--miniature", type=Path, default=MINIATURE)
    parser.add_argument("--subjects", type=int, default=4, help="how many of each split")
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts, judge = load(options.miniature), load_judge()
    for which in ("train", "development", "test"):
        for prompt, words in PROMPTS:
            for label in ("name", "class"):
                scores = [
                    score(
                        judge, generate(parts, prompt.format(noun), 2, i, cfg=options.cfg), s, words
                    )
                    for i, s in enumerate(split("person", which)[: options.subjects])
                    for noun in [s.name if label == "name" else s.kind]
                ]
                print(f"{which:12s} {label:6s} {prompt:46s} " + "  ".join(
                    f"{name} {sum(getattr(s, name) for s in scores) / len(scores):.2f}"
                    for name in ("identity", "prompt", "detect")
                ), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
