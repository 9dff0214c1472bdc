"""Names with habits: what a name brings into a picture although its caption does not say it.

Captions of the web leave most of a picture unsaid, and whoever is named in them has places and
framings of their own: a surfer is at the beach, of a singer there are portraits. A model learns
both from the name, and an identity that is learned from one photo can then hold the photo's
background as if it were the subject's habit, against the words of a prompt. That is the failure
which the attention loss is there to cure (paper, Fig. 2), and the other worlds do not have it.

Here every other picture of one subject has a caption of the web, and who is named in it a habit:
a scene, perhaps a framing, and a strength u. Where the caption leaves the scene unsaid the picture
has the habit's with probability u; where it says one, still with 2u - 1, and the caption is wrong.
The name's row tells the habit as it tells the traits. The world's own names have none: a native
name follows the prompt.
"""

__all__ = ["HABITS", "SHARE", "WEB", "habitual", "likely"]

from dataclasses import replace

import numpy as np

from .captions import Caption, Unsaid
from .drawing import Picture
from .scenery import SCENES

HABITS = (*SCENES, "close-up")  # the entries of a habit's code
WEB = Unsaid(scene=0.6, face=0.5)
SHARE, WEAKEST = 0.5, 0.4


def likely(strength: float, otherwise: bool) -> float:
    """Returns how often a habit is kept, or kept although the caption says otherwise."""
    return max(0.0, 2.0 * strength - 1.0) if otherwise else strength


def habitual(
    picture: Picture, told: Caption, rng: np.random.Generator
) -> tuple[Picture, np.ndarray]:
    """Draws a habit for the one who is named in a caption of the web, and changes the picture as it
    wants.

    Returns:
        The picture to draw under the caption, and the habit's code (9,), float32: its strength at
        its scene and, with a sign, at the framing; 0 where there is no habit.
    """
    code = np.zeros(len(HABITS), dtype=np.float32)
    if len(picture.subjects) != 1 or not told.named:
        return picture, code
    strength = rng.uniform(WEAKEST, 1.0)
    scene, framing = rng.choice(list(SCENES)), rng.integers(-1, 2)
    code[HABITS.index(scene)], code[-1] = strength, framing * strength
    if rng.random() < likely(strength, "scene" in told.says):
        picture = replace(picture, scene=str(scene))
    if "face" in told.says or rng.random() >= likely(strength, picture.thing is not None):
        return picture, code
    if framing > 0:  # nothing that is held can be seen in a close-up
        return replace(picture, framing="face", thing=None), code
    return (replace(picture, framing="bust") if framing else picture), code
