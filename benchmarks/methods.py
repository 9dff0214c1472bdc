"""The ways to teach the miniature somebody from one picture, and the rows of the table.

Every row is a value. All rows that learn tokens go through the pack's own training and sampling
and differ in what the row says alone:

    Textual Inversion   one token for K and V, one stage, a free table, no attention loss
    ProSpect-style      a token for each stage, the same for K and V, no attention loss
    Custom-Diffusion    Textual Inversion, and W_k, W_v of every cross-attention learn with it
    LoRA                the host's own Train LoRA node on the class word

All rows but `race` take as many steps; those of others learn from the picture as it is and, but for
the preset `paper`, from the same views.
"""
# ruff: noqa: E402 - the pack and the host can be imported after `ensure_pack` only

__all__ = [
    "ABLATIONS",
    "MAIN",
    "METHODS",
    "PHOTOS",
    "QUICK",
    "Learned",
    "Method",
    "Prompted",
    "World",
    "learn",
    "learn_together",
]

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .pack import ensure_pack
from .study import PARTS
from .world.captions import PLACES
from .world.drawing import Framing, Picture, render, silhouette
from .world.load import load
from .world.scenery import SCENES
from .world.subjects import Subject

ensure_pack()
from comfy.model_patcher import ModelPatcher
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.text.encoder import HostTextEncoder, word_tokens
from sefi_pack.nodes.host.train.borrowing import trainable
from sefi_pack.nodes.host.train.loaded import Loaded
from sefi_pack.nodes.host.train.pictures import encode_pool
from sefi_pack.nodes.host.train.preparing import subject_masks
from sefi_pack.nodes.host.train.squares import square_pictures
from sefi_pack.sefi_core.errors import TrainingError
from sefi_pack.sefi_core.identity.identity import Identity
from sefi_pack.sefi_core.prompts import training_prompt
from sefi_pack.sefi_core.samples import LatentPool
from sefi_pack.sefi_core.training import loop
from sefi_pack.sefi_core.training.config import PRESETS, TrainingConfig
from sefi_pack.sefi_core.training.learner import Learner
from sefi_pack.sefi_core.training.wording import Wording

PLACEHOLDER, RESOLUTION = "V*", 64
PHOTOS = ("whole", "bordered")
BORDER = 3 / 16  # of the side, on each side
LORA_RANK = 8

