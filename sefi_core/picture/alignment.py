"""The frame in which the class word expects its subject.

How one picture happens to be taken is learned as what its subject is like: a head a little nearer
is a wide face with large eyes (docs/quality.md). So a picture is enlarged and moved to where the
class word alone explains it best, by its denoising loss: the frame of an average picture.
"""

__all__ = ["LOW", "TRIALS", "Frame", "expected_frame", "in_frame"]

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LOW = 700  # the least timestep to ask at: nearer to the clean picture details answer
STEPS = (-3.0, -1.0, 1.0, 3.0)  # none at 0: a picture that is not resampled is sharper than all
UNITS = (0.05, 0.02, 0.02)  # of a step in zoom, right, down
FLAT = 0.1  # of the mean loss: trials that differ by less are nearly as good


@dataclass(frozen=True)
class Frame:
    """Where a picture goes: exp(zoom) times its size about its middle, then to the right and down,
    in shares of its side.
    """

    zoom: float = 0.0
    right: float = 0.0
    down: float = 0.0


TRIALS = tuple(
    Frame(*(step * unit if i == axis else 0.0 for i in range(3)))
    for axis, unit in enumerate(UNITS)
    for step in STEPS
)
"""The frames to try, those of one direction after the other."""


def expected_frame(losses: Sequence[float]) -> Frame:
    """Returns the mean of `TRIALS`, in each direction, weighted by exp(-loss / (0.1 mean loss)): it
    is nearer to the middle the less the losses differ; no move where one is no number.
    """
    directions = torch.tensor(losses, dtype=torch.float64).view(len(UNITS), len(STEPS))
    shares = (-directions / (FLAT * directions.mean(dim=1, keepdim=True))).softmax(dim=1)
    steps = (shares @ torch.tensor(STEPS, dtype=torch.float64)).nan_to_num(0.0).tolist()
    return Frame(*(step * unit for step, unit in zip(steps, UNITS, strict=True)))


def in_frame(planes: Tensor, frame: Frame, outside: str = "reflection") -> Tensor:
    """Returns planes (B, c, R, R) in [0, 1] in a frame; what comes in from outside is their mirror
    image, or "zeros".
    """
    zoom, right, down = astuple(frame)
    back = math.exp(-zoom)
    # From where each point of the result comes, in coordinates from -1 to 1.
    matrix = torch.tensor([[back, 0.0, -2.0 * right * back], [0.0, back, -2.0 * down * back]])
    theta = matrix.to(planes).expand(len(planes), -1, -1)
    grid = F.affine_grid(theta, list(planes.shape), align_corners=False)
    moved = F.grid_sample(planes, grid, padding_mode=outside, align_corners=False)
    return moved.clamp(0.0, 1.0)
