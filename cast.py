#!/usr/bin/env python3
"""Learns everybody of a folder, without a page: on this machine, or on a Ray cluster.

    python cast.py FOLDER --comfyui PATH --checkpoint FILE [--out DIR] [--at-once N]
                   [--set NAME=VALUE ...] [--ray [ADDRESS]] [--cores N] [-- FLAGS OF COMFYUI]

Run by its path (docs/cast.md). It leaves an identity for each person in DIR, with report.csv and
report.html, and can be run again at any time: who is there already is not learned again. Exit code:
0 everybody is there, 1 somebody is not, 2 it cannot begin, 130 it was stopped.
"""

import argparse
import hashlib
import importlib
import signal
import sys
import tempfile
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PACK = "sefi_pack"
RETRIES = 20  # of a job whose worker is lost, by Ray
MOST_IN_A_JOB = 8  # people, where nothing else is asked for


def read_arguments(given: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns our arguments, and those behind -- that are ComfyUI's."""
    ours, _, flags = split_at(given, "--")
    parser = argparse.ArgumentParser(prog="cast.py", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="pictures, or sub-folders of pictures, of people")
    parser.add_argument("--comfyui", type=Path, required=True, help="the folder with main.py")
    parser.add_argument("--checkpoint", type=Path, required=True, help="an SD 1.x, 2.x, SDXL file")
    parser.add_argument("--out", type=Path, help="where identities go; FOLDER-identities if absent")
    parser.add_argument("--at-once", type=int, default=0, help="people in a batch; 0: found")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an input "
                        "of Train SeFi Cast, such as steps=500")  # fmt: skip
    parser.add_argument("--ray", nargs="?", const="", metavar="ADDRESS", help="learn on Ray")
    parser.add_argument("--cores", type=int, default=1, help="of a worker of Ray without a card")
    arguments = parser.parse_args(ours)
    for text in arguments.set:
        if "=" not in text:
            parser.error(f"--set: {text} has no value; write NAME=VALUE.")
    if not (arguments.comfyui / "main.py").is_file():
        parser.error(f"--comfyui: there is no main.py in {arguments.comfyui}; name its folder.")
    if not arguments.folder.is_dir():
        parser.error(f"FOLDER: there is no folder {arguments.folder}; name one with pictures.")
    if not arguments.checkpoint.is_file():
        parser.error(f"--checkpoint: there is no file {arguments.checkpoint}; name one.")
    return arguments, flags


def split_at(items: list[str], mark: str) -> tuple[list[str], str, list[str]]:
    """Returns what stands before and behind the first of a mark."""
    place = items.index(mark) if mark in items else len(items)
    return items[:place], mark, items[place + 1 :]


def open_host(comfyui: str, root: str, flags: list[str]) -> None:
    """Makes a ComfyUI and this pack importable here, once a process.

    The pack's own folder never stays on sys.path, where its `nodes` would hide the host's.
    """
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(root)]
    if PACK in sys.modules:
        return
    import torch

    card = torch.cuda.is_available() or "--cpu" in flags
    given, sys.argv = sys.argv, ["main.py", *([] if card else ["--cpu"]), *flags]
    sys.path.insert(0, comfyui)
    try:
        importlib.import_module("comfy.options").enable_args_parsing()
        importlib.import_module("comfy.cli_args")  # reads sys.argv
        # The host's `utils` is a package only if it comes before the host's `nodes`.
        importlib.import_module("utils.extra_config")
    finally:
        sys.argv = given
    pack = types.ModuleType(PACK)
    pack.__path__ = [root]
    sys.modules[PACK] = pack


def load_checkpoint(path: str) -> tuple:
    """Returns MODEL, CLIP and VAE of a checkpoint, as Load Checkpoint does."""
    import comfy.sd
    import folder_paths

    embeddings = folder_paths.get_folder_paths("embeddings")
    return comfy.sd.load_checkpoint_guess_config(path, embedding_directory=embeddings)[:3]