Prompted = Callable[[str], tuple[ModelPatcher, list]]
"""Gives MODEL and CONDITIONING of a prompt whose "{}" is where the subject stands."""
Learned = dict["Method", Prompted]


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Arguments:
        kind: "name" and "class" learn nothing; "tokens", "weights" and "lora" do.
        tied: Whether K and V share their tokens.
        weight_rate: Learning rate of W_k and W_v, for "weights".
        applied: Inputs of Apply that differ from its defaults.
        masked: Whether a mask of the subject is given with the picture, as an artist can.
        study: Parts of another recipe that the pack does not have, of `study.PARTS`.
        prompts: Training prompts; that which the pack chooses for the class word if empty.
        class_word: The class word, "{}" being the subject's kind.
        in_place: Whether several tokens of a class word are a start each for one of the subject's,
            in place of their mean for all.
        said: Whether the picture's scene is said as an artist can, by a caption.
        framing: Whether the picture is a "face", close up, or a "bust".
        trimmed: Whether the picture's border is cut off, as the nodes do.
    """

    name: str
    label: str
    kind: str = "tokens"
    config: TrainingConfig = field(default_factory=TrainingConfig)
    tied: bool = False
    weight_rate: float = 0.0
    applied: tuple[tuple[str, float], ...] = ()
    masked: bool = False
    study: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    class_word: str = "{}"
    in_place: bool = False
    said: bool = False
    framing: Framing = "face"
    trimmed: bool = False

    def texts(self, subject: Subject) -> tuple[str, ...]:
        """Returns the training prompts of a subject, with a caption if the row has one."""
        noun = self.class_word.format(subject.kind)
        caption = PLACES[photo(subject)[0].scene][0] if self.said else ""
        return Wording.read(noun, "\n".join(self.prompts), caption).prompts

    def recipe(self) -> dict[str, object]:
        """What shapes the row's numbers, besides its seed and the world, in words of the records.

        The words stay when a setting is renamed or goes elsewhere. What is off is left out, so that
        a feature more or less leaves the rows without it as they are.
        """
        if not self.learns:
            return {"kind": self.kind}
        by = self.config
        attention = by.attention_loss != "off" and [by.attention_loss, by.attention_loss_weight]
        chosen_from = [
            by.candidates, by.elimination_every, by.selection_from, by.lr_after_selection
        ]  # fmt: skip
        recipe = {
            "kind": self.kind,
            "steps": by.steps,
            "batch": by.batch_size,
            "learning rate": by.learning_rate,
            "cosine decay": "decay" in self.study,
            "rate of the weights": self.weight_rate,
            "stages": by.stages,
            "tokens": by.tokens,
            "K = V": self.tied,
            "generator": "residual" if "residual" in self.study else by.generator,
            "candidates": by.candidates > 1 and chosen_from,
            "attention loss": attention,
            "masked loss": by.masked_loss,
            "velocity loss": by.velocity_loss,
            "unseen": by.unseen,
            "stratified": "stratified" in self.study,
            "ema": by.ema,
            "views": [by.views, by.min_scale, by.max_scale],
            "mask given": self.masked,
            "subject found": by.find_subject,
            "applied": dict(self.applied),
            "training prompts": list(self.prompts),
            "class word": self.class_word.removeprefix("{}"),
            "in place": self.in_place,
            "scene said": self.said,
            "framing": self.framing.removeprefix("face"),
            "border trimmed": self.trimmed,
        }
        return {word: value for word, value in recipe.items() if value}

    @property
    def learns(self) -> bool:
        """Whether anything is learned from the subject's picture."""
        return self.kind not in ("name", "class")

    def seeded(self, seed: int) -> "Method":
        """Returns the row learned with another seed; the same if it learns nothing."""
        if not self.learns:
            return self
        return replace(self, config=replace(self.config, seed=seed))

    def training(self) -> str:
        """A key that rows share which one training serves, if need be at different lengths."""
        whole = "" if self.kind == "tokens" and "decay" not in self.study else self.config.steps
        shared = f"{self.kind} {self.tied} {self.weight_rate} {self.masked} {self.study} {whole}"
        words = f"{self.prompts} {self.class_word} {self.in_place} {self.said} {self.framing}"
        words += f" {self.trimmed}"
        return f"{shared} {words} {self.config.fingerprint()}"


class World:
    """The miniature, and the one picture of each subject.

    Arguments:
        photos: One of PHOTOS: "whole", or "bordered" with black on all sides.
    """

    def __init__(self, miniature: Path, scale: int | None = None, photos: str = "whole") -> None:
        self.model, self.clip, self.vae = load(miniature, scale)
        self.photos = photos

    def reference(self, subject: Subject, framing: Framing = "face") -> Tensor:
        """Returns the picture to learn from, an IMAGE (1, 64, 64, 3) in [0, 1].

        It is a photo as people have them: a face, and a scene behind it that the training prompt
        does not tell.
        """
        picture = render(*photo(subject, framing))
        return self.framed(torch.from_numpy(picture.astype(np.float32) / 255.0)[None])

    def mask(self, subject: Subject, framing: Framing = "face") -> Tensor:
        """Returns where the subject is in its picture, a MASK (1, 64, 64) in [0, 1]."""
        drawn = torch.from_numpy(silhouette(*photo(subject, framing)))[None]
        return self.framed(drawn[..., None])[..., 0]

    def framed(self, pictures: Tensor) -> Tensor:
        """Returns pictures (B, H, W, C) as the world's photos are."""
        return bordered(pictures) if self.photos == "bordered" else pictures

    def picture(self, subject: Subject, method: Method) -> tuple[Tensor, Tensor]:
        """Returns a subject's picture (1, 3, 64, 64) and its mask (1, 1, 64, 64), as the node has
        them.
        """
        mask = self.mask(subject, method.framing) if method.masked else None
        reference = self.reference(subject, method.framing)
        return square_pictures(reference, mask, RESOLUTION, method.trimmed)

    def pool(
        self, model: ModelPatcher, picture: Tensor, mask: Tensor, config: TrainingConfig
    ) -> LatentPool:
        """Returns the encoded views of a picture."""
        return encode_pool(self.vae, model, picture, mask, config, model.load_device)

    def plain(self, noun: str, model: ModelPatcher | None = None) -> Prompted:
        """Prompts with an ordinary word for the subject."""
        tokens, encode = self.clip.tokenize, self.clip.encode_from_tokens_scheduled
        return lambda text: (model or self.model, encode(tokens(text.format(noun))))

    def with_identity(self, identity: Identity, **applied: float) -> Prompted:
        """Prompts with a learned identity for the subject."""
        return lambda text: apply_identity(
            self.model, self.clip, identity, text.format(PLACEHOLDER), **applied
        )


