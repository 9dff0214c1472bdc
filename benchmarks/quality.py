"""How good is an identity? Methods x subjects x prompts x seeds on the miniature world.

    python -m benchmarks.quality                       # main rows, test subjects
    python -m benchmarks.quality --methods default,ablations --subjects development
    python -m benchmarks.quality --quick               # five minutes on one core

Each method learns a subject it has never seen from one drawing of its face; the judge scores what
is sampled then. What is in benchmarks/results/records already is not done again (records.py).
`--report` only writes the tables, of every training that is there. `--floor` compares with an
earlier result and fails if our row has become worse.
"""

__all__ = ["main"]

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .methods import (
    ABLATIONS,
    MAIN,
    METHODS,
    PHOTOS,
    QUICK,
    Method,
    Prompted,
    World,
    learn,
    learn_together,
)
from .records import Record, append, found, read
from .report import BASE, RESULTS, SHEET, STRIPS, save_strip, write_report, write_sheet
from .world import files
from .world.files import SCALES, miniature
from .world.judge import JUDGE, Judge, identity, load_judge
from .world.native import PROMPTS
from .world.subjects import KINDS, NAMES, Kind, Subject, code, split

import comfy.sample  # isort: skip - the world's modules put the host on the path

SEEDS, STEPS, GUIDANCE = 2, 12, 5.0
SAMPLER, SCHEDULER = "dpmpp_2m", "karras"
TOLERANCE = 0.1  # of ID(P) between machines, whose sums differ in their last digits
LATENT = 16  # the latents' side
QUICK_PROMPTS = (0, 1, 4, 6, 9)


def sampled(world: World, prompted: Prompted, text: str, seeds: int) -> Tensor:
    """Returns pictures of one prompt, (seeds, 64, 64, 3) in [0, 1]; all methods share the noise."""
    model, positive = prompted(text)
    _, negative = world.plain("")("")
    noise = torch.stack(
        [torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(s)) for s in range(seeds)]
    )
    latents = comfy.sample.sample(
        model, noise, STEPS, GUIDANCE, SAMPLER, SCHEDULER, positive, negative,
        torch.zeros_like(noise), disable_pbar=True, seed=0,
    )  # fmt: skip
    return world.vae.decode(latents)


def scored(judge: Judge, pictures: Tensor, subject: Subject, prompt: int) -> dict[str, list]:
    """Judges pictures (B, H, W, 3) of a prompt; ID is 0 where nobody was found.

    Returns:
        By picture: "id" in [-1, 1], "detect" 0 or 1, "prompt" the mean probability of the prompt's
        words in [0, 1], or nothing where it has none, and "others" the same for the other prompts'.
    """
    verdict = judge.look(pictures)
    truth = torch.from_numpy(code(subject)).expand(len(pictures), -1)
    detect = verdict.found.argmax(dim=-1) < verdict.found.shape[-1] - 1  # "nobody" comes last
    likeness = identity(verdict.codes[subject.kind], truth) * detect
    follow = {
        number: torch.stack([verdict.probability(word) for word in words]).mean(dim=0)
        for number, (_, words) in enumerate(PROMPTS)
        if words
    }
    others = [value for number, value in follow.items() if number != prompt]
    return {
        "id": rounded(likeness),
        "detect": detect.int().tolist(),
        "prompt": rounded(follow[prompt]) if prompt in follow else [],
        "others": rounded(torch.stack(others).flatten()) if prompt in follow else [],
    }


def layout(pictures: Tensor, plain: Tensor) -> Tensor:
    """Returns how alike two batches (B, H, W, 3) are laid out, (B,): correlation of 8 x 8 greys.

    `plain` is sampled from the same noise with the class word, so 1 means that the subject changed
    nothing of where things are.
    """
    coarse = [
        F.adaptive_avg_pool2d(x.movedim(-1, 1).mean(dim=1, keepdim=True), 8).flatten(1)
        for x in (pictures, plain)
    ]
    return F.cosine_similarity(*(x - x.mean(dim=1, keepdim=True) for x in coarse))


def rounded(values: Tensor) -> list[float]:
    return [round(value, 3) for value in values.tolist()]