def hash_of(path: Path) -> str:
    """Returns a hash of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 24):
            digest.update(part)
    return digest.hexdigest()


def learn_apart(job: dict) -> list[tuple[str, bytes, str]]:
    """Learns a job's people in a worker of Ray, which has nothing but ComfyUI, this pack and the
    checkpoint at the same places; returns each one's name with the identity's file or the sentence.
    """
    open_host(job["comfyui"], job["root"], job["flags"])
    work = importlib.import_module(f"{PACK}.nodes.host.cast.folder_run")
    kept = sys.modules[PACK].__dict__  # a worker learns one job after another: models stay
    if kept.get("borrowed", ("",))[0] != job["checkpoint"]:
        kept["borrowed"] = job["checkpoint"], job["load"](job["checkpoint"])
    found: list[tuple[str, bytes, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, data in job["files"]:
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        given = work.everybody(Path(folder))[0], job["keys"], job["settings"], job["at_once"]
        work.learn_here(kept["borrowed"][1], *given, lambda *result: found.append(result))
    return found


def learn_on_ray(run: object, arguments: argparse.Namespace, common: dict, bar: object) -> None:
    """Has everybody who waits learned on Ray, which schedules, retries and keeps what is sent."""
    refused = importlib.import_module(f"{PACK}.sefi_core.errors").SettingsError
    try:
        import ray
    except ImportError as error:
        raise refused(
            "--ray: Ray is not installed here; pip install it in the version that docs/cast.md has."
        ) from error
    if __name__ != "__main__":
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        ray.init(address=arguments.ray or None, include_dashboard=False, log_to_driver=False)
    except ConnectionError as error:
        raise refused(
            f"--ray: there is no cluster at {arguments.ray} ({error}); start it, or name another."
        ) from error
    cards = int(ray.cluster_resources().get("GPU", 0))
    workers = cards or int(ray.cluster_resources()["CPU"]) // arguments.cores
    needs = {"num_gpus": 1} if cards else {"num_cpus": arguments.cores}
    # As many calls as there are: a worker keeps its models.
    learn = ray.remote(max_retries=RETRIES, max_calls=0, **needs)(learn_apart)
    people = run.waiting
    size = arguments.at_once or max(1, min(MOST_IN_A_JOB, -(-len(people) // max(1, workers))))
    groups = [people[i : i + size] for i in range(0, len(people), size)]
    jobs = {learn.remote({**common, **sent(run, group)}): group for group in groups}
    try:
        while jobs:
            (ready, *_), _ = ray.wait(list(jobs), num_returns=1)
            group = jobs.pop(ready)
            try:
                found = ray.get(ready)
            except ray.exceptions.RayError as error:
                why = str(error).strip().splitlines()[-1]
                found = [(person.name, b"", f"on Ray: {why}") for person in group]
            for result in found:
                run.done(*result)
                bar.update(1)
    finally:
        ray.shutdown()


def sent(run: object, group: list) -> dict:
    """Returns what a worker is sent of some people: their files, and what these are made from."""
    files = {}
    for person in group:
        for shot in person.shots:
            for path in shot.files:
                files[str(path.relative_to(run.folder))] = path.read_bytes()
    keys = {person.name: run.keys[person.name] for person in group}
    return {"files": list(files.items()), "keys": keys}


def learn_on_this_machine(
    run: object, arguments: argparse.Namespace, load: object, bar: object
) -> None:
    """Has everybody who waits learned in this process, with the host's bar on the terminal."""
    utils = importlib.import_module("comfy.utils")
    work = importlib.import_module(f"{PACK}.nodes.host.cast.folder_run")

    def show(value: int, total: int, *_: object, **__: object) -> None:
        bar.total, bar.n = total, value
        bar.refresh()

    utils.set_progress_bar_global_hook(show)
    models = load(str(arguments.checkpoint))
    given = run.keys, run.settings, arguments.at_once
    work.learn_here(models, run.waiting, *given, run.done)


def main(given: list[str], load: object = load_checkpoint) -> int:
    """Runs the command; returns its exit code.

    Arguments:
        load: Gives MODEL, CLIP and VAE of a checkpoint's path.
    """
    arguments, flags = read_arguments(given)
    folder = arguments.folder.resolve()
    on_ray = arguments.ray is not None
    open_host(str(arguments.comfyui.resolve()), str(ROOT), [*flags, *(["--cpu"] * on_ray)])
    work = importlib.import_module(f"{PACK}.nodes.host.cast.folder_run")
    refused = importlib.import_module(f"{PACK}.sefi_core.errors").SefiError
    out = arguments.out or folder.with_name(f"{folder.name}-identities")
    changed = dict(text.split("=", 1) for text in arguments.set)
    try:
        with work.Shelf(out).alone() as shelf:
            run = work.FolderRun(folder, shelf, changed, hash_of(arguments.checkpoint))
            return learn(run, arguments, flags, load)
    except refused as error:
        print(f"cast.py: {error}", file=sys.stderr)
        return 2


def learn(run: object, arguments: argparse.Namespace, flags: list[str], load: object) -> int:
    """Has everybody who waits learned, and leaves the report, however that ends."""
    tqdm = importlib.import_module("tqdm").tqdm
    interrupted = importlib.import_module("comfy.model_management").InterruptProcessingException
    code = 0
    try:
        with tqdm(total=len(run.waiting), unit=" people", disable=None) as bar:
            if run.waiting and arguments.ray is not None:
                learn_on_ray(run, arguments, shared(run, arguments, flags, load), bar)
            elif run.waiting:
                bar.unit = " steps"
                learn_on_this_machine(run, arguments, load, bar)
    except (KeyboardInterrupt, interrupted):
        code = 130
    finally:
        summary, whole = run.report()
        print(f"{summary} {run.shelf.folder / 'report.html'}")
    for name, fault in run.faults.items():
        print(f"{name}: {fault}", file=sys.stderr)
    if run.left_out:
        print(f"Passed over, as they belong to nobody: {', '.join(run.left_out)}", file=sys.stderr)
    return code or (0 if whole else 1)


def shared(
    run: object, arguments: argparse.Namespace, flags: list[str], load: object
) -> dict[str, object]:
    """Returns what all jobs of a run are sent."""
    return {
        "comfyui": str(arguments.comfyui.resolve()),
        "root": str(ROOT),
        "flags": flags,
        "checkpoint": str(arguments.checkpoint.resolve()),
        "load": load,
        "settings": run.settings,
        "at_once": arguments.at_once,
    }


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl+C: what is learned is kept
    sys.exit(main(sys.argv[1:]))
