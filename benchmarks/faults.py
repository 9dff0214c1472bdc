"""What can go wrong outside of our code, done on purpose: `python -m benchmarks.faults`.

Small trainings on small models of the host's classes are killed, interrupted and starved of memory
and disk, at random places. After each, nothing may be

    lost    steps that were done and cannot be resumed, an identity that was there before
    leaked  a temporary file, a changed model, a moved random state
    wrong   a file that is not whole, a resumed identity or a plain picture with other bits

The table goes to docs/reliability.md. Linux; disk faults need root for a file system of their own.
"""

__all__ = ["FAULTS", "Bench", "Row", "options", "print_table"]

import argparse
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from unittest import mock

import torch

ROOT = Path(__file__).resolve().parent.parent
STEPS = 6


@dataclass
class Row:
    """One fault's line of the table."""

    tried: int = 0
    lost: int = 0
    leaked: int = 0
    wrong: int = 0


class Bench:
    """Models, a reference training and its folder.

    Arguments:
        folder: Of this bench's own; the host's output folder is moved there.
    """

    def __init__(self, folder: Path) -> None:
        import folder_paths
        import seeded
        from sefi_pack.nodes.host.train import trainer
        from sefi_pack.sefi_core.training.config import PRESETS

        # Few of everything: the faults are about what follows what, not about its length.
        PRESETS["quick"] = replace(PRESETS["default"], views=4, candidates=3)
        self.folder, self.trainer, self.host_folders = folder, trainer, folder_paths
        with torch.inference_mode():
            self.model, self.clip = seeded.tiny_model(), seeded.tiny_clip()
            self.vae = seeded.seeded_vae()
        self.picture = torch.rand(1, 72, 64, 3, generator=torch.Generator().manual_seed(0))
        self.move(folder / "output")
        self.reference = self.train()
        self.forget()
        self.state, self.sampled = self.state_of_models(), self.sample()

    def move(self, output: Path) -> None:
        """Makes `output` the host's output folder."""
        output.mkdir(parents=True, exist_ok=True)
        self.output = output / "sefi"
        self.host_folders.set_output_directory(str(output))

    def forget(self) -> None:
        """Removes every file of trainings."""
        for path in list(self.output.rglob("*")):
            if path.is_file():
                path.unlink()

    def train(self, **changed: object) -> torch.Tensor:
        """Trains as the node does, in inference mode; returns the pairs."""
        settings = {
            "class_word": "person", "train_seed": 0, "preset": "quick", "steps": STEPS,
            "learning_rate": 3e-4, "attention_loss_weight": 0.003, "resolution": 64,
            "preview_every": 5, "checkpoint_every": 2, **changed,
        }  # fmt: skip
        from sefi_pack.nodes.host.train import preview
        from sefi_pack.sefi_core.picture import subject_mask
        from sefi_pack.sefi_core.training import selection

        fewer = (
            (preview, "PREVIEW_STEPS", 2),
            (subject_mask, "LOOKS", 1),
            (selection, "SAMPLES", 2),
        )
        with torch.inference_mode(), contextlib.ExitStack() as few:
            for module, name, count in fewer:
                few.enter_context(mock.patch.object(module, name, count))
            identity, *_ = self.trainer.train_identity(
                model=self.model, clip=self.clip, vae=self.vae, image=self.picture, **settings
            )
        return identity.pairs["clip_l"].clone()

    @torch.inference_mode()
    def sample(self) -> torch.Tensor:
        """Samples a picture of a plain prompt."""
        import comfy.sample

        positive, negative = (
            self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))
            for text in ("a person", "")
        )
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        return comfy.sample.sample(
            self.model, noise, 2, 5.0, "euler", "normal", positive, negative, noise * 0.0,
            disable_pbar=True, seed=1,
        )  # fmt: skip

    def state_of_models(self) -> str:
        """Returns a hash of everything that must be as it was: bytes, flags, hooks, options."""
        digest = hashlib.sha256()
        for patcher in (self.model, self.clip.patcher, self.vae.patcher):
            for name, tensor in sorted(patcher.model.state_dict(keep_vars=True).items()):
                digest.update(f"{name}{tensor.dtype}{tensor.requires_grad}{id(tensor)}".encode())
                digest.update(tensor.detach().reshape(-1).view(torch.uint8).numpy())
            hooks = [len(m._forward_hooks) + m.training for m in patcher.model.modules()]
            options = (patcher.model_options, patcher.patches, patcher.object_patches)
            digest.update(repr((hooks, options, patcher.wrappers)).encode())
        return digest.hexdigest()

    def judge(self, row: Row, expected_steps: int = 0) -> None:
        """Looks at everything after a fault, resumes, and counts what is not as it should be."""
        from safetensors.torch import load_file

        row.tried += 1
        row.leaked += self.state_of_models() != self.state
        row.wrong += not torch.equal(self.sample(), self.sampled)
        row.leaked += bool(list(self.output.rglob("*.tmp")))
        done = 0
        for path in self.output.rglob("*.safetensors"):
            try:
                tensors = load_file(path)
            except Exception:
                row.wrong += 1
                continue
            if path.name.endswith(".checkpoint.safetensors"):
                done = len(tensors["losses"])
            elif path.parent.name == "finished":
                done = STEPS
        row.lost += done < expected_steps
        names = [path.name for path in self.output.glob("*.checkpoint.safetensors")]
        resumed = self.train(**({"resume": names[0]} if names else {}))
        row.wrong += not torch.equal(resumed, self.reference)
        self.forget()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keeps the host's and our lines off the screen."""
    import logging

    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def places(bench: Bench) -> dict[str, tuple[object, str]]:
    """Returns every stage of a training by the function whose call it is."""
    import comfy.model_management
    import comfy.sample
    from sefi_pack.nodes.host.page import progress
    from sefi_pack.nodes.host.text import encoder as text
    from sefi_pack.nodes.host.train import backbone, pictures, run, selftest
    from sefi_pack.nodes.host.train import files as run_files

    return {
        "loading": (comfy.model_management, "load_models_gpu"),
        "hashing": (bench.trainer, "hash_of_tensors"),
        "text encoder": (text, "encode_embeds"),
        "views": (pictures, "augmented_views"),
        "VAE": (type(bench.vae), "encode"),
        "gradient self-test": (selftest, "compare"),
        "forward": (backbone.HostBackbone, "run"),
        "maps": (backbone, "prompt_maps"),
        "backward": (torch.Tensor, "backward"),
        "optimiser": (torch.optim.Adam, "step"),
        "progress": (progress.Progress, "step"),
        "preview": (comfy.sample, "sample"),
        "preview's VAE": (type(bench.vae), "decode"),
        "checkpoint": (run_files, "save_tensors"),
        "finishing": (run.RunFiles, "save_finished"),
    }


