"""Timesteps 0 .. 999 <-> the noise levels of a model's sampling, whatever its own count of them.

The stages of an identity are cut in timesteps. A sampling lists its noise levels, sigma, in
ascending order: mostly 1000, one for each timestep; LCM-like ones 50, which are every 20th;
EDM- and flow-like ones 1000, under numbers of another kind. Level i of n is timestep
(i + 1) * 1000 / n - 1, which is the host's own number in the first two cases.
"""

__all__ = [
    "alike_timestep",
    "behaviour",
    "near_the_end",
    "nearest_timesteps",
    "prediction_type",
    "sigmas_at",
    "timesteps_of",
]

import math

import torch
from comfy.model_sampling import CONST, EDM, V_PREDICTION, X0, ModelSamplingDiscrete
from torch import Tensor, nn

from ...sefi_core.stages import TIMESTEPS

STABLE, STABLE_SIDE = ModelSamplingDiscrete().sigmas, 64  # Stable Diffusion's, at 512 pixels
LATEST = 900  # a tenth of the timesteps is left to learn from, however large the latents are
END = 2 / 3  # of the strongest noise: from there on a sampling has hardly begun
PREDICTIONS = {EDM: "edm", V_PREDICTION: "v", X0: "x0", CONST: "flow"}


def timesteps_of(sampling: nn.Module, sigmas: Tensor) -> Tensor:
    """Returns the timesteps (B,), int64, whose levels are nearest to sigmas (B,)."""
    levels = log_levels(sampling)
    place = (sigmas.log().to(levels.device) - levels[:, None]).abs().argmin(dim=0)
    return timesteps_at(sampling, place).to(sigmas.device)


def nearest_timesteps(sampling: nn.Module, timesteps: Tensor) -> Tensor:
    """Returns the timesteps that the sampling has a level for, one near each of `timesteps`."""
    return timesteps_at(sampling, places(sampling, timesteps))


def sigmas_at(sampling: nn.Module, timesteps: Tensor) -> Tensor:
    """Returns the sigmas (B,) of the levels near timesteps (B,)."""
    levels = log_levels(sampling)
    return levels[places(sampling, timesteps).to(levels.device)].exp().to(timesteps.device)


def near_the_end(sampling: nn.Module, timesteps: Tensor) -> Tensor:
    """Returns whether the noise of timesteps (B,) is nearly the strongest there is, (B,), bool."""
    return sigmas_at(sampling, timesteps) >= END * sampling.sigmas[-1].to(timesteps.device)


def alike_timestep(sampling: nn.Module, timestep: int, side: int) -> int:
    """Returns the timestep that hides as much of latents (side, side) as `timestep` of Stable
    Diffusion at 512 pixels hides there.

    What covers a part of the picture covers more latents of a larger one, and their mean has less
    of the noise, by the side (arXiv 2301.10972, 2403.03206 Sec. 5.3.2).
    """
    one = torch.ones(len(sampling.sigmas), 1, device=sampling.sigmas.device)
    noise = sampling.noise_scaling(sampling.sigmas, one, 0.0 * one)
    picture = sampling.noise_scaling(sampling.sigmas, 0.0 * one, one)
    asked = math.log(STABLE[timestep] * side / STABLE_SIDE)
    place = ((noise / picture)[:, 0].log() - asked).abs().argmin()
    return min(int(timesteps_at(sampling, place)), LATEST)


def log_levels(sampling: nn.Module) -> Tensor:
    levels = getattr(sampling, "log_sigmas", None)
    return sampling.sigmas.log() if levels is None else levels


def places(sampling: nn.Module, timesteps: Tensor) -> Tensor:
    return timesteps * len(sampling.sigmas) // TIMESTEPS


def timesteps_at(sampling: nn.Module, places: Tensor) -> Tensor:
    return (places + 1) * TIMESTEPS // len(sampling.sigmas) - 1


def prediction_type(sampling: nn.Module) -> str:
    """Returns what the model predicts: "epsilon" and "v", as the model-metadata specification
    writes them, or a word of our own.
    """
    words = (word for kind, word in PREDICTIONS.items() if isinstance(sampling, kind))
    return next(words, "epsilon")


def behaviour(sampling: nn.Module) -> dict[str, Tensor]:
    """Returns all that a sampling does, as numbers: its levels, their timesteps, what becomes of
    inputs and of outputs at each.
    """
    sigmas = sampling.sigmas
    one = torch.ones(len(sigmas), 1, device=sigmas.device)
    return {
        "sigmas": sigmas,
        "timesteps": sampling.timestep(sigmas),
        "input": sampling.calculate_input(sigmas, one),
        "skip": sampling.calculate_denoised(sigmas, 0.0 * one, one),
        "output": sampling.calculate_denoised(sigmas, one, 0.0 * one),
    }
