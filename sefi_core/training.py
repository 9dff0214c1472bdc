"""Learning an identity: one loop, two presets.

Each step draws latents, noise and a timestep t, lets the generator give the pair of t's stage,
encodes the two prompts as one batch, and lowers L = L_KV + lambda * L_attn (Eq. 6). Only the
generator learns. `train` is an
iterator over steps: bars, stop buttons, previews and files belong to the caller, and the learner
between two steps is the whole state, so that stopping, saving and going on is the caller's to do.
"""

__all__ = [
    "DEFAULT_LEARNING_RATE",
    "PRESETS",
    "LatentPool",
    "Learner",
    "StepReport",
    "TrainingConfig",
    "train",
]

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from .backbone import Backbone, Prediction, TextEncoder
from .errors import SettingsError, TrainingError
from .generator import KINDS, make_generator
from .losses import LossTerms, attention_loss, denoising_loss
from .stages import even_edges, sample_timesteps, stage_of

ATTENTION_SCOPES = ("all tokens", "prompt tokens", "placeholder only", "off")  # options 3, 2, 1
FINITE_CHECK_EVERY = 10  # steps; each check waits for the device


@dataclass(frozen=True)
class TrainingConfig:
    """All that shapes a training besides its picture, prompt and model.

    Arguments:
        steps: Optimiser steps.
        learning_rate: Adam's.
        attention_loss: The prompt columns L_attn compares, one of ATTENTION_SCOPES.
        attention_loss_weight: lambda of Eq. 6.
        stages: S.
        tokens: T, tokens per placeholder.
        batch_size: Samples of a step, each with a timestep of its own.
        seed: Of initial weights, views, timesteps and noise.
        generator: One of generator.KINDS.
        min_scale: Smallest side of the pasted picture in a view.
        views: Augmented views, encoded once.
        masked_loss: Whether L_KV looks only at the pasted picture, within the subject's mask.
        stratified: Whether samples take the stages in turn rather than at random.
        decay: Whether the learning rate falls to 0 along a cosine.
        ema: Decay of the bias-corrected mean of the pairs that is kept as the result; 0 keeps the
            last.
    """

    steps: int = 1000
    learning_rate: float = 3e-4
    attention_loss: str = "all tokens"
    attention_loss_weight: float = 0.003
    stages: int = 5
    tokens: int = 1
    batch_size: int = 1
    seed: int = 0
    generator: str = "residual"
    min_scale: float = 0.3
    views: int = 64
    masked_loss: bool = False
    stratified: bool = False
    decay: bool = False
    ema: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, 100_000),
            ("stages", 1, 50),
            ("tokens", 1, 16),
            ("batch_size", 1, 1024),
            ("views", 1, 100_000),
            ("learning_rate", 0.0, 1.0),
            ("attention_loss_weight", 0.0, 1e3),
            ("min_scale", 0.01, 1.0),
            ("ema", 0.0, 0.99999),
        ):
            value = getattr(self, name)
            if not low <= value <= high:  # also refuses NaN
                raise SettingsError(f"{name}: it is {value}; set it between {low:g} and {high:g}.")
        for name, known in (("attention_loss", ATTENTION_SCOPES), ("generator", KINDS)):
            if getattr(self, name) not in known:
                raise SettingsError(
                    f'{name}: "{getattr(self, name)}" is unknown; choose one of {", ".join(known)}.'
                )

    def fingerprint(self) -> dict:
        """The settings that shape each step: two trainings with equal ones differ in their length
        alone.
        """
        settings = asdict(self)
        if not self.decay:
            del settings["steps"]
        return settings


PRESETS = {
    "default": TrainingConfig(),
    "paper": TrainingConfig(generator="literal", learning_rate=5e-3, min_scale=0.1),
}
DEFAULT_LEARNING_RATE = PRESETS["default"].learning_rate


@dataclass(frozen=True)
class LatentPool:
    """Encoded views: latents (n, c, h, w) as the model takes them, masks (n, 1, h, w) in [0, 1]."""

    latents: Tensor
    masks: Tensor


@dataclass(frozen=True)
class StepReport:
    """After a step: `step` steps are done; losses (2,) are L_KV and L_attn, still on their device."""

    step: int
    losses: Tensor


