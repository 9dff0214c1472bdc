"""Who lives in the world: subjects as vectors of drawn traits, their names, and the splits.

A subject is a point of a unit cube, one axis per trait: [0, 1]^9 for a person, [0, 1]^8 for a
dog. Its code is the same point with mean 0 and variance 1 on every axis, and the identity
between two subjects is the cosine of their codes. Named subjects are the points of a scrambled
Sobol sequence, which span the cube evenly; every other subject is drawn uniformly.
"""

__all__ = [
    "KINDS",
    "NAMES",
    "TRAITS",
    "Kind",
    "Subject",
    "code",
    "named",
    "random_subject",
    "split",
]

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import qmc

Kind = Literal["person", "dog"]
Split = Literal["train", "development", "test"]

KINDS: tuple[Kind, ...] = ("person", "dog")
TRAITS: dict[Kind, tuple[str, ...]] = {
    "person": (
        "skin",
        "hair_hue",
        "hair_light",
        "hair_length",
        "fringe",
        "eye_hue",
        "eye_size",
        "face_width",
        "beard",
    ),
    "dog": (
        "fur_hue",
        "fur_light",
        "ear_length",
        "ear_droop",
        "snout",
        "patch",
        "eye_size",
        "collar_hue",
    ),
}
# By generations: whoever came into the world later changed nobody's traits.
GENERATIONS: dict[Kind, tuple[dict[Split, tuple[str, ...]], ...]] = {
    "person": (
        {
            "train": (
                *("alice", "adam", "emma", "oscar", "laura", "simon", "julia", "peter"),
                *("sarah", "david", "maria", "james", "anna", "thomas", "kate", "henry"),
            ),
            "development": (
                *("helen", "martin", "nina", "robert", "clara", "frank", "diana", "victor"),
            ),
            "test": (
                *("lucy", "george", "rosa", "edward", "sophie", "daniel", "grace", "louis"),
                *("alex", "paul", "ella", "max", "jane", "leo", "ruby", "sam"),
            ),
        },
    ),
    "dog": (
        {
            "train": ("buddy", "rocky", "bella", "charlie"),
            "development": ("lucky", "daisy"),
            "test": ("cooper", "molly", "toby", "rex"),
        },
        {
            "development": ("scout", "duke", "ginger", "coco", "luna", "shadow"),
            "test": (
                *("ranger", "hunter", "bandit", "bruno", "rusty", "rosie", "teddy", "biscuit"),
                *("pepper", "zeus", "ziggy", "spike", "honey", "tucker", "milo", "simba"),
            ),
        },
    ),
}
NAMES: dict[Kind, dict[Split, tuple[str, ...]]] = {
    kind: {
        which: tuple(name for groups in generations for name in groups.get(which, ()))
        for which in generations[0]
    }
    for kind, generations in GENERATIONS.items()
}


@dataclass(frozen=True)
class Subject:
    """One inhabitant: its kind, its traits in [0, 1], and its name if the world gave it one."""

    kind: Kind
    traits: tuple[float, ...]
    name: str | None = None

    def trait(self, name: str) -> float:
        """Returns one trait in [0, 1]."""
        return self.traits[TRAITS[self.kind].index(name)]


def random_subject(kind: Kind, rng: np.random.Generator) -> Subject:
    """Draws a nameless subject uniformly."""
    return Subject(kind, tuple(rng.random(len(TRAITS[kind])).tolist()))


def named(kind: Kind) -> dict[str, Subject]:
    """Returns every named subject of a kind, by name; the same ones in every process."""
    names = [n for groups in GENERATIONS[kind] for group in groups.values() for n in group]
    sobol = qmc.Sobol(len(TRAITS[kind]), seed=7 + KINDS.index(kind))
    points = sobol.random(64)[: len(names)]
    return {n: Subject(kind, tuple(p.tolist()), n) for n, p in zip(names, points, strict=True)}


def split(kind: Kind, which: Split) -> list[Subject]:
    """Returns the named subjects of one split, in the order of `NAMES`."""
    everyone = named(kind)
    return [everyone[name] for name in NAMES[kind][which]]


def code(subject: Subject) -> np.ndarray:
    """Returns the centred, whitened traits, shape (T,), float32 in [-1.74, 1.74]."""
    return ((np.asarray(subject.traits) - 0.5) * np.sqrt(12.0)).astype(np.float32)