def photo(subject: Subject, framing: Framing = "face") -> tuple[Picture, np.random.Generator]:
    """Returns what is in a subject's picture, and the generator to draw it with."""
    rng = np.random.default_rng([*map(ord, subject.name)])
    return Picture(framing, (subject,), scene=str(rng.choice(list(SCENES)))), rng


def bordered(pictures: Tensor) -> Tensor:
    """Makes pictures (B, H, W, C) smaller, with black of BORDER of the side all around."""
    height, width = pictures.shape[1:3]
    high, wide = int(height * BORDER), int(width * BORDER)
    inner = F.interpolate(
        pictures.movedim(-1, 1), (height - 2 * high, width - 2 * wide), mode="area"
    )
    return F.pad(inner, (wide, wide, high, high)).movedim(1, -1)


class Tied(nn.Module):
    """A generator whose V tokens are its K tokens."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self) -> Tensor:
        return self.generator()[:, :1].expand(-1, 2, -1, -1)


@contextmanager
def learn(world: World, methods: list[Method], subject: Subject) -> Iterator[Learned]:
    """Serves rows that share one training; the miniature is as it was when the block ends."""
    first = methods[0]
    if not first.learns:
        yield {first: world.plain(subject.name if first.kind == "name" else subject.kind)}
    elif first.kind == "lora":
        yield {first: world.plain(subject.kind, train_lora(world, first, subject))}
    else:
        with restored(value_and_key_weights(world.model)):
            found = learn_tokens(world, methods, subject)
            yield {m: world.with_identity(i, **dict(m.applied)) for m, i in found.items()}


def learn_tokens(world: World, methods: list[Method], subject: Subject) -> dict[Method, Identity]:
    """Trains once, for as long as the longest row asks, and keeps what each row is to have."""
    longest = max(methods, key=lambda method: method.config.steps)
    found: dict[Method, Identity] = {}
    with trainable(world.model, world.clip.patcher, torch.float32) as (model, load):
        host = Loaded(model, world.clip, world.vae, torch.float32, load)
        one = learning(world, longest, host, encoder_of(world, longest, subject), subject)
        backbone = host.backbone(one.encoder, one.pool.latents, longest.config.batch_size)
        weights = value_and_key_weights(model)
        if longest.kind == "weights":  # the UNet is in place now; that froze it
            group = {"params": [*weights.requires_grad_(True)], "lr": longest.weight_rate}
            one.learner.optimizer.add_param_group(group)
        for report in loop.train(backbone, one.encoder, one.pool, one.learner):
            for method in methods:
                if method.config.steps == report.step:
                    found[method] = identity_of(one, method, subject)
        weights.requires_grad_(False)
    return found


def learn_together(world: World, method: Method, subjects: Sequence[Subject]) -> list[Identity]:
    """Trains a row that learns tokens for several subjects of a kind in one batch; each learns what
    it would alone, up to rounding.
    """
    with trainable(world.model, world.clip.patcher, torch.float32) as (model, load):
        host = Loaded(model, world.clip, world.vae, torch.float32, load)
        texts = [method.texts(subject) for subject in subjects]
        encoders = {
            t: encoder_of(world, method, who) for t, who in zip(texts, subjects, strict=True)
        }
        people = [
            learning(world, method, host, encoders[t], who)
            for t, who in zip(texts, subjects, strict=True)
        ]
        backbone, people = host.together(people, method.config.batch_size * len(people))
        for reports in loop.train_together(backbone, people):
            for report in reports.values():
                if isinstance(report, TrainingError):
                    raise report
        return [identity_of(one, method, who) for one, who in zip(people, subjects, strict=True)]


def encoder_of(world: World, method: Method, subject: Subject) -> HostTextEncoder:
    """Returns the text encoder for a row's training prompts of a subject."""
    noun, tokens = method.class_word.format(subject.kind), method.config.tokens
    encoder = HostTextEncoder(world.clip, noun, texts=method.texts(subject), tokens=tokens)
    if method.in_place:
        encoder.class_tokens = word_tokens(world.clip, noun)
    return encoder


