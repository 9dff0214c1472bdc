"""Pictures, masks and captions of a cast from their files, in the units of the host.

An opaque picture of 8 bits is read by the host's own Load Image, whose decoder differs between
versions, so that a training of it is one training, whichever node asks.
"""

__all__ = ["Photos", "opened", "photos_of", "read_picture"]

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

import nodes  # the host's

from ....sefi_core.errors import PictureError, PromptError, one_line
from ..folders import input_folder
from ..train.squares import square_pictures
from .people import Person, Shot

HEIC = (".heic", ".heif", ".avif")
DEEP = 65535.0  # the white of 16 bits
MOST_TEXT = 1 << 16  # bytes of a caption
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True, eq=False)
class Photos:
    """What is learned of a person: crops (B, 3, R, R), masks (B, 1, R, R), whether an artist has
    given the masks, and captions as `caption` takes them.
    """

    pictures: Tensor
    masks: Tensor
    masked: bool
    caption: str


def photos_of(person: Person, side: int) -> Photos:
    """Reads a person's pictures and crops them to squares of a side in pixels.

    Raises:
        PictureError: One cannot be read or learned from; it is named.
        PromptError: A caption is no text.
    """
    if person.fault:
        raise PictureError(person.fault)
    if person.image is not None:
        return Photos(*square_pictures(person.image, None, side), False, "")
    masked = [shot for shot in person.shots if shot.mask]
    if masked and len(masked) < len(person.shots):
        raise PictureError(
            f"mask: {len(masked)} of {len(person.shots)} pictures have one; give every picture of "
            "a person a mask, or none."
        )
    squares = [squared(shot, side) for shot in person.shots]
    pictures, masks = (torch.cat(parts) for parts in zip(*squares, strict=True))
    return Photos(pictures, masks, bool(masked), captions_of(person.shots))


def squared(shot: Shot, side: int) -> tuple[Tensor, Tensor]:
    """Returns the crop (1, 3, R, R) and the mask (1, 1, R, R) of one picture."""
    mask = read_mask(shot.mask) if shot.mask else None
    image = read_picture(shot.picture)
    try:
        return square_pictures(image, mask, side)
    except PictureError as error:
        raise PictureError(f"{one_line(shot.picture.name)}: {error}") from error


def read_picture(path: Path) -> Tensor:
    """Returns a file below input/ as an IMAGE (1, H, W, 3), or 4 where a part of it is transparent:
    upright, the first of several frames, in as many shades as it has.
    """
    picture = opened(path)
    if picture.mode[0] in "IF":
        return deep(picture)
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema()[0] < 255:
            return torch.from_numpy(np.array(picture).astype(np.float32) / 255.0)[None]
    return loaded(path)


def loaded(path: Path) -> Tensor:
    """Returns a file below input/ as Load Image does, (1, H, W, 3); raises PictureError."""
    try:
        image = nodes.LoadImage().load_image(path.relative_to(input_folder()).as_posix())[0]
    except Exception as error:  # whatever the decoder of this version raises
        raise PictureError(
            f"{one_line(path.name)}: Load Image cannot read it ({one_line(str(error), 200)}); "
            "export it anew as JPEG or PNG."
        ) from error
    return image[:1].float().cpu()


def read_mask(path: Path) -> Tensor:
    """Returns a file as a MASK (1, H, W)."""
    picture = opened(path)
    if picture.mode[0] in "IF":
        return deep(picture)[..., 0]
    return torch.from_numpy(np.array(picture.convert("L")).astype(np.float32) / 255.0)[None]


def deep(picture: Image.Image) -> Tensor:
    """Returns a grey picture of more than 8 bits as an IMAGE (1, H, W, 3)."""
    grey = np.asarray(picture, dtype=np.float32)
    white = max(1.0, float(grey.max())) if picture.mode == "F" else DEEP
    return torch.from_numpy(grey / white)[None, :, :, None].expand(-1, -1, -1, 3).clone()


def opened(path: Path) -> Image.Image:
    """Returns a file's picture, decoded and upright; raises PictureError if there is none."""
    try:
        with Image.open(path) as file:
            file.load()
            return ImageOps.exif_transpose(file)
    except UNREADABLE as error:
        if isinstance(error, UnidentifiedImageError) and path.suffix.lower() in HEIC:
            raise PictureError(
                f"{one_line(path.name)}: this Python reads no {path.suffix[1:].upper()}; export "
                "the picture as JPEG or PNG."
            ) from error
        raise PictureError(
            f"{one_line(path.name)}: it is no whole picture that can be read; export it anew as "
            "JPEG or PNG."
        ) from error


def captions_of(shots: Sequence[Shot]) -> str:
    """Returns the captions of pictures, a line each; as it stands where they share a file."""
    files = {shot.caption for shot in shots}
    if len(files) == 1:
        (file,) = files
        return read_text(file) if file else ""
    texts = [read_text(shot.caption) if shot.caption else "" for shot in shots]
    return "\n".join(" ".join(text.split()) or "-" for text in texts)


def read_text(path: Path) -> str:
    """Returns a caption's file; raises PromptError if it is no text."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_TEXT).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(
            f"caption: {one_line(path.name)} is no text in UTF-8; save it as such, or take it out."
        ) from error
