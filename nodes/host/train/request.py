"""What an artist asks of a training, as one value."""

__all__ = ["Request"]

import math
from dataclasses import dataclass, field, replace

from torch import Tensor

from ....sefi_core.training.config import PRESETS, TrainingConfig
from ....sefi_core.training.wording import Wording
from ....sefi_core.words import cleaned
from .. import folders
from ..prefixes import require_plain
from .squares import square_pictures

DEFAULT = PRESETS["default"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Request:
    """The inputs of Train SeFi ID but for the models.

    Attributes:
        node_id, workflow: Where progress is shown; the latter is the host's `extra_pnginfo`.
        wording: What `training_prompts` and `caption` say.

    Raises:
        SettingsError: `name` is no plain name. Whether `class_word` is a noun the prompt tells.
        PromptError: A line of `training_prompts` or `caption` cannot be trained with.
    """

    image: Tensor
    class_word: str
    train_seed: int
    preset: str
    steps: int
    learning_rate: float
    attention_loss_weight: float
    attention_loss: str = DEFAULT.attention_loss
    stages: int = DEFAULT.stages
    batch_size: int = DEFAULT.batch_size
    mask: Tensor | None = None
    resolution: int = 0
    dtype: str = "auto"
    preview_every: int = 100
    checkpoint_every: int = 250
    resume: str = folders.NO_CHECKPOINT
    name: str = "identity"
    gradient_checkpointing: bool = False
    caption: str = ""
    training_prompts: str = ""
    tokens: int = DEFAULT.tokens
    node_id: str | None = None
    workflow: dict | None = None
    wording: Wording = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_word", cleaned(self.class_word))
        object.__setattr__(self, "name", require_plain("name", self.name))
        wording = Wording.read(self.class_word, self.training_prompts, self.caption)
        object.__setattr__(self, "wording", wording)

    @property
    def fresh(self) -> bool:
        """Whether it begins a training rather than going on with one."""
        return self.resume == folders.NO_CHECKPOINT

    @property
    def settings(self) -> dict[str, object]:
        """The inputs that a preset leaves to the artist, by their names in TrainingConfig."""
        return {
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "attention_loss": self.attention_loss,
            "attention_loss_weight": self.attention_loss_weight,
            "stages": self.stages,
            "tokens": self.tokens,
            "batch_size": self.batch_size,
            "seed": self.train_seed,
        }

    def pictures(self, own_side: int) -> tuple[Tensor, Tensor]:
        """Returns crops (B, 3, R, R) and masks (B, 1, R, R), R the model's own side if none is
        asked for; raises PromptError if the captions are not those of as many pictures.
        """
        self.wording.of_pictures(len(self.image))
        return square_pictures(self.image, self.mask, self.resolution or own_side)

    @property
    def captions(self) -> list[int]:
        """Which of the wording's captions is that of each picture."""
        return self.wording.of_pictures(len(self.image))

    def for_pictures(self, config: TrainingConfig, masks: Tensor) -> TrainingConfig:
        """Returns the settings as the pictures and what an artist has masked of them, masks
        (B, 1, R, R), change them: every picture has as many views.
        """
        masked = bool(masks.min() < 0.99)
        return replace(
            config,
            views=len(masks) * math.ceil(config.views / len(masks)),
            masked_loss=config.masked_loss or masked,
            find_subject=config.find_subject and self.mask is None and not masked,
        )
