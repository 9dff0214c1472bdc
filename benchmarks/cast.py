"""A cast against single trainings, and on Ray: `python -m benchmarks.cast PART`.

    together   24 people of the miniature world, N at once: pairs and winners against single
               trainings, with margins, and wall time a person for N = 1, 4, 8, 24
    ways       single trainings, the command, and the command on Ray with one and with two
               one-thread workers: pairs and wall time
    thousand   a thousand people on Ray's scheduler, by workers that only wait (and have no torch):
               useful durations / (workers x wall) at 1, 8 and 64 workers, 2 % of people have
               their worker killed; starts and restarts are told apart
    kills      10 workers and 10 drivers of the command killed: who is lost, what is half a file

`--steps` and `--people` make it shorter. Needs `pip install ray` but for `together`.
"""

__all__: list[str] = []

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
AT_ONCE = (1, 4, 8, 24)
FAR = 1e-4  # of a pair from that of a single training
# By the number of workers: a second of the simulation is so many of a training. What a scheduler
# costs is a matter of jobs a second, so that many workers are given jobs less shortened.
FACTORS = {1: 200, 8: 40, 64: 10}


def draw_people(folder: Path, count: int) -> list[str]:
    """Draws test people of the world, one picture each; returns their names."""
    from .world.drawing import Picture, render
    from .world.subjects import split

    known = [*split("person", "test"), *split("person", "train")][:count]
    folder.mkdir(parents=True)
    for i, person in enumerate(known):
        pixels = render(Picture("face", (person,)), np.random.default_rng(11))
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return [f"{i:03}" for i in range(len(known))]


@contextmanager
def rankings() -> Iterator[dict[str, list[dict[int, float]]]]:
    """Yields what each elimination of a start has compared, by the person's name."""
    from sefi_pack.nodes.host.train.run import Run
    from sefi_pack.sefi_core.training import selection
    from sefi_pack.sefi_core.training.learner import Learner

    found: dict[str, list[dict[int, float]]] = {}
    names: dict[int, tuple[str, Any]] = {}
    compared: list[dict[int, float]] = []
    prepared, drop, ranked = Run.prepared.__func__, Learner.drop_worst, selection.ranked

    def noting_prepared(cls: type, *given: Any) -> Any:
        run = prepared(cls, *given)
        names[id(run.learner)] = run.files.name, run.learner
        return run

    def noting_ranked(losses: dict[int, float]) -> list[int]:
        compared.append(dict(losses))
        return ranked(losses)

    def noting_drop(self: Any, order: list[int]) -> None:
        found.setdefault(names[id(self)][0], []).append(compared[-1])
        drop(self, order)

    with (
        mock.patch.object(Run, "prepared", classmethod(noting_prepared)),
        mock.patch.object(Learner, "drop_worst", noting_drop),
        mock.patch.object(selection, "ranked", noting_ranked),
    ):
        yield found


def learned(people: Path, models: tuple, at_once: int, settings: dict) -> tuple[dict, dict, float]:
    """Learns everybody with an empty memory; returns pairs and rankings by name, and seconds."""
    import folder_paths
    import torch
    from sefi_pack.nodes.host.cast.caster import train_cast

    with tempfile.TemporaryDirectory() as output, rankings() as found:
        folder_paths.set_output_directory(output)
        folder_paths.folder_names_and_paths["sefi"] = ([output], {".safetensors"})
        names = dict(zip(("model", "clip", "vae"), models, strict=True))
        started = time.perf_counter()
        with torch.inference_mode():
            identities, *_ = train_cast(**names, folder="cast", at_once=at_once, **settings)
        seconds = time.perf_counter() - started
    shown = sorted(path.stem for path in people.glob("*.png"))
    return dict(zip(shown, (i.pairs["clip_l"] for i in identities), strict=True)), found, seconds


def together(count: int, steps: int) -> None:
    """Prints the table of one batch of N against single trainings."""
    from .pack import ensure_pack

    ensure_pack()
    import folder_paths

    from .world.load import load

    with tempfile.TemporaryDirectory() as base:
        folder_paths.input_directory = base
        draw_people(Path(base) / "cast", count)
        settings = settings_of(steps)
        alone: tuple[dict, dict] | None = None
        print(
            "| N | s a person | winners that differ (margin) | farthest pair |\n|---|---|---|---|"
        )
        for at_once in AT_ONCE:
            pairs, ranks, seconds = learned(Path(base) / "cast", load(), at_once, settings)
            alone = alone or (pairs, ranks)
            flips = {
                n: margin(alone[1][n]) for n in pairs if winner(ranks[n]) != winner(alone[1][n])
            }
            same = [n for n in pairs if n not in flips]
            far = max((pairs[n] - alone[0][n]).abs().max().item() for n in same)
            told = ", ".join(f"{name} ({by:.1e})" for name, by in flips.items()) or "none"
            print(f"| {at_once} | {seconds / len(pairs):.2f} | {told} | {far:.1e} |", flush=True)
        least = {name: margin(each) for name, each in alone[1].items()}
        print("margins alone:", ", ".join(f"{n} {m:.1e}" for n, m in sorted(least.items())))


