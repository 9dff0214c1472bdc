"""The settings of a training, and the two presets.

`paper` is the paper's recipe to the letter; `default` is the paper's method (stages, K and V apart,
attention loss), done as it measured best (docs/quality.md): the subject alone is learned; noisy
samples, where layout and identity form, count as much as others, and half of the noisiest show
nothing of the picture; the pairs themselves are learned, from the class word on, and of five
candidates one is where every stage begins; the views keep the picture's size, because a black
border is learned as a part of the subject; and the mean of the last pairs is kept, because single
steps of one sample are noisy.
"""

__all__ = ["ATTENTION_SCOPES", "PRESETS", "RECORDED_AS", "TrainingConfig"]

from dataclasses import asdict, dataclass, replace

from torch import Tensor

from ..errors import SettingsError, one_line
from ..protocols import Prediction
from .generator import KINDS

# The settings of the selection, by what identity files and checkpoints call them for ever.
RECORDED_AS = {
    "candidates": "starts",
    "elimination_every": "race_every",
    "selection_from": "race_from",
    "lr_after_selection": "settle",
}
SELECTION_SHARE = 12, 25  # of a training's steps that its selection may take at most
# Which noise is learned from and how much, and where.
OPTIONAL = ("velocity_loss", "unseen", "find_subject")
ATTENTION_SCOPES = ("all tokens", "prompt tokens", "placeholder only", "off")  # options 3, 2, 1


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
        min_scale, max_scale: Smallest and largest side of the picture in a view, as a share of the
            canvas: below 1 it is pasted on black, above 1 a part of it fills the view.
        views: Augmented views, encoded once.
        find_subject: Whether the mask is where the model sees the class word (subject_mask.py).
        masked_loss: Whether L_KV looks only at the pasted picture, within the subject's mask.
        velocity_loss: Whether L_KV is that of velocity, whatever the model predicts, so that noisy
            samples, where layout and identity form, count as much as others.
        unseen: The share of the samples near the end of the noise that are noise alone, as a
            sampling begins.
        ema: Decay, once it has warmed up, of the mean of the pairs that is kept as the result; 0
            keeps the last.
        candidates: How many pairs learn side by side at first, until every stage goes on from the
            best (selection.py); with 1 every stage begins at the class word.
        elimination_every: Steps until the worst candidate is eliminated.
        selection_from: The timestep from which on candidates train; a preset's is that of Stable
            Diffusion at 512 pixels.
        lr_after_selection: The learning rate after the selection, as a share of the one before.
    """

    steps: int = 1000
    learning_rate: float = 5e-3
    attention_loss: str = "prompt tokens"
    attention_loss_weight: float = 0.001
    stages: int = 5
    tokens: int = 1
    batch_size: int = 1
    seed: int = 0
    generator: str = "direct"
    min_scale: float = 1.0
    max_scale: float = 1.0
    views: int = 64
    find_subject: bool = False
    masked_loss: bool = False
    velocity_loss: bool = False
    unseen: float = 0.0
    ema: float = 0.995
    candidates: int = 1
    elimination_every: int = 120
    selection_from: int = 600
    lr_after_selection: float = 0.25

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, 100_000),
            ("stages", 1, 50),
            ("tokens", 1, 16),
            ("batch_size", 1, 1024),
            ("views", 1, 100_000),
            ("learning_rate", 0.0, 1.0),
            ("attention_loss_weight", 0.0, 1e3),
            ("min_scale", 0.01, 4.0),
            ("max_scale", self.min_scale, 4.0),
            ("unseen", 0.0, 1.0),
            ("ema", 0.0, 0.99999),
            ("candidates", 1, 50),
            ("elimination_every", 1, 100_000),
            ("selection_from", 0, 999),
            ("lr_after_selection", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:  # also refuses NaN
                raise SettingsError(f"{name}: it is {value}; set it between {low:g} and {high:g}.")
        for name, known in (("attention_loss", ATTENTION_SCOPES), ("generator", KINDS)):
            if getattr(self, name) not in known:
                raise SettingsError(
                    f'{name}: "{one_line(str(getattr(self, name)))}" is unknown; choose one of '
                    f"{', '.join(known)}."
                )
        if self.candidates > 1 and self.generator != "direct":
            raise SettingsError(
                f'candidates: it is {self.candidates}, but the generator "{self.generator}" makes '
                "all pairs from the same weights; set candidates to 1, or the generator to direct."
            )

    def with_fair_selection(self) -> "TrainingConfig":
        """Returns the settings with a selection that leaves the stages their share of the steps."""
        share, whole = SELECTION_SHARE
        longest = self.steps * share // whole // max(1, self.candidates - 1)
        return replace(self, elimination_every=min(self.elimination_every, max(1, longest)))

    def counted(self, masks: Tensor) -> Tensor | None:
        """Returns where L_KV looks: masks (B, 1, h, w), or None for everywhere."""
        return masks if self.masked_loss else None

    def measured(self, prediction: Prediction) -> Prediction:
        """Returns a prediction in the units in which L_KV is taken."""
        return prediction.as_velocity() if self.velocity_loss else prediction

    def fingerprint(self) -> dict[str, object]:
        """The settings that shape each step, by the names that files have for them: two trainings
        with equal ones differ in their length alone. Inactive features are omitted, so adding one
        keeps old fingerprints.
        """
        settings = asdict(self)
        idle = ["steps", *(name for name in OPTIONAL if not settings[name])]
        idle += RECORDED_AS if self.candidates == 1 else ()
        return {RECORDED_AS.get(n, n): value for n, value in settings.items() if n not in idle}


PRESETS = {
    "default": TrainingConfig(
        find_subject=True, masked_loss=True, velocity_loss=True, unseen=0.5, candidates=5
    ),
    "paper": TrainingConfig(
        attention_loss="all tokens",
        attention_loss_weight=0.003,
        generator="literal",
        min_scale=0.1,
        ema=0.0,
    ),
}