class Bench:
    """The world, the judge, and the folder of results."""

    def __init__(
        self,
        miniature: Path,
        scale: int,
        folder: Path,
        seeds: int,
        prompts: tuple[int, ...],
        kind: Kind = "person",
        photos: str = "whole",
    ) -> None:
        self.world, self.judge, self.folder = World(miniature, scale, photos), load_judge(), folder
        self.scale, self.seeds, self.prompts = scale, seeds, prompts
        word = self.world.plain(kind)
        self.plain = [sampled(self.world, word, PROMPTS[i][0], seeds) for i in prompts]
        self.fixed = {
            "miniature": digest(miniature.read_bytes()),
            "judge": digest(JUDGE.read_bytes()),
            "prompts": [PROMPTS[i] for i in prompts],
            "sampling": [seeds, STEPS, GUIDANCE, SAMPLER, SCHEDULER],
        }
        if scale != files.read(miniature).scale:  # the file says its own
            self.fixed["scale"] = scale

    def path(self, subject: Subject) -> Path:
        """Returns the file of a subject's records."""
        which = next(which for which, names in NAMES[subject.kind].items() if subject.name in names)
        return self.folder / "records" / f"{which}.jsonl"

    def heading(self, method: Method, subject: Subject) -> Record:
        """Returns a record of a training, but for its results."""
        world = {"scale": self.scale, "latent": LATENT}
        if method.learns and self.world.photos != "whole":
            world["photos"] = self.world.photos
        return {
            "row": method.name,
            "subject": subject.name,
            "seed": method.config.seed,
            "world": world,
            "recipe": method.recipe(),
            "conditions": digest_of({**self.fixed, "traits": subject.traits}),
        }

    def strip(self, method: Method, subject: Subject) -> Path:
        """Returns where a training's pictures are, or are to be."""
        heading = digest_of(self.heading(method, subject))
        return STRIPS / f"{method.name}-{subject.name}-{heading}.png"

    def is_among(self, lines: list[Record], method: Method, subject: Subject) -> bool:
        """Whether some records have a training's."""
        by_seed, _ = found(lines, self.heading(method, subject))
        return method.config.seed in by_seed

    def run(self, methods: list[Method], subject: Subject) -> None:
        """Learns a subject once for rows that share it, and scores each."""
        lines = read(self.path(subject))
        missing = [method for method in methods if not self.is_among(lines, method, subject)]
        if not missing:
            return
        began = time.perf_counter()
        with learn(self.world, missing, subject) as learned:
            seconds = time.perf_counter() - began
            for method, prompted in learned.items():
                # One training may serve several rows; each is told its share of the steps.
                share = method.config.steps / max(m.config.steps for m in missing)
                self.score(method, subject, prompted, seconds * share)

    def run_together(self, method: Method, subjects: list[Subject], at_once: int) -> None:
        """Learns those of some subjects who are missing, several in one batch, and scores each."""
        lines = {path: read(path) for path in {*map(self.path, subjects)}}
        missing = [s for s in subjects if not self.is_among(lines[self.path(s)], method, s)]
        for i in range(0, len(missing), at_once):
            group, began = missing[i : i + at_once], time.perf_counter()
            identities = learn_together(self.world, method, group)
            seconds = (time.perf_counter() - began) / len(group)
            for subject, learned in zip(group, identities, strict=True):
                prompted = self.world.with_identity(learned, **dict(method.applied))
                self.score(method, subject, prompted, seconds)

    def score(self, method: Method, subject: Subject, prompted: Prompted, seconds: float) -> None:
        """Samples and scores every prompt, and records the result."""
        pictures = [sampled(self.world, prompted, PROMPTS[i][0], self.seeds) for i in self.prompts]
        by_prompt = [
            scored(self.judge, pictures[n], subject, i)
            | {"layout": rounded(layout(pictures[n], self.plain[n]))}
            for n, i in enumerate(self.prompts)
        ]
        if method.name != "name":  # the threshold alone needs them, from native names
            for scores in by_prompt:
                del scores["others"]
        record = {
            **self.heading(method, subject),
            "seconds": round(seconds, 1),
            "scores": by_prompt,
        }
        append(self.path(subject), record)
        save_strip(torch.cat([p[:1] for p in pictures]), self.strip(method, subject))
        ids = [x for scores in by_prompt for x in scores["id"]]
        follow = [x for scores in by_prompt for x in scores["prompt"]]
        print(
            f"{method.name:14s} {subject.name:8s} ID {sum(ids) / len(ids):.3f}  "
            f"Prompt {sum(follow) / len(follow):.3f}  learned in {seconds:.0f} s",
            flush=True,
        )

    def records(self, subjects: list[Subject], methods: list[Method]) -> list[Record]:
        """Returns the records that hold, and says where there are others only."""
        records, passed = [], Counter()
        for subject in subjects:
            lines = read(self.path(subject))
            for method in methods:
                by_seed, others = found(lines, self.heading(method, subject))
                records += by_seed.values()
                passed[method.name] += others
        for name, count in passed.items():
            if count:
                print(
                    f"{name}: {count} trainings are passed over; their records are of another "
                    "recipe or of other conditions."
                )
        return records

    def sheet(self, subject: Subject, path: Path) -> None:
        """Writes a subject's pictures by the rows of SHEET that are there, if any is."""
        strips = {
            METHODS[name].label: strip
            for name in SHEET
            if (strip := self.strip(METHODS[name], subject)).is_file()
        }
        prompts = [PROMPTS[i][0] for i in self.prompts]
        if strips:
            write_sheet(strips, self.world.reference(subject), prompts, path)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def digest_of(told: Record) -> str:
    return digest(json.dumps(told, sort_keys=True).encode())


