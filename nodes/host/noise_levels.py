"""Timesteps 0 .. 999 <-> the noise levels of a model's sampling, whatever its own count of them.

The stages of an identity are cut in timesteps. A sampling lists its noise levels, sigma, in
ascending order: mostly 1000, one for each timestep; LCM-like ones 50, which are every 20th;
EDM-like ones 1000, evenly apart in log sigma, under numbers of another kind. Level i of n is
timestep (i + 1) * 1000 / n - 1, which is the host's own number in the first two cases.
"""

__all__ = ["nearest_timesteps", "prediction_type", "sigmas_at", "timesteps_of"]

from comfy.model_sampling import EDM, V_PREDICTION
from torch import Tensor, nn

from ...sefi_core.stages import TIMESTEPS


def timesteps_of(sampling: nn.Module, sigmas: Tensor) -> Tensor:
    """Returns the timesteps (B,), int64, whose levels are nearest to sigmas (B,)."""
    levels = sampling.log_sigmas
    place = (sigmas.log().to(levels.device) - levels[:, None]).abs().argmin(dim=0)
    return timesteps_at(sampling, place).to(sigmas.device)


def nearest_timesteps(sampling: nn.Module, timesteps: Tensor) -> Tensor:
    """Returns the timesteps that the sampling has a level for, one near each of `timesteps`."""
    return timesteps_at(sampling, places(sampling, timesteps))


def sigmas_at(sampling: nn.Module, timesteps: Tensor) -> Tensor:
    """Returns the sigmas (B,) of the levels near timesteps (B,)."""
    levels = sampling.log_sigmas
    return levels[places(sampling, timesteps).to(levels.device)].exp().to(timesteps.device)


def places(sampling: nn.Module, timesteps: Tensor) -> Tensor:
    return timesteps * len(sampling.log_sigmas) // TIMESTEPS


def timesteps_at(sampling: nn.Module, places: Tensor) -> Tensor:
    return (places + 1) * TIMESTEPS // len(sampling.log_sigmas) - 1


def prediction_type(sampling: nn.Module) -> str:
    """Returns "v" or "epsilon", as the model-metadata specification writes it."""
    velocity = isinstance(sampling, V_PREDICTION) and not isinstance(sampling, EDM)
    return "v" if velocity else "epsilon"