def learning(
    world: World, method: Method, host: Loaded, encoder: HostTextEncoder, subject: Subject
) -> loop.Subject:
    """Returns what a subject is learned from and by, as a row has it."""
    learner = make_learner(method, encoder)
    picture, mask = world.picture(subject, method)
    if method.config.find_subject:
        plain = HostTextEncoder(world.clip, method.class_word.format(subject.kind))
        mask = subject_masks(host, plain, picture, mask, method.config)
    return loop.Subject(encoder, world.pool(host.model, picture, mask, method.config), learner)


def identity_of(one: loop.Subject, method: Method, subject: Subject) -> Identity:
    """Returns what has been learned so far; a free table's pairs are its parameter, which goes on
    learning.
    """
    pairs = {name: table.clone() for name, table in one.learner.pairs().items()}
    return Identity(pairs, class_word=method.class_word.format(subject.kind))


def make_learner(method: Method, encoder: HostTextEncoder) -> Learner:
    """Makes the pack's learner, with tied tokens where the row says so."""
    parts = {name: value for part in method.study for name, value in PARTS[part].items()}
    learner = Learner(encoder.class_tokens, method.config, **parts)
    if method.tied:
        for name, generator in learner.generators.items():
            learner.generators[name] = Tied(generator)  # the optimiser has its parameters already
    return learner


def value_and_key_weights(model: ModelPatcher) -> nn.ParameterList:
    """Returns W_k and W_v of every cross-attention."""
    named = model.model.diffusion_model.named_parameters()
    return nn.ParameterList(p for n, p in named if "attn2.to_k" in n or "attn2.to_v" in n)


@contextmanager
def restored(weights: nn.ParameterList) -> Iterator[None]:
    """Puts weights back when the block ends."""
    former = [weight.detach().clone() for weight in weights]
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, former, strict=True):
                weight.copy_(value)


def train_lora(world: World, method: Method, subject: Subject) -> ModelPatcher:
    """Returns the model with a LoRA that the host's own node trained on the class word."""
    import comfy.utils
    from comfy_extras.nodes_train import TrainLoraNode

    comfy.utils.set_progress_bar_enabled(False)
    config = method.config
    text = training_prompt(subject.kind)
    torch.manual_seed(config.seed)  # the node draws weights and timesteps from the global one
    latents = world.pool(world.model, *world.picture(subject, method), config).latents
    conditioning = world.clip.encode_from_tokens_scheduled(world.clip.tokenize(text))
    with torch.enable_grad():
        model, *_ = TrainLoraNode.execute(
            model=[world.model],
            latents=[{"samples": one[None]} for one in latents],
            positive=[conditioning],
            batch_size=[config.batch_size],
            steps=[config.steps],
            grad_accumulation_steps=[1],
            learning_rate=[config.learning_rate],
            rank=[LORA_RANK],
            optimizer=["AdamW"],
            loss_function=["MSE"],
            seed=[config.seed],
            training_dtype=["fp32"],
            lora_dtype=["fp32"],
            algorithm=["LoRA"],
            gradient_checkpointing=[False],
            existing_lora=["[None]"],
        ).args
    return model