def winner(ranks: list[dict[int, float]]) -> int:
    return min(ranks[-1], key=ranks[-1].__getitem__)


def margin(ranks: list[dict[int, float]]) -> float:
    """Returns the closest call of a selection: by how much, relatively, the one that was dropped
    was worse than the next.
    """
    return min(
        (worst - next_) / worst for *_, next_, worst in (sorted(each.values()) for each in ranks)
    )


def command(
    base: Path, steps: int, *more: str, cores: int = 1, memory: str = "host"
) -> subprocess.Popen:
    """Starts cast.py on the miniature.

    Arguments:
        memory: The folder of `base` with ComfyUI's own, by which finished trainings are known.
    """
    host = os.environ.get("COMFYUI_PATH") or (ROOT / ".host-path").read_text().strip()
    given = [
        str(base / "cast"),
        "--comfyui",
        host,
        "--cores",
        str(cores),
        "--set",
        f"steps={steps}",
    ]
    given += ["--checkpoint", str(ROOT / "benchmarks/world/miniature.safetensors"), *more]
    given += ["--set", "resolution=64", "--set", "preview_every=0", "--", "--cpu"]
    program = [sys.executable, str(ROOT / "tests/cast_on_miniature.py"), *given]
    apart = ["--base-directory", str(base / memory)]
    (base / memory).mkdir(exist_ok=True)
    return subprocess.Popen([*program, *apart], env={**os.environ, "OMP_NUM_THREADS": "1"})