def stopped_at(
    bench: Bench, place: tuple[object, str], error: BaseException, call: int, **changed: object
) -> int:
    """Trains with `error` raised at the `call`-th call of a function, from 0; returns the steps
    that were done by then, or -1 if there were fewer calls.
    """
    from sefi_pack.sefi_core.training.learner import Learner

    owner, name = place
    real, calls, learners = getattr(owner, name), [], []
    start = Learner.__init__

    def failing(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == call + 1:
            raise error
        return real(*args, **kwargs)

    def noted(self: Learner, *args: object, **kwargs: object) -> None:
        start(self, *args, **kwargs)
        learners.append(self)

    with mock.patch.object(owner, name, failing), mock.patch.object(Learner, "__init__", noted):
        try:
            bench.train(**changed)
        except type(error):
            return learners[-1].step if learners else 0
    return -1


def raised(kind: Callable[[], BaseException]) -> Callable[[Bench, int, Random], Row]:
    """Returns the fault of an error at a random call of each stage in turn."""

    def fault(bench: Bench, times: int, random: Random) -> Row:
        row, stages = Row(), list(places(bench).values())
        random.shuffle(stages)
        for number in range(times):
            state = torch.get_rng_state()
            stage = stages[number % len(stages)]
            done = -1
            while done < 0:
                bench.forget()
                done = stopped_at(bench, stage, kind(), random.choice([0, 0, 1, 2, 5]))
            row.leaked += not torch.equal(torch.get_rng_state(), state)
            bench.judge(row, expected_steps=done)
        return row

    return fault


def interrupted() -> BaseException:
    from comfy.model_management import InterruptProcessingException

    return InterruptProcessingException()


def in_a_child(work: Callable[[], None], seconds: float) -> None:
    """Runs `work` in a forked process and kills it with signal 9 after some seconds."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            torch.set_num_threads(1)  # a forked process has no other threads
            work()
        os._exit(0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def killed(bench: Bench, times: int, random: Random) -> Row:
    """Kills a training at a random moment."""
    row = Row()
    start = time.monotonic()
    bench.train()
    whole = time.monotonic() - start
    bench.forget()
    for _ in range(times):
        in_a_child(lambda: bench.train(checkpoint_every=1), random.uniform(0.05, 1.1) * whole)
        sweep_up(bench.output)
        bench.judge(row)
    return row


def sweep_up(folder: Path) -> None:
    """Lets time pass for what a killed process has left, and saves something beside it."""
    from sefi_pack.sefi_core.identity.container import save_tensors

    for path in folder.rglob("*.tmp"):
        os.utime(path, (0, 0))
    for place in {path.parent for path in folder.rglob("*.tmp")}:
        save_tensors({"x": torch.zeros(1)}, place / "sweep.safetensors", {})
        (place / "sweep.safetensors").unlink()


def killed_saving(bench: Bench, times: int, random: Random) -> Row:
    """Kills a process that saves one identity after the other; all that are there are whole, and
    those from before have their bytes.
    """
    from sefi_pack.sefi_core.identity.file_format import load_identity, save_identity
    from sefi_pack.sefi_core.identity.identity import Identity

    row, folder = Row(), bench.folder / "identities"
    folder.mkdir(exist_ok=True)
    identity = Identity({"clip_l": bench.reference.clone()})

    def save(trial: int) -> None:
        for number in range(10_000):
            title = {"modelspec.title": str(number)}
            save_identity(identity, folder / f"{trial}_{number}.safetensors", title, anew=True)
            save_identity(identity, folder / "same.safetensors", title)

    for trial in range(times):
        before = {path: path.read_bytes() for path in folder.glob("*_*.safetensors")}
        in_a_child(partial(save, trial), random.uniform(0.01, 0.1))
        row.tried += 1
        sweep_up(folder)
        row.leaked += len(list(folder.glob(".*.tmp")))
        for path in folder.glob("*.safetensors"):
            try:
                row.wrong += not torch.equal(load_identity(path).pairs["clip_l"], bench.reference)
            except ValueError:
                row.wrong += 1
        row.lost += sum(path.read_bytes() != data for path, data in before.items())
        for path in before:
            path.unlink()
    return row


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """Mounts a file system of a size; needs root."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def full_disk(bench: Bench, times: int, random: Random) -> Row:
    """The disk fills up at a random size: the training ends all the same, and says so."""
    row = Row()
    for _ in range(times):
        with small_disk(
            bench.folder / "small", f"{random.choice([4, 16, 64, 256, 1024, 2048])}k"
        ) as disk:
            bench.move(disk)
            row.lost += not torch.equal(bench.train(), bench.reference)
            row.lost += saving_is_refused(bench, disk)
            row.tried -= 1
            bench.judge(row)
        bench.move(bench.folder / "output")
        row.tried += 1
    return row


def saving_is_refused(bench: Bench, disk: Path) -> bool:
    """Fills what is left and saves an identity: whether anything but a sentence comes of it."""
    from sefi_pack.sefi_core.errors import IdentityFileError
    from sefi_pack.sefi_core.identity.file_format import save_identity
    from sefi_pack.sefi_core.identity.identity import Identity

    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    try:
        save_identity(Identity({"clip_l": bench.reference.clone()}), disk / "sefi/a.safetensors")
    except IdentityFileError as error:
        return "cannot be written" not in str(error)
    finally:
        (disk / "filler").unlink()
    return True


def read_only(bench: Bench, times: int, random: Random) -> Row:
    """The output folder takes no file."""
    row = Row()
    for _ in range(times):
        with small_disk(bench.folder / "small", "64m") as disk:
            (disk / "sefi").mkdir()
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            bench.move(disk)
            row.lost += not torch.equal(bench.train(), bench.reference)
            bench.judge(row)
        bench.move(bench.folder / "output")
    return row


def clock_jumps(bench: Bench, times: int, random: Random) -> Row:
    """Both clocks jump by up to a year, either way, at every look at them."""
    row = Row()

    def jumping() -> float:
        return 1.7e9 + random.uniform(-3e7, 3e7)

    for _ in range(times):
        with mock.patch("time.time", jumping), mock.patch("time.monotonic", jumping):
            row.lost += not torch.equal(bench.train(checkpoint_every=1), bench.reference)
        bench.forget()
        done = stopped_at(bench, places(bench)["forward"], interrupted(), 5)
        for path in bench.output.glob("*.safetensors"):
            os.utime(path, (jumping() + 1e9,) * 2)
        bench.judge(row, expected_steps=done)
    return row


def one_name(bench: Bench, times: int, random: Random) -> Row:
    """Two trainings of one name, both stopped: each is resumed to its own end."""
    from sefi_pack.nodes.host import folders

    row = Row()
    other = bench.train(train_seed=1)
    bench.forget()
    for _ in range(times):
        stopped_at(bench, places(bench)["forward"], interrupted(), random.randint(5, 8))
        first = set(folders.checkpoint_names())
        stopped_at(bench, places(bench)["backward"], interrupted(), 3, train_seed=1)
        both = set(folders.checkpoint_names())
        row.lost += not (first < both)
        (second,) = both - first
        row.wrong += not torch.equal(bench.train(train_seed=1, resume=second), other)
        bench.judge(row, expected_steps=1)
    return row


FAULTS: dict[str, tuple[Callable[[Bench, int, Random], Row], int]] = {
    "kill -9 while training": (killed, 100),
    "kill -9 while saving identities": (killed_saving, 100),
    "stopped at every stage": (raised(interrupted), 45),
    "out of memory on the card at every stage": (
        raised(lambda: torch.OutOfMemoryError("full")), 45,
    ),
    "out of memory at every stage": (raised(MemoryError), 45),
    "disk full": (full_disk, 20),
    "read-only folder": (read_only, 5),
    "clock jumps": (clock_jumps, 10),
    "two trainings of one name": (one_name, 10),
}  # fmt: skip


def options(about: str) -> argparse.Namespace:
    """Reads the command line of a bench of faults."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of times")
    parser.add_argument("--only", default="", help="the faults whose names hold this")
    return parser.parse_args()


def print_table(
    faults: dict[str, tuple[Callable[..., Row], int]], place: object, given: argparse.Namespace
) -> int:
    """Goes through the faults that are asked for, each in `place`, and prints a line of each;
    returns how much was not as it should be.
    """
    random, bad = Random(given.seed), 0
    print("| fault | times | lost | leaked | wrong |\n| --- | ---: | ---: | ---: | ---: |")
    for name, (fault, times) in faults.items():
        if given.only in name:
            row = fault(place, max(1, round(times * given.share)), random)
            bad += row.lost + row.leaked + row.wrong
            print(f"| {name} | {row.tried} | {row.lost} | {row.leaked} | {row.wrong} |", flush=True)
    return bad


def main() -> None:
    """Reads the command line, goes through the faults and prints the table."""
    from .pack import ensure_pack

    given = options(__doc__)
    ensure_pack()
    sys.path.append(str(ROOT / "tests"))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, silent():
        bad = print_table(FAULTS, Bench(Path(folder)), given)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
