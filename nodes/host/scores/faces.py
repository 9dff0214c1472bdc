"""Face recognisers that the artist has: OpenCV's, insightface, facenet-pytorch.

Nothing is imported before it is asked for, and nothing is ever downloaded: a library that would
fetch its weights is not called unless they are there.
"""

__all__ = ["RECOGNISERS", "Face", "Recogniser", "recogniser", "recognisers_state"]

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import folder_paths
import numpy as np
import torch
from torch import Tensor

from ..folders import face_model_path

DETECTION_SIDE = 640  # pixels; larger pictures are shrunk for the detector alone
CERTAINTY = 0.7  # of YuNet, above which something is a face
CROP = 112  # pixels of an aligned face


@dataclass(frozen=True, eq=False)
class Face:
    """The largest face of a picture.

    Attributes:
        embedding: (E,), what the recogniser tells people apart by.
        crop: The aligned face (3, s, s) in [0, 1].
    """

    embedding: Tensor
    crop: Tensor


@dataclass(frozen=True)
class Recogniser:
    """`read` takes 8-bit RGB (h, w, 3) and returns the largest face, None if there is none."""

    name: str
    read: Callable[[np.ndarray], Face | None]


class Missing(Exception):
    """A recogniser that is not there; the message says what it lacks."""


def opencv() -> Recogniser:
    """YuNet and SFace, from files in models/sefi_face."""
    paths = {kind: face_model_path(kind) for kind in ("yunet", "sface")}
    lacking = [f"*{kind}*.onnx" for kind, path in paths.items() if path is None]
    if lacking:
        raise Missing(f"models/sefi_face has no {' and no '.join(lacking)}")
    try:
        import cv2
    except ImportError as error:
        raise Missing("the Python package opencv-python is not installed") from error
    try:
        detector = cv2.FaceDetectorYN.create(str(paths["yunet"]), "", (320, 320), CERTAINTY)
        features = cv2.FaceRecognizerSF.create(str(paths["sface"]), "")
    except cv2.error as error:
        raise Missing(
            f"OpenCV {cv2.__version__} cannot run {paths['yunet'].name} with "
            f"{paths['sface'].name}; try another OpenCV or other files"
        ) from error

    def read(picture: np.ndarray) -> Face | None:
        bgr = np.ascontiguousarray(picture[..., ::-1])
        scale = min(1.0, DETECTION_SIDE / max(bgr.shape[:2]))
        small = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        detector.setInputSize((small.shape[1], small.shape[0]))
        found = detector.detect(small)[1]
        if found is None:
            return None
        face = max(found, key=lambda row: row[2] * row[3]).copy()
        face[:14] /= scale  # box and landmarks
        crop = features.alignCrop(bgr, face)
        return as_face(features.feature(crop)[0], crop)

    return Recogniser("OpenCV (YuNet and SFace)", read)


def insightface_packs() -> list[Path]:
    """Returns insightface's model packs that are on disk."""
    roots = [Path(folder_paths.models_dir) / "insightface", Path.home() / ".insightface"]
    return sorted(p for root in roots for p in root.glob("models/*") if any(p.glob("*.onnx")))


def insightface() -> Recogniser:
    """Detector and ArcFace of a model pack that is already on disk."""
    packs = insightface_packs()
    if not packs:
        raise Missing("no insightface models are in models/insightface/models/<name>")
    try:
        from insightface.app import FaceAnalysis
        from insightface.utils.face_align import norm_crop
    except ImportError as error:
        raise Missing("the Python package insightface is not installed") from error
    pack = next((p for p in packs if p.name in ("buffalo_l", "antelopev2")), packs[0])
    try:
        analysis = FaceAnalysis(
            name=pack.name,
            root=str(pack.parents[1]),
            allowed_modules=["detection", "recognition"],
            providers=["CPUExecutionProvider"],
        )
    except AssertionError as error:  # its way of saying that there is no detector
        raise Missing(f"the model pack {pack.name} has no face detector") from error
    analysis.prepare(ctx_id=-1, det_size=(DETECTION_SIDE, DETECTION_SIDE))

    def read(picture: np.ndarray) -> Face | None:
        bgr = np.ascontiguousarray(picture[..., ::-1])
        found = analysis.get(bgr)
        if not found:
            return None
        face = max(found, key=lambda f: np.prod(f.bbox[2:4] - f.bbox[:2]))
        return as_face(face.embedding, norm_crop(bgr, face.kps, CROP))

    return Recogniser(f"insightface ({pack.name})", read)


def facenet_weights() -> Path:
    """Returns where facenet-pytorch keeps its weights, whether they are there or not."""
    cache = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    home = Path(os.environ.get("TORCH_HOME", Path(cache) / "torch"))
    return home.expanduser() / "checkpoints/20180402-114759-vggface2.pt"


def facenet() -> Recogniser:
    """MTCNN and InceptionResnetV1 of facenet-pytorch, if its weights are in torch's cache."""
    weights = facenet_weights()
    if not weights.is_file():
        raise Missing(f"torch's cache has no checkpoints/{weights.name}")
    try:
        from facenet_pytorch import MTCNN, InceptionResnetV1
    except ImportError as error:
        raise Missing("the Python package facenet-pytorch is not installed") from error
    detector = MTCNN(image_size=160, select_largest=True)
    network = InceptionResnetV1(pretrained="vggface2").train(False)

    def read(picture: np.ndarray) -> Face | None:
        crop = detector(picture)
        if crop is None:
            return None
        embedding = network(crop[None])[0]
        return Face(embedding.double(), (crop * 128.0 + 127.5) / 255.0)

    return Recogniser("facenet-pytorch (VGGFace2)", read)


RECOGNISERS = {"OpenCV": opencv, "insightface": insightface, "facenet-pytorch": facenet}


def recogniser(choice: str) -> tuple[Recogniser | None, str]:
    """Returns the recogniser chosen ("auto": the first that is there) and "", or None and a
    sentence that says how to add one.
    """
    if choice == "none":
        return None, "No faces were compared, because recogniser is set to none."
    lacking = []
    for name in RECOGNISERS if choice == "auto" else [choice]:
        try:
            return RECOGNISERS[name](), ""
        except Missing as missing:
            lacking.append(f"{name}: {missing}")
    which = "there is no face recogniser" if choice == "auto" else f"{choice} is not there"
    return None, (
        f"No faces were compared, because {which}; put the OpenCV Zoo files of "
        "YuNet and SFace (.onnx) into models/sefi_face and queue again, or see docs/evaluation.md "
        f"for others ({'; '.join(lacking)})."
    )


def recognisers_state() -> tuple[str, ...]:
    """Returns what changes when the artist adds or removes a recogniser's files."""
    files = [face_model_path("yunet"), face_model_path("sface"), *insightface_packs()]
    found = [path for path in (*files, facenet_weights()) if path is not None and path.exists()]
    return tuple(f"{path} {path.stat().st_mtime_ns}" for path in found)


def as_face(embedding: np.ndarray, bgr: np.ndarray) -> Face:
    """Returns a face from an embedding and an aligned 8-bit BGR crop."""
    crop = torch.from_numpy(np.ascontiguousarray(bgr[..., ::-1])).movedim(-1, 0)
    return Face(torch.from_numpy(np.array(embedding)).double(), crop.float() / 255.0)
