"""What learns: the tables of one identity with their optimiser, random numbers and losses.

Between two steps it is the whole state of a training, and saves and restores bit for bit.
"""

__all__ = ["Learner"]

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import SettingsError
from ..losses import LossTerms
from ..stages import sample_timesteps
from .config import TrainingConfig
from .generator import make_generator
from .nonfinite import StepGuard
from .phases import PerStage, Phase, Selection

MOMENTS = {"exp_avg", "exp_avg_sq"}  # of Adam
LOUDEST = 2.0**8  # about 1 + sigma^2, what velocity makes of a loss of noise at its strongest
FUSED_DEVICES = ("cuda",)  # whose Adam skips a step by a flag on the device, which nobody waits for

Generator = Callable[[Tensor, int, int, torch.Generator], nn.Module]
"""(P (E,), rows, T, rng) -> a module whose output is (rows, 2, T, E), float32."""


def constant_lr(step: int, steps: int) -> float:
    return 1.0


def uniform_timesteps(learner: "Learner") -> Tensor:
    return sample_timesteps(learner.rng, learner.config.batch_size, learner.phase.edges)


class Learner(nn.Module):
    """The generators of one identity, their optimiser, random numbers and losses.

    Arguments:
        class_tokens: P by encoder name, each (E,), float32, on the device to train on.
        scaled: Whether the model computes in float16, whose small token gradients need a scaled
            loss.
        schedule: (step, steps) -> the share of the learning rate.
        timesteps: Draws the timesteps (B,) of a step, with the learner's rng.
        generator: What makes the pairs, in place of the config's.
    """

    losses: Tensor

    def __init__(
        self,
        class_tokens: dict[str, Tensor],
        config: TrainingConfig,
        scaled: bool = False,
        *,
        schedule: Callable[[int, int], float] = constant_lr,
        timesteps: Callable[["Learner"], Tensor] = uniform_timesteps,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.config, self.schedule, self.timesteps = config, schedule, timesteps
        self.phase: Phase = Selection.of(config) if config.candidates > 1 else PerStage.of(config)
        self.rng = torch.Generator().manual_seed(config.seed)
        rows = config.candidates if config.candidates > 1 else config.stages
        made = generator or make_generator(config.generator)
        self.generators = nn.ModuleDict(
            {
                name: made(token.cpu(), rows, config.tokens, self.rng)
                for name, token in class_tokens.items()
            }
        ).to(next(iter(class_tokens.values())).device)
        self.fused = self.device.type in FUSED_DEVICES
        self.optimizer = torch.optim.Adam(
            self.generators.parameters(), lr=config.learning_rate, fused=self.fused
        )
        louder = LOUDEST if config.velocity_loss else 1.0
        self.scaler = torch.amp.GradScaler(self.device.type, 2.0**16 / louder, enabled=scaled)
        self.guard = StepGuard(scaled).to(self.device)
        self.step = 0
        self.register_buffer("losses", torch.zeros(config.steps, 2, device=self.device))
        self.ema = {name: pairs.detach().clone() for name, pairs in self().items()}

    @property
    def device(self) -> torch.device:
        return next(self.generators.parameters()).device

    @property
    def left(self) -> tuple[int, ...]:
        """Rows of the candidates that are left, the best first; one once the stages learn."""
        return self.phase.left if isinstance(self.phase, Selection) else (0,)

    def forward(self) -> dict[str, Tensor]:
        """Returns the tables by encoder name, differentiable: candidates (N, 2, T, E), later the
        pairs (S, 2, T, E).
        """
        return {name: generator() for name, generator in self.generators.items()}

    @torch.no_grad()
    def kept(self) -> dict[str, Tensor]:
        """Returns the tables whose pairs are kept: their EMA, or as they are without one."""
        return self.ema if self.config.ema else self()

    @torch.no_grad()
    def pairs(self) -> dict[str, Tensor]:
        """Returns the pairs so far, (S, 2, T, E) by encoder name, float32 on the CPU; while
        candidates are left the best one's, for every stage.
        """
        tables = self.kept()
        if isinstance(self.phase, Selection):
            stages = self.config.stages
            tables = {n: repeat_row(table, self.left[0], stages) for n, table in tables.items()}
        # A copy: a free table gives its own parameter, which goes on learning.
        return {name: table.float().cpu().clone() for name, table in tables.items()}

    def drop_worst(self, ranked: list[int]) -> None:
        """Drops the last of the candidates, the best first; when one is left, every stage begins
        with its pair, Adam moments and EMA.
        """
        *left, _ = ranked
        if len(left) > 1:
            self.phase = Selection(tuple(left), self.phase.edges)
        else:
            self.begin_stages(left[0])

    @torch.no_grad()
    def begin_stages(self, row: int) -> None:
        """Begins the stages with one row of the candidates' tables."""
        self.phase, stages = PerStage.of(self.config), self.config.stages
        state, begun = self.optimizer.state, {}
        for module in self.generators.modules():
            for name, table in list(module.named_parameters(recurse=False)):
                begun[table] = nn.Parameter(repeat_row(table, row, stages))
                setattr(module, name, begun[table])
                slots = state.pop(table, {})
                moments = {
                    slot: repeat_row(slots[slot], row, stages) for slot in MOMENTS & slots.keys()
                }
                state[begun[table]] = {**slots, **moments}
        for group in self.optimizer.param_groups:
            group["params"] = [begun.get(table, table) for table in group["params"]]
        self.ema = {name: repeat_row(table, row, stages) for name, table in self.ema.items()}

    def take_step(self, terms: LossTerms) -> None:
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
            self.update_ema()

    @torch.no_grad()
    def update_ema(self) -> None:
        """EMA of the tables; decay warms up as min(ema, (1 + step) / (10 + step))."""
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, pairs in self().items():
            self.ema[name].lerp_(pairs, 1.0 - keep)

    def descend(self, sound: Tensor) -> None:
        """Takes the optimiser's step if `sound`, ()."""
        rate = self.config.learning_rate * self.phase.lr_scale
        rate *= self.schedule(self.step, self.config.steps)
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
        tensors = {f"generators.{name}": v for name, v in self.generators.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
        scaler = self.scaler.state_dict().items()
        tensors |= {f"scaler.{name}": torch.tensor(value) for name, value in scaler}
        tensors |= {f"guard.{name}": value for name, value in self.guard.state_dict().items()}
        tensors |= {"rng": self.rng.get_state(), "losses": self.losses[: self.step]}
        if isinstance(self.phase, Selection):
            tensors["candidates"] = torch.tensor(self.left)
        return {name: value.detach().cpu().clone() for name, value in tensors.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state` was taken; the learner must have the same settings, but for its
        steps.

        Raises:
            SettingsError: More steps are behind it than the learner is to take.
        """
        done = len(state["losses"])
        if done > self.config.steps:
            raise SettingsError(
                f"resume: the checkpoint has {done} steps behind it, more than the "
                f"{self.config.steps} asked for; set steps above {done}, or choose [none] to "
                "start anew."
            )
        if isinstance(self.phase, Selection):
            if "candidates" in state:
                self.phase = Selection(tuple(state["candidates"].tolist()), self.phase.edges)
            else:
                self.begin_stages(0)  # of the tables' shape; their values come next
        self.generators.load_state_dict(part(state, "generators."))
        for name, value in part(state, "ema.").items():
            self.ema[name].copy_(value)
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in part(state, "optimizer.").items():
            index, slot = name.split(".", 1)
            slots.setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        self.scaler.load_state_dict({n: v.item() for n, v in part(state, "scaler.").items()})
        self.guard.load_state_dict(part(state, "guard."))
        self.rng.set_state(state["rng"])
        self.losses[:done] = state["losses"]
        self.step = done


def repeat_row(table: Tensor, row: int, count: int) -> Tensor:
    """Returns a table (count, ...) of copies of one row of a table."""
    return table[row].expand(count, *table.shape[1:]).clone()


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns the entries under `prefix`, without it."""
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
