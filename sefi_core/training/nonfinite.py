"""What becomes of a step whose loss or gradient is not finite.

It is skipped and the learning rate halved; a training that goes on like that is stopped with its
last good state. Everything stays on the device, because each number read back waits for it: only
`raise_if_diverged`, which is called now and then, reads any.
"""

__all__ = ["StepGuard"]

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..errors import TrainingError

PATIENCE = 5  # bad steps in a row
SMALLEST_SHARE = 2.0**-10  # of the learning rate; below it nothing would be learned
SCALE_HALVINGS = 16  # GradScaler starts at 2 ** 16


class StepGuard(nn.Module):
    """Judges each step; `share` of the learning rate is left, `in_a_row` steps were bad.

    Arguments:
        scaled: Whether the loss is scaled for float16. A gradient that overflows then makes
            GradScaler halve its scale: it costs the step, but no learning rate.
    """

    share: Tensor
    in_a_row: Tensor

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.scaled = scaled
        self.patience = PATIENCE + SCALE_HALVINGS * scaled
        self.register_buffer("share", torch.ones(()))
        self.register_buffer("in_a_row", torch.zeros(()))

    @torch.no_grad()
    def judge(self, losses: Tensor, gradients: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns whether the losses (n,) are finite and whether the step may be taken, both ().

        A gradient counts as finite if its square does, because Adam keeps that.
        """
        norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
        calm = losses.isfinite().all()
        sound = calm & norms.square().sum().isfinite()
        self.in_a_row.copy_(torch.where(sound, 0.0, self.in_a_row + 1.0))
        self.share.mul_(torch.where(calm if self.scaled else sound, 1.0, 0.5))
        return calm, sound

    def halvings(self) -> int:
        """Returns how often the learning rate was halved; waits for the device."""
        return round(-math.log2(self.share.item()))

    def raise_if_diverged(self, step: int, steps: int) -> None:
        """Raises TrainingError if, with `step` of `steps` done, too many were bad: in a row, in
        all, or every one of a short training.
        """
        patience = min(self.patience, step) if step == steps else self.patience
        if self.share.item() < SMALLEST_SHARE or self.in_a_row.item() >= patience:
            tried = f"the learning rate halved {self.halvings()} times"
            raise TrainingError(
                f"learning_rate: the training blew up near step {step} (its numbers are no longer "
                f"finite, even with {tried if self.halvings() else 'the loss scaled down'}); lower "
                "learning_rate, or set dtype to fp32, and start anew."
            )