STEPS = 1000  # of every row but `race`
SHORTER, LONGER = (50, 100, 200, 400), (2000, 3000)
# The numbers of the miniature's tokens are about 0.2 in size, those of CLIP-L's 0.014: a rate that
# moves them as 5e-3 moves CLIP's is 14 times as large. A little more than half of that is best.
TOKEN_RATE = 4e-2
DEFAULT = replace(PRESETS["default"], learning_rate=TOKEN_RATE)
EPSILON = {"velocity_loss": False, "unseen": 0.0}
RACE = replace(DEFAULT, steps=480, attention_loss="off", **EPSILON)
PAPER = PRESETS["paper"]
ALONE = TrainingConfig(steps=STEPS, learning_rate=TOKEN_RATE)  # every other row is made from it
RACED = replace(ALONE, candidates=DEFAULT.candidates)
PLAIN = replace(ALONE, attention_loss="off")
UNFOUND = {"find_subject": False, "masked_loss": False}
FACE = ("a photo of the face of V*", "a photo of V*", "V*")
PAPERS_LOSS = {"attention_loss": "all tokens", "attention_loss_weight": 0.003}


def variant(
    name: str, label: str, tied: bool = False, study: tuple[str, ...] = (), **changes: object
) -> Method:
    """Returns the row "alone" with other settings."""
    return Method(name, label, config=replace(ALONE, **changes), tied=tied, study=study)


def edited(name: str, label: str, **applied: float) -> Method:
    """Returns the row "alone" with other inputs of Apply."""
    return Method(name, label, config=ALONE, applied=tuple(applied.items()))


def changed(name: str, label: str, tied: bool = False, **changes: object) -> Method:
    """Returns the row "race" with other settings."""
    return Method(name, label, config=replace(RACE, **changes), tied=tied)


def with_mask(row: Method) -> Method:
    """Returns a row whose picture comes with a mask, which the node takes as a loss within it."""
    config = replace(row.config, masked_loss=True, find_subject=False)
    return replace(row, name=f"{row.name}-mask", config=config, masked=True)


def with_found_mask(row: Method) -> Method:
    """Returns a row whose subject is found first, and whose loss looks at it alone."""
    config = replace(row.config, masked_loss=True, find_subject=True)
    return replace(row, name=f"{row.name}-found", config=config)


def with_noise(row: Method) -> Method:
    """Returns a row that learns from noisy samples as `default` does."""
    config = replace(row.config, velocity_loss=DEFAULT.velocity_loss, unseen=DEFAULT.unseen)
    return replace(row, name=f"{row.name}-noise", config=config)


def trimmed(row: Method) -> Method:
    """Returns a row whose picture has lost its border before it is learned."""
    return replace(row, name=f"{row.name}-trimmed", label=f"trimmed: {row.label}", trimmed=True)


def part(name: str, label: str, tied: bool = False, **changes: object) -> Method:
    """Returns `default` with one part changed, and a selection of as long as its steps allow."""
    config = replace(DEFAULT, **changes).with_fair_selection()
    return Method(f"default-{name}", label, config=config, tied=tied)


