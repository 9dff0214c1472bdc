"""What learns: the generators of one identity with their optimiser, random numbers and losses.

Between two steps it is the whole state of a training, and saves and restores bit for bit.
"""

__all__ = ["Learner"]

import math

import torch
from torch import Tensor, nn

from ..errors import SettingsError
from ..losses import LossTerms
from ..stages import even_edges
from .config import TrainingConfig
from .generator import make_generator
from .nonfinite import StepGuard

MOMENTS = ("exp_avg", "exp_avg_sq")
FUSED_DEVICES = ("cuda",)  # whose Adam skips a step by a flag on the device, which nobody waits for


class Learner(nn.Module):
    """The generators of one identity, their optimiser, random numbers and losses.

    Arguments:
        class_tokens: P by encoder name, each (E,), float32, on the device to train on.
        scaled: Whether the model computes in float16, whose small token gradients need a scaled
            loss.
    """

    losses: Tensor

    def __init__(
        self, class_tokens: dict[str, Tensor], config: TrainingConfig, scaled: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.edges = even_edges(config.stages)
        self.rng = torch.Generator().manual_seed(config.seed)
        self.generators = nn.ModuleDict(
            {
                name: make_generator(
                    config.generator, token.cpu(), config.stages, config.tokens, self.rng
                )
                for name, token in class_tokens.items()
            }
        ).to(next(iter(class_tokens.values())).device)
        self.fused = self.device.type in FUSED_DEVICES
        self.optimizer = torch.optim.Adam(
            self.generators.parameters(), lr=config.learning_rate, fused=self.fused
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.guard = StepGuard(scaled).to(self.device)
        self.step = 0
        self.starts = min(config.starts, config.stages)
        # The rows of the pairs that race, the best first; one when none do.
        self.racers = list(range(self.starts))
        self.probed: list[float] = []  # L_KV of the fixed probe, at each look
        self.register_buffer("losses", torch.zeros(config.steps, 2, device=self.device))
        self.mean = {name: pairs.detach().clone() for name, pairs in self().items()}

    @property
    def device(self) -> torch.device:
        return next(self.generators.parameters()).device

    def forward(self) -> dict[str, Tensor]:
        """Returns the pairs (S, 2, T, E) by encoder name, differentiable."""
        return {name: generator() for name, generator in self.generators.items()}

    @property
    def racing(self) -> bool:
        return len(self.racers) > 1

    @torch.no_grad()
    def learned(self, row: int | None = None) -> dict[str, Tensor]:
        """Returns the pairs so far, (S, 2, T, E) by encoder name; of a row, its pair for every
        stage, and while some race the best one's.
        """
        tables = self.mean if self.config.ema else self()
        if row is None and self.racing:
            row = self.racers[0]
        return tables if row is None else {n: held(table, row) for n, table in tables.items()}

    @torch.no_grad()
    def pairs(self) -> dict[str, Tensor]:
        """Returns the pairs to keep, (S, 2, T, E) by encoder name, float32 on the CPU."""
        # A copy: a free table gives its own parameter, which goes on learning.
        return {name: table.float().cpu().clone() for name, table in self.learned().items()}

    @torch.no_grad()
    def rank(self, racers: list[int]) -> None:
        """Lets the last of the racers, the best first, fall out; every stage goes on from the one
        that is left.
        """
        self.racers = racers[:-1]
        if self.racing:
            return
        tables = list(self.generators.parameters())
        moments = [self.optimizer.state[p][slot] for p in tables for slot in MOMENTS]
        for table in [*tables, *moments, *self.mean.values()]:
            table.copy_(held(table, self.racers[0]))

    def update(self, terms: LossTerms) -> None:
        """Takes one optimiser step down `terms.total` and notes the losses."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(terms.total).backward()
        self.step_down(terms)

    def step_down(self, terms: LossTerms) -> None:
        """Takes one optimiser step by the gradients of the scaled `terms.total` that are there, if
        all is finite, and notes the losses; those of a step that blew up are the ones before it.
        """
        self.scaler.unscale_(self.optimizer)
        losses = torch.stack([terms.denoising, terms.attention]).detach()
        groups = self.optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        calm, sound = self.guard.judge(losses, gradients)
        self.descend(sound)
        self.scaler.update()
        self.losses[self.step] = torch.where(calm, losses, self.losses[self.step - 1])
        self.step += 1
        if self.config.ema:
            self.follow()

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the mean of the pairs, over about the last ninth of the steps at first."""
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, pairs in self().items():
            self.mean[name].lerp_(pairs, 1.0 - keep)

    def descend(self, sound: Tensor) -> None:
        """Takes the optimiser's step if `sound`, ()."""
        rate = self.config.learning_rate
        if self.starts > 1 and not self.racing:
            rate *= self.config.settle
        if self.config.decay:
            rate *= 0.5 + 0.5 * math.cos(math.pi * self.step / self.config.steps)
        group = self.optimizer.param_groups[0]
        if self.fused:
            group["lr"] = rate * self.guard.share
            # As GradScaler tells it, which would wait for the device here.
            self.optimizer.found_inf = (~sound).float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif sound:
            group["lr"] = rate * self.guard.share.item()
            self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Returns the whole state between two steps as CPU tensors; `restore` takes it back bit for
        bit.
        """
        tensors = {
            f"generators.{name}": value for name, value in self.generators.state_dict().items()
        }
        tensors |= {f"mean.{name}": value for name, value in self.mean.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
        tensors |= {
            f"scaler.{name}": torch.tensor(value)
            for name, value in self.scaler.state_dict().items()
        }
        tensors |= {f"guard.{name}": value for name, value in self.guard.state_dict().items()}
        tensors |= {"rng": self.rng.get_state(), "losses": self.losses[: self.step]}
        tensors["probed"] = torch.tensor(self.probed, dtype=torch.float64)
        if self.config.starts > 1:
            tensors["racers"] = torch.tensor(self.racers)
        return {name: value.detach().cpu().clone() for name, value in tensors.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state` was taken; the learner must have the same settings, but for its
        steps.
        """
        done = len(state["losses"])
        if done > self.config.steps:
            raise SettingsError(
                f"resume: the checkpoint has {done} steps behind it, more than the "
                f"{self.config.steps} asked for; set steps above {done}, or choose [none] to "
                "start anew."
            )
        self.generators.load_state_dict(part(state, "generators."))
        for name, value in part(state, "mean.").items():
            self.mean[name].copy_(value)
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in part(state, "optimizer.").items():
            index, slot = name.split(".", 1)
            slots.setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        self.scaler.load_state_dict(
            {name: value.item() for name, value in part(state, "scaler.").items()}
        )
        self.guard.load_state_dict(part(state, "guard."))
        self.rng.set_state(state["rng"])
        self.probed = state["probed"].tolist()
        if self.config.starts > 1:
            self.racers = state["racers"].tolist()
        self.losses[:done] = state["losses"]
        self.step = done


def held(table: Tensor, row: int) -> Tensor:
    """Returns a table (S, ...) of copies of one of its rows."""
    return table[row].clone().expand_as(table)


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns the entries under `prefix`, without it."""
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
