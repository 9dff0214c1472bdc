"""A small drawn world: enough to train a text-to-image model on, and to judge its pictures.

It is a toy and is called one. `README.md` says what is in it, `CARD.md` how the miniature was made.

Dimension key: B batch, T traits, L prompt tokens, E token width (128), C latent channels (16),
h w latent height and width (16), N picture side in pixels (64).
"""

from .host import ensure_host

ensure_host()