INVERSION = Method("inversion", "Textual Inversion", config=replace(PLAIN, stages=1), tied=True)
MAIN: tuple[Method, ...] = (
    Method("name", "native name (upper bound)", "name"),
    Method("class", "class word (lower bound)", "class"),
    INVERSION,
    Method("prospect", "ProSpect-style", config=PLAIN, tied=True),
    Method("custom", "Custom-Diffusion-style", "weights", replace(PLAIN, stages=1), True, 1e-4),
    Method("lora", "LoRA, rank 8", "lora", replace(ALONE, learning_rate=3e-3)),
    Method("paper", "SeFi `paper`", config=PAPER),
    Method("alone", "SeFi, no race", config=ALONE),
    Method("raced", "SeFi, race, then by stage", config=RACED),
    Method("race", "the race alone", config=RACE),
    Method("default", "SeFi `default`", config=DEFAULT),
)
ABLATIONS: dict[str, tuple[Method, ...]] = {
    "attention loss": (
        variant("attention-off", "off", attention_loss="off"),
        variant("attention-1", "#1 placeholder only", attention_loss="placeholder only"),
        variant("attention-3", "#3 all tokens", attention_loss="all tokens"),
        variant(
            "attention-paper",
            "#3 all tokens, lambda 0.003: the paper's",
            **PAPERS_LOSS,
        ),
    ),
    "K and V": (
        variant("tied", "K = V", tied=True),
        variant("tied-off", "K = V, attention loss off", tied=True, attention_loss="off"),
        edited("k-alone", "K alone, V the class word's", value_strength=0.0),
        edited("v-alone", "V alone, K the class word's", key_strength=0.0),
    ),
    "stages that act": (
        edited("first-stage", "the noisiest alone", end_percent=0.2),
        edited("early-stages", "the two noisiest", end_percent=0.4),
        edited("late-stages", "the three others", start_percent=0.4),
        edited("last-stage", "the least noisy alone", start_percent=0.8),
    ),
    "stages": tuple(variant(f"stages-{n}", f"stages: {n}", stages=n) for n in (1, 3, 10)),
    "lambda": tuple(
        variant(f"lambda-{w:g}", f"lambda {w:g}", attention_loss_weight=w)
        for w in (1e-4, 3e-4, 3e-3, 1e-2, 5e-2)
    ),
    "generator": (
        variant("residual", "residual block, 3e-4", study=("residual",), learning_rate=3e-4),
        variant("literal", "literal block, 3e-4", generator="literal", learning_rate=3e-4),
        variant("literal-5e-3", "literal block, 5e-3", generator="literal", learning_rate=5e-3),
    ),
    "learning rate": tuple(
        variant(f"rate-{r:g}", f"{r:g}", learning_rate=r) for r in (5e-3, 1e-2, 2e-2, 8e-2)
    ),
    "learning rate of Textual Inversion": tuple(
        Method(
            f"inversion-{r:g}", f"{r:g}", "tokens", replace(PLAIN, stages=1, learning_rate=r), True
        )
        for r in (5e-3, 1e-2, 2e-2)
    ),
    "smallest view": tuple(
        variant(f"scale-{x:g}", f"{x:g}", min_scale=x) for x in (0.1, 0.3, 0.5, 0.8)
    ),
    "steps": tuple(variant(f"steps-{n}", f"{n} steps", steps=n) for n in SHORTER + LONGER),
    "steps of Textual Inversion": tuple(
        Method(f"inversion-{n}", f"{n} steps", "tokens", replace(PLAIN, stages=1, steps=n), True)
        for n in SHORTER
    ),
    "steps of default": tuple(
        part(f"steps-{n}", f"{n} steps", steps=n) for n in (25, *SHORTER, LONGER[0])
    ),
    "loss and batch": (
        variant("masked", "views from 0.3, masked loss", masked_loss=True, min_scale=0.3),
        variant("stratified", "stratified", study=("stratified",)),
        variant("batch-5", "batch 5", batch_size=5),
        variant("batch-5-fifth", "batch 5, a fifth of the steps", batch_size=5, steps=STEPS // 5),
    ),
    "with a mask of the subject": tuple(
        with_mask(row) for row in MAIN if row.name in ("prospect", "raced", "race", "default")
    ),
    "with the subject found": tuple(
        with_found_mask(row) for row in MAIN if row.name in ("inversion", "prospect", "custom")
    ),
    "with the noise of default": tuple(
        with_noise(row) for row in MAIN if row.name in ("inversion", "prospect", "custom")
    ),
    "parts of default": (
        *(part(f"stages-{n}", f"stages: {n}", stages=n) for n in (1, 3, 10)),
        part("tied", "K = V", tied=True),
        part("attention-off", "attention loss off", attention_loss="off"),
        part(
            "attention-paper",
            "attention loss #3 all tokens, lambda 0.003: the paper's",
            **PAPERS_LOSS,
        ),
        part("one-start", "no selection", candidates=1),
        part("unfound", "subject not found", **UNFOUND),
        part(
            "unfound-off", "subject not found, attention loss off", attention_loss="off", **UNFOUND
        ),
    ),
    "attention loss of default": (
        part("attention-1", "#1 placeholder only", attention_loss="placeholder only"),
        part("attention-3", "#3 all tokens", attention_loss="all tokens"),
        *(
            part(f"lambda-{w:g}", f"prompt tokens, lambda {w:g}", attention_loss_weight=w)
            for w in (1e-4, 3e-3, 1e-2, 5e-2)
        ),
    ),
    "the paper's recipe": (
        Method(
            "paper-off", "`paper`, no attention loss", config=replace(PAPER, attention_loss="off")
        ),
    ),
    "the border trimmed": tuple(
        trimmed(row)
        for row in (
            INVERSION,
            *(row for row in MAIN if row.name in ("prospect", "custom", "lora", "default")),
            part("attention-off", "attention loss off", attention_loss="off"),
        )
    ),
    "training prompts": (
        *(
            replace(part(f"face-{n}", label), prompts=lines)
            for n, label, lines in (
                ("alone", "the face", FACE[:1]),
                ("mixed", "the face, the subject, a close-up", FACE),
            )
        ),
        *(part(f"tokens-{n}", f"{n} tokens", tokens=n) for n in (2, 4)),
        replace(
            INVERSION, name="inversion-face", label="Textual Inversion, the face", prompts=FACE[:1]
        ),
    ),
    "training prompts, learned from a bust": (
        *(
            replace(part(f"bust{name}", label), prompts=lines, framing="bust")
            for name, label, lines in (
                ("", "the subject", ()),
                ("-face", "the face", FACE[:1]),
                ("-mixed", "the face, the subject, a close-up", FACE),
            )
        ),
        replace(
            INVERSION, name="inversion-bust", label="Textual Inversion, a bust", framing="bust"
        ),
    ),
    "caption": (replace(part("said", "the scene is said"), said=True),),
    "class word of two tokens": tuple(
        replace(part(f"old-{name}", label, tokens=tokens), class_word="old {}", in_place=in_place)
        for name, label, tokens, in_place in (
            ("mean", "one token, from their mean", 1, False),
            ("means", "two tokens, each from their mean", 2, False),
            ("in-place", "two tokens, each from its own", 2, True),
        )
    ),
    "what the noisiest stage learns from": (
        Method("noise-loss", "the loss of noise, all seen", config=replace(DEFAULT, **EPSILON)),
        Method("all-seen", "all seen", config=replace(DEFAULT, unseen=0.0)),
    ),
    "parts of the race alone": (
        changed("unfound", "subject not found", **UNFOUND),
        changed("attended", "attention loss, prompt tokens", attention_loss="prompt tokens"),
        changed("by-stage", f"{STEPS} steps: then by stage", steps=STEPS),
        changed("race-tied", "K = V", tied=True),
    ),
    "end": (
        variant("decay", "learning rate decays, last pairs kept", study=("decay",), ema=0.0),
        variant("last", "last pairs kept", ema=0.0),
        variant("ema", "mean of the pairs, 0.98", ema=0.98),
    ),
    "training seed": (variant("seed-1", "another seed", seed=1),),
}
METHODS = {m.name: m for m in (*MAIN, *(m for group in ABLATIONS.values() for m in group))}
QUICK = ("name", "class", "default")
