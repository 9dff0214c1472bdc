"""What the account of identities costs: sampling with it and without, in turns, in one process:
`python -m benchmarks.account_cost --size sd15 --pairs 20`.

Each pair is the same prompt of the host's own executor with the same seed, once as it is and once
with the account taken away; which comes first alternates. The ratio's interval is that of a
bootstrap over the pairs. At most 1.01 is asked for.
"""
# ruff: noqa: E402 - the pack and the host can be imported after `ensure_pack` only

__all__ = ["interval_of", "pair"]

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from .pack import ROOT, ensure_pack

ensure_pack()
sys.path += [str(ROOT / "tests"), str(ROOT / "tests/host")]
from sefi_pack.nodes.host.apply import account, collecting
from sefi_pack.nodes.host.text.encoder import token_widths
from sefi_pack.sefi_core.identity.identity import Identity
from server import PromptServer
from stand_ins import Executions, Page, Parts, prompt_of

from .speed_models import SIZES, make_clip, make_model

MOST = 1.01
DRAWS = 10_000
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}  # the latter on a busy machine


def host_with(size: str) -> Executions:
    """Returns the host's executor with the models of a size and a learned identity."""
    model, clip = make_model(SIZES[size]), make_clip(SIZES[size])
    generator = torch.Generator().manual_seed(7)
    pairs = {
        name: 0.3 * torch.randn(5, 2, 1, width, generator=generator)
        for name, width in token_widths(clip).items()
    }
    Parts.parts = {"model": model, "clip": clip, "anna": Identity(pairs)}
    PromptServer.instance = Page()
    return Executions(PromptServer.instance)


def graph_of(size: str, steps: int) -> dict[str, Any]:
    side = 8 * SIZES[size].side
    return prompt_of(
        parts=("Parts", {"name": "anna"}),
        apply=(
            "ApplySeFiConditioning",
            {"model": "parts@0", "clip": "parts@1", "identity": "parts@2", "text": "a photo of V*"},
        ),
        negative=("CLIPTextEncode", {"clip": "parts@1", "text": "blurry"}),
        latent=("EmptyLatentImage", {"width": side, "height": side, "batch_size": 1}),
        picture=(
            "KSampler",
            {
                "model": "apply@0", "positive": "apply@1", "negative": "negative@0",
                "latent_image": "latent@0", "seed": 0, "steps": steps, "cfg": 7.5,
                "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            },
        ),
        keep=("Keep", {"latent": "picture@0"}),
    )  # fmt: skip


@contextmanager
def without_account() -> Iterator[None]:
    with patch.object(account, "account_here", lambda: None):
        with patch.object(collecting, "account_here", lambda: None):
            yield


def timed(
    host: Executions, prompt: dict[str, Any], clock: Callable[[], float]
) -> tuple[float, torch.Tensor]:
    start = clock()
    (latent,), _, messages = host.run(prompt)
    seconds = clock() - start
    if messages[-1][0] != "execution_success":
        raise RuntimeError(str(messages[-1]))
    return seconds, latent


def pair(
    host: Executions, prompt: dict[str, Any], number: int, clock: Callable[[], float]
) -> float:
    """Returns the seconds of a prompt with the account, over those without it.

    Raises:
        RuntimeError: The two pictures differ.
    """
    inputs = next(n["inputs"] for n in prompt.values() if n["class_type"] == "KSampler")
    found: dict[bool, tuple[float, torch.Tensor]] = {}
    for order, counted in enumerate((number % 2 == 0, number % 2 == 1)):
        # The host remembers a prompt's result: another denoise that means the same steps.
        inputs.update(seed=number, denoise=1.0 - 1e-7 * order)
        if counted:
            found[True] = timed(host, prompt, clock)
        else:
            with without_account():
                found[False] = timed(host, prompt, clock)
    if not torch.equal(found[True][1], found[False][1]):
        raise RuntimeError(f"the pictures of pair {number} differ")
    return found[True][0] / found[False][0]


def interval_of(ratios: list[float]) -> tuple[float, float, float]:
    """Returns the geometric mean of ratios, and the ends of its interval of 95 percent."""
    logs = torch.tensor(ratios, dtype=torch.float64).log()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(logs), (DRAWS, len(logs)), generator=generator)
    low, high = logs[drawn].mean(dim=1).quantile(torch.tensor([0.025, 0.975], dtype=logs.dtype))
    return float(logs.mean().exp()), float(low.exp()), float(high.exp())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--size", choices=SIZES, default="sd15")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    clock = CLOCKS[options.clock]
    host, prompt = host_with(options.size), graph_of(options.size, options.steps)
    timed(host, prompt, clock)  # warms up
    ratios = [pair(host, prompt, number + 1, clock) for number in range(options.pairs)]
    mean, low, high = interval_of(ratios)
    print(
        f"{options.size}, {options.steps} steps, {options.pairs} pairs, {options.clock} time, "
        f"bit for bit the same: with / without {mean:.4f} ({low:.4f} to {high:.4f}; at most {MOST} "
        "asked for)"
    )
    sys.exit(low > MOST)


if __name__ == "__main__":
    main()