def chosen(names: str) -> list[Method]:
    """Returns the rows of a list of names; "main", "ablations" and a group's name stand for theirs.

    Raises:
        SystemExit: A name is unknown.
    """
    groups = {"main": MAIN, **ABLATIONS}
    groups["ablations"] = tuple(m for group in ABLATIONS.values() for m in group)
    found: dict[str, Method] = {}
    for name in names.split(","):
        if name not in groups and name not in METHODS:
            raise SystemExit(f"--methods: {name} is unknown; choose of {[*groups, *METHODS]}.")
        found |= {m.name: m for m in groups.get(name, (METHODS.get(name),))}
    return list(found.values())


def trainings(methods: list[Method], count: int) -> list[Method]:
    """Returns the rows learned with `count` seeds each, from their own on."""
    return list(dict.fromkeys(m.seeded(m.config.seed + i) for i in range(count) for m in methods))


def together(methods: list[Method]) -> Iterator[list[Method]]:
    """Yields the rows that one training serves."""
    for _, shared in groupby(sorted(methods, key=Method.training), Method.training):
        yield list(shared)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="main", help="names of rows or groups, with commas")
    parser.add_argument("--subjects", default="test", choices=("development", "test"))
    parser.add_argument("--kind", default="person", choices=KINDS)
    parser.add_argument(
        "--at-once", type=int, default=1, help="subjects in a batch, for token rows"
    )
    parser.add_argument("--limit", type=int, default=16, help="how many subjects")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--train-seeds", type=int, default=1, help="trainings of every subject")
    parser.add_argument("--scale", type=int, default=4, choices=SCALES, help="which world")
    parser.add_argument("--photos", default="whole", choices=PHOTOS, help="to learn from")
    parser.add_argument("--miniature", type=Path, help="a file other than the world's own")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shard", default="0/1", help="i/n: this process does every n-th subject")
    parser.add_argument("--quick", action="store_true", help="two subjects, few rows and prompts")
    parser.add_argument("--report", action="store_true", help="write the tables and the sheet only")
    parser.add_argument("--floor", type=Path, help="an earlier result, e.g. results/quick-s4.json")
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    """Fills in the results that are missing, then writes the tables."""
    given = options()
    torch.set_num_threads(given.threads)
    methods, limit, prompts = chosen(given.methods), given.limit, tuple(range(len(PROMPTS)))
    if given.quick:
        methods, limit, prompts = [METHODS[name] for name in QUICK], 2, QUICK_PROMPTS
    path = given.miniature or miniature(given.scale)
    bench = Bench(path, given.scale, given.results, given.seeds, prompts, given.kind, given.photos)
    subjects = split(given.kind, given.subjects)[:limit]
    methods = trainings(methods, given.train_seeds)
    part, parts = map(int, given.shard.split("/"))
    if not given.report:
        mine = subjects[part::parts]
        if given.at_once > 1:
            for method in methods:
                if method.kind == "tokens":
                    bench.run_together(method, mine, given.at_once)
        for subject in mine:
            for shared in together(methods):
                bench.run(shared, subject)
    known = split(given.kind, "development")[:limit]
    for subject in known:  # the threshold comes from them
        bench.run([METHODS["name"]], subject)
    records = bench.records(subjects, list(METHODS.values()))
    natives = bench.records(known, [METHODS["name"]])
    name = "quick" if given.quick else given.subjects
    name += f"-{given.kind}s" if given.kind != "person" else ""
    name += f"-s{given.scale}" if given.scale != 1 else ""
    name += f"-{given.photos}" if given.photos != "whole" else ""
    print(write_report(records, natives, given.results, name, bench.fixed))
    bench.sheet(subjects[0], given.results / f"{name}.png")
    if given.floor:
        require_floor(given.results / f"{name}.json", given.floor)


def require_floor(found: Path, floor: Path) -> None:
    """Raises SystemExit if our row's ID(P) or Prompt is clearly below that of an earlier result."""
    now, before = (json.loads(path.read_text())["rows"][BASE] for path in (found, floor))
    for column in ("ID(P)", "Prompt"):
        if now[column] < before[column] - TOLERANCE:
            raise SystemExit(
                f"{column} of the preset {BASE} is {now[column]:.3f}, it was {before[column]:.3f} "
                f"in {floor}: the recipe has become worse, or the miniature or the judge is "
                "another; mend it, or measure anew and commit why."
            )


if __name__ == "__main__":
    main()
