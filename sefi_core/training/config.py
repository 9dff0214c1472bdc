"""The settings of a training, and the two presets.

`paper` is the paper's recipe to the letter; `default` is the paper's method (stages, K and V apart,
attention loss), done as it measured best (docs/quality.md): the subject alone is learned; the pairs
themselves are learned, from the class word on, and of five that race one is where every stage
begins; the views keep the picture's size, because a black border is learned as a part of the
subject; and the mean of the last pairs is kept, because single steps of one sample are noisy.
"""

__all__ = ["ATTENTION_SCOPES", "PRESETS", "TrainingConfig"]

from dataclasses import asdict, dataclass, replace

from ..errors import SettingsError, one_line
from .generator import KINDS

# Settings without effect where one pair starts.
RACE = ("starts", "race_every", "race_from", "settle")
RACE_SHARE = 12, 25  # of a training's steps that its race may take at most
# What is done to the picture first.
PREPARATION = ("framing", "find_subject")
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
        framing: Whether the pictures are first enlarged and moved to where the class word expects
            their subject (framing.py).
        find_subject: Whether the mask is where the model sees the class word (subject.py).
        masked_loss: Whether L_KV looks only at the pasted picture, within the subject's mask.
        stratified: Whether samples take the stages in turn rather than at random.
        decay: Whether the learning rate falls to 0 along a cosine.
        ema: Decay, once it has warmed up, of the mean of the pairs that is kept as the result; 0
            keeps the last.
        starts: How many pairs, at most S, race at first, until every stage goes on from the winner
            (race.py); with 1 every stage begins at the class word.
        race_every: Steps until the last one of a race falls out.
        race_from: The timestep from which on a race is run.
        settle: The learning rate after a race, as a share of the one before.
        probe_every: Steps between two looks at the loss of a fixed probe; 0 never looks.
        probe_patience: Looks that must bring nothing before the training stops.
        probe_gain: What counts as something: this share of the probe's loss.
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
    framing: bool = False
    find_subject: bool = False
    masked_loss: bool = False
    stratified: bool = False
    decay: bool = False
    ema: float = 0.995
    starts: int = 1
    race_every: int = 120
    race_from: int = 600
    settle: float = 0.25
    probe_every: int = 0
    probe_patience: int = 4
    probe_gain: float = 0.01

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
            ("ema", 0.0, 0.99999),
            ("starts", 1, 50),
            ("race_every", 1, 100_000),
            ("race_from", 0, 999),
            ("settle", 0.0, 1.0),
            ("probe_every", 0, 100_000),
            ("probe_patience", 1, 1000),
            ("probe_gain", 0.0, 1.0),
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
        if self.starts > 1 and self.generator != "direct":
            raise SettingsError(
                f'starts: it is {self.starts}, but the generator "{self.generator}" makes all '
                "pairs from the same weights; set starts to 1, or the generator to direct."
            )

    def with_fair_race(self) -> "TrainingConfig":
        """Returns the settings with a race that leaves the stages their share of the steps."""
        share, whole = RACE_SHARE
        longest = self.steps * share // whole // max(1, self.starts - 1)
        return replace(self, race_every=min(self.race_every, max(1, longest)))

    def acting(self) -> dict[str, object]:
        """The settings but for those without effect beside the others; what is done to the picture
        counts only if it is done, so that a training without is what it was before.
        """
        settings = asdict(self)
        idle = [name for name in PREPARATION if not settings[name]]
        idle += RACE if self.starts == 1 else ()
        return {name: value for name, value in settings.items() if name not in idle}

    def fingerprint(self) -> dict[str, object]:
        """The settings that shape each step: two trainings with equal ones differ in their length
        alone.
        """
        settings = self.acting()
        if not self.decay:
            del settings["steps"]
        if not self.probe_every:
            for name in ("probe_every", "probe_patience", "probe_gain"):
                del settings[name]
        return settings


PRESETS = {
    "default": TrainingConfig(find_subject=True, masked_loss=True, starts=5),
    "paper": TrainingConfig(
        attention_loss="all tokens",
        attention_loss_weight=0.003,
        generator="literal",
        min_scale=0.1,
        ema=0.0,
    ),
}