def ways(count: int, steps: int) -> None:
    """Prints the wall time of single trainings, of the command, and of the command on Ray with one
    worker and with two, and how far each one's pairs are from those of single trainings.
    """
    from .pack import ensure_pack

    ensure_pack()
    import folder_paths

    from .world.load import load

    with tempfile.TemporaryDirectory() as place:
        base, walls = Path(place), {}
        names = draw_people(base / "cast", count)
        folder_paths.input_directory = place
        alone, _, walls["alone"] = learned(base / "cast", load(), 1, settings_of(steps))
        print(f"single trainings: {walls['alone']:.0f} s", flush=True)
        # As many cores a worker as leave room for so many of them.
        each = {n: max(1, (os.cpu_count() or 1) // n) for n in (1, 2)}
        asked = {
            "the command": ([], 1),
            "Ray, 1 worker": (["--ray", "--at-once", "4"], each[1]),
            "Ray, 2 workers": (["--ray", "--at-once", "4"], each[2]),
        }
        for way, (more, cores) in asked.items():
            out, started = base / way, time.perf_counter()
            given = "--out", str(out), *more
            run = command(base, steps, *given, cores=cores, memory=f"host of {way}")
            if run.wait():
                sys.exit(f"{way} ended with {run.returncode}")
            walls[way] = time.perf_counter() - started
            apart = {n: pairs_on(out, n).sub(alone[n]).abs().max().item() for n in names}
            far = ", ".join(f"{n} {d:.1e}" for n, d in apart.items() if d > FAR) or "nobody"
            print(
                f"{way}: {walls[way]:.0f} s; farthest pair {max(apart.values()):.1e}, farther than "
                f"{FAR:g}: {far}",
                flush=True,
            )
        efficiency = walls["Ray, 1 worker"] / (2 * walls["Ray, 2 workers"])
    print(f"efficiency of two workers, with their starts: {efficiency:.2f}")


def pairs_on(shelf: Path, name: str) -> Any:
    """Returns a person's pairs from the command's folder."""
    from safetensors.torch import load_file

    return load_file(shelf / f"{name}.safetensors")["pairs.clip_l"]


def settings_of(steps: int) -> dict:
    """Returns the node's inputs, its own defaults but for lengths and sizes."""
    return {
        "class_word": "person", "steps": steps, "learning_rate": 0.005, "preset": "default",
        "attention_loss_weight": 0.001, "train_seed": 0, "resolution": 64, "preview_every": 0,
    }  # fmt: skip


def work(job: dict) -> tuple[str, float]:
    """Waits as long as a training would take, and notes when and in which process it began. The
    first time, if its number is up, its worker is killed at the moment that was drawn.
    """
    import os
    import signal
    import time
    from pathlib import Path

    begun, log = time.time(), Path(job["folder"])
    (log / f"begun-{os.getpid()}-{job['name']}").write_text(str(begun))
    mark = log / f"killed-{job['name']}"
    if job["dies_at"] is not None and not mark.exists():
        time.sleep(job["dies_at"])
        mark.write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(job["seconds"])
    (log / f"ended-{os.getpid()}-{job['name']}").touch()
    return job["name"], job["seconds"]


def meet(folder: str, workers: int) -> None:
    """Waits until as many processes as there are workers wait here."""
    import os
    import time
    from pathlib import Path

    Path(folder, f"here-{os.getpid()}").touch()
    while len(list(Path(folder).glob("here-*"))) < workers:
        time.sleep(0.1)


def drawn_job(name: str, folder: str, seconds: float, draw: random.Random) -> dict:
    """Returns a person's job, about as long as given; 2 % of them lose their worker."""
    dies_at = draw.random() * seconds if draw.random() < 0.02 else None
    own = seconds * draw.uniform(0.8, 1.2)
    return {"name": name, "folder": folder, "seconds": own, "dies_at": dies_at}


def restarting(folder: Path) -> float:
    """Returns the seconds for which slots had no worker: from a kill to its successor's first job.

    Which process follows which does not matter to the sum.
    """
    killed = sorted(float(path.read_text()) for path in folder.glob("killed-*"))
    first: dict[str, float] = {}
    for path in folder.glob("begun-*"):
        process, at = path.name.split("-")[1], float(path.read_text())
        first[process] = min(at, first.get(process, at))
    known = {path.name.split("-")[1] for path in folder.glob("here-*")}
    new = sorted(at for process, at in first.items() if process not in known)
    return sum(begun - ended for ended, begun in zip(killed, new, strict=False))


def simulated(people: int, seconds: float, workers: int) -> None:
    """Prints how a number of workers gets through so many people."""
    import ray

    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        jobs = [drawn_job(str(i), folder, seconds, draw) for i in range(people)]
        started = time.perf_counter()
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
        arrive = ray.remote(num_cpus=1)(meet)
        ray.get([arrive.remote(folder, workers) for _ in range(workers)])
        begun = time.perf_counter()
        learn = ray.remote(num_cpus=1, max_retries=20)(work)
        done = ray.get([learn.remote(job) for job in jobs])
        wall = time.perf_counter() - begun
        ray.shutdown()
        restarts = restarting(Path(folder))
        killed, ended = (len(list(Path(folder).glob(f"{what}-*"))) for what in ("killed", "ended"))
    useful = sum(took for _, took in done)
    lost = people - len({name for name, _ in done})
    print(
        f"{workers} workers, {seconds:.2f} s a person: efficiency "
        f"{useful / (workers * wall - restarts):.3f} ({useful / (workers * wall):.3f} with "
        f"restarts; {useful:.0f} s useful in {wall:.0f} s; start {begun - started:.0f} s; {killed} "
        f"killed, {restarts:.0f} s until others had begun), {lost} lost, {ended - people} "
        "twice",
        flush=True,
    )


def thousand(people: int, seconds: float) -> None:
    """Prints the efficiency of Ray's own scheduler for a thousand people.

    Arguments:
        seconds: A training's, measured.
    """
    for workers, factor in FACTORS.items():
        simulated(people, seconds / factor, workers)


def kills(times: int, steps: int) -> None:
    """Kills workers and drivers at drawn moments; prints what was lost and what is half a file."""
    import psutil
    from safetensors.numpy import load_file

    draw = random.Random(0)
    for victim in ("worker", "driver"):
        lost = half = 0
        for _ in range(times):
            with tempfile.TemporaryDirectory() as base:
                names = draw_people(Path(base) / "cast", 4)
                run = command(Path(base), steps, "--ray", "--at-once", "1")
                target = run.pid if victim == "driver" else None
                while target is None and run.poll() is None:
                    time.sleep(0.1)
                    below = psutil.Process(run.pid).children(recursive=True)
                    target = next(
                        (p.pid for p in below if "learn_apart" in " ".join(p.cmdline())), None
                    )
                time.sleep(draw.uniform(0.0, 20.0))
                if psutil.pid_exists(target or -1):
                    os.kill(target, signal.SIGKILL)
                run.wait()
                command(Path(base), steps).wait()
                out = Path(base) / "cast-identities"
                whole = 0
                for path in out.glob("*.safetensors"):
                    try:
                        load_file(path)
                        whole += 1
                    except Exception:
                        half += 1
                lost += len(names) - whole
                with (out / "report.csv").open() as file:
                    lost += sum(
                        row["state"] in ("failed", "not begun") for row in csv.DictReader(file)
                    )
        print(f"{times} times the {victim}: {lost} lost, {half} half files", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=("together", "ways", "thousand", "kills"))
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0, help="of a training, measured")
    parser.add_argument("--times", type=int, default=10, help="kills of each kind")
    given = parser.parse_args()
    parts = {
        "together": lambda: together(given.people, given.steps),
        "ways": lambda: ways(given.people, given.steps),
        "thousand": lambda: thousand(1000 if given.people == 24 else given.people, given.seconds),
        "kills": lambda: kills(given.times, given.steps),
    }
    parts[given.part]()


if __name__ == "__main__":
    main()