class Learner(nn.Module):
    """The generators of one identity, their optimiser, random numbers and losses.

    Arguments:
        class_tokens: P by encoder name, each (E,), float32, on the device to train on.
        scaled: Whether the model computes in float16, whose small token gradients need a scaled
            loss.
    """

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
        self.optimizer = torch.optim.Adam(self.generators.parameters(), lr=config.learning_rate)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.step = 0
        self.register_buffer("losses", torch.zeros(config.steps, 2, device=self.device))
        self.mean = {name: torch.zeros_like(pairs) for name, pairs in self.pairs().items()}

    @property
    def device(self) -> torch.device:
        return next(self.generators.parameters()).device

    def forward(self) -> dict[str, Tensor]:
        """Returns the pairs (S, 2, T, E) by encoder name, differentiable."""
        return {name: generator() for name, generator in self.generators.items()}

    @torch.no_grad()
    def pairs(self) -> dict[str, Tensor]:
        """Returns the pairs to keep, (S, 2, T, E) by encoder name, float32 on the CPU."""
        if self.config.ema and self.step:
            seen = 1.0 - self.config.ema**self.step  # Adam's bias correction, for the mean
            return {name: (mean / seen).float().cpu() for name, mean in self.mean.items()}
        return {name: pairs.detach().float().cpu() for name, pairs in self().items()}

    def update(self, terms: LossTerms) -> None:
        """Takes one optimiser step down `terms.total` and notes the losses."""
        if self.config.decay:
            share = 0.5 + 0.5 * math.cos(math.pi * self.step / self.config.steps)
            self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * share
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(terms.total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.losses[self.step] = torch.stack([terms.denoising, terms.attention]).detach()
        self.step += 1
        if self.config.ema:
            with torch.no_grad():
                for name, pairs in self().items():
                    self.mean[name].lerp_(pairs.to(self.mean[name]), 1.0 - self.config.ema)

    def require_finite(self, since: int) -> None:
        """Raises TrainingError if a loss from step `since` on is not a finite number."""
        if not torch.isfinite(self.losses[since : self.step]).all():
            raise TrainingError(
                f"learning_rate: the loss left the finite numbers near step {self.step}; "
                "lower learning_rate, or set dtype to fp32, and start again or resume from the last checkpoint."
            )

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
        tensors |= {"rng": self.rng.get_state(), "losses": self.losses[: self.step]}
        return {name: value.detach().cpu().clone() for name, value in tensors.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state` was taken; the learner must have the same settings, but for its
        steps.
        """
        done = len(state["losses"])
        if done > self.config.steps:
            raise SettingsError(
                f"resume: the checkpoint has {done} steps behind it, more than the {self.config.steps} asked for; "
                f"set steps above {done}, or choose [none] to start anew."
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
        self.rng.set_state(state["rng"])
        self.losses[:done] = state["losses"]
        self.step = done


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns the entries under `prefix`, without it."""
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def train(
    backbone: Backbone, encoder: TextEncoder, pool: LatentPool, learner: Learner
) -> Iterator[StepReport]:
    """Takes the steps that the learner's settings still ask for, one at each `next`.

    Raises:
        TrainingError: A loss left the finite numbers.
    """
    columns = encoder.columns(learner.config.attention_loss).to(learner.device)
    while learner.step < learner.config.steps:
        drawn = learner.rng.get_state()
        try:
            learner.update(losses_of_step(backbone, encoder, pool, learner, columns))
        except BaseException:
            learner.rng.set_state(
                drawn
            )  # a step that was cut short is drawn again when the training goes on
            raise
        if learner.step % FINITE_CHECK_EVERY == 0 or learner.step == learner.config.steps:
            learner.require_finite(max(0, learner.step - FINITE_CHECK_EVERY))
        yield StepReport(learner.step, learner.losses[learner.step - 1])


def losses_of_step(
    backbone: Backbone, encoder: TextEncoder, pool: LatentPool, learner: Learner, columns: Tensor
) -> LossTerms:
    """Draws one batch and returns its losses, differentiable in the learner's generators."""
    config, rng = learner.config, learner.rng
    view = torch.randint(0, len(pool.latents), (config.batch_size,), generator=rng)
    timesteps = sample_timesteps(
        rng, config.batch_size, learner.edges, learner.step, config.stratified
    )
    noise = torch.randn(config.batch_size, *pool.latents.shape[1:], generator=rng)
    latents, masks = (x[view.to(x.device)] for x in (pool.latents, pool.masks))
    prediction = predict_pairs(
        backbone, encoder, learner(), learner.edges, latents, noise, timesteps, columns
    )
    return loss_terms(prediction, config, columns, masks)


def predict_pairs(
    backbone: Backbone,
    encoder: TextEncoder,
    pairs: dict[str, Tensor],
    edges: tuple[int, ...],
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    columns: Tensor,
) -> Prediction:
    """Denoises with the pair of each sample's stage; noise and timesteps may come from the CPU."""
    device = latents.device
    stages = stage_of(timesteps, edges).to(device)
    tokens = {
        name: table[stages].transpose(0, 1).flatten(0, 1) for name, table in pairs.items()
    }  # (2 B, T, E)
    keys, values = encoder.encode(tokens).chunk(
        2
    )  # each (B, L, C): Eq. 5's two encodings, one batch
    return backbone.predict(
        latents,
        noise.to(latents),
        timesteps.to(device),
        keys,
        values,
        with_maps=bool(columns.any()),
    )


def loss_terms(
    prediction: Prediction, config: TrainingConfig, columns: Tensor, masks: Tensor | None
) -> LossTerms:
    """Returns Eq. 6 for one prediction; masks (B, 1, h, w) count only if the settings ask for it."""
    denoising = denoising_loss(prediction, masks if config.masked_loss else None)
    attention = (
        attention_loss(prediction, columns) if prediction.maps else torch.zeros_like(denoising)
    )
    return LossTerms(denoising, attention, denoising + config.attention_loss_weight * attention)
