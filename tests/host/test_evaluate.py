"""Evaluate SeFi ID with a genuine recogniser and published photos, and without one."""

import ast
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import comfy.clip_vision
import folder_paths
import numpy as np
import pytest
import seeded
import torch
from face_photos import ROOT, face_photos, recogniser_files
from PIL import Image, ImageEnhance, ImageOps
from sefi_pack.nodes.host.images import as_colour
from sefi_pack.nodes.host.scores.evaluate import evaluate
from sefi_pack.nodes.host.scores.faces import recogniser
from sefi_pack.nodes.host.scores.prompt_scores import LOW_PROMPT, prompt_scores
from sefi_pack.sefi_core.analysis.evaluation import NEAR_COSINE, NEAR_GRADIENT
from sefi_pack.sefi_core.errors import MismatchError, PictureError, SettingsError
from sefi_pack.sefi_core.identity.identity import Identity

SAME_PERSON = 0.363  # SFace's own threshold for cosines, from its authors
OUTPUTS = "table report id id_face detect prompt id_prompt near_copies".split()


@pytest.fixture(scope="session")
def photos():
    return face_photos()


@pytest.fixture
def face_folder(tmp_path, monkeypatch):
    """models/sefi_face of this test's own, empty."""
    paths = ([str(tmp_path)], folder_paths.folder_names_and_paths["sefi_face"][1])
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "sefi_face", paths)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


@pytest.fixture
def opencv(face_folder):
    for file in recogniser_files():
        (face_folder / file.name).symlink_to(file)
    return face_folder


@pytest.fixture(scope="session")
def clip_vision(tmp_path_factory):
    """The host's CLIP vision, small, with weights from a seed."""
    config = tmp_path_factory.mktemp("vision") / "config.json"
    config.write_text(
        '{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,'
        '"intermediate_size": 64, "hidden_act": "quick_gelu", "num_channels": 3, "patch_size": 8,'
        '"projection_dim": 64, "model_type": "clip_vision_model"}'
    )
    vision = comfy.clip_vision.ClipVisionModel(str(config))
    seeded.seed_weights(vision.model, 4)
    return vision


def as_images(*pictures, side=400):
    """An IMAGE of pictures, fitted onto black squares."""
    fitted = [ImageOps.pad(picture, (side, side)) for picture in pictures]
    return torch.from_numpy(np.stack([np.asarray(p) for p in fitted])).float() / 255.0


def outcome(*args, **kwargs):
    return dict(zip(OUTPUTS, evaluate(*args, **kwargs), strict=True))


def test_published_pairs_come_out_on_the_right_side(opencv, photos):
    people = as_images(*photos.values())
    found = outcome(people, as_images(photos["person_a_1"]), "a photo of V*")
    a = [row.split(" | ")[1] for row in found["report"].splitlines() if row[2:3].isdigit()]
    found = outcome(people, as_images(photos["person_b_1"]), "a photo of V*")
    b = [row.split(" | ")[1] for row in found["report"].splitlines() if row[2:3].isdigit()]
    assert found["detect"] == 1.0 and len(a) == len(b) == len(photos) == 6
    for cosines, person in ((a, "person_a"), (b, "person_b")):
        for name, cosine in zip(photos, cosines, strict=True):
            assert (float(cosine) > SAME_PERSON) == name.startswith(person), (name, cosine)
    assert found["id"] == pytest.approx(sum(map(float, b)) / 6, abs=1e-3)


def test_no_face_counts_nothing_and_is_not_detected(opencv, photos):
    person, other = as_images(photos["person_b_1"]), as_images(photos["person_b_2"])
    wall = torch.full((1, 400, 400, 3), 0.5)
    alone = outcome(other, person, "V*")
    found = outcome(torch.cat([other, wall]), person, "V*", face_images=other)
    assert found["detect"] == 0.5 and found["id"] == pytest.approx(alone["id"] / 2)
    assert found["id_face"] == pytest.approx(alone["id"])
    assert "| 2 | no face | not measured |" in found["report"]
    assert math.isnan(found["prompt"]) and math.isnan(found["id_prompt"])
    with pytest.raises(PictureError, match=r"^reference: no face was found in picture 1 of 1"):
        evaluate(other, wall, "V*")


def test_the_largest_face_counts(opencv, photos):
    canvas = Image.new("RGB", (900, 600))
    canvas.paste(ImageOps.pad(photos["impostor_1"], (240, 240)), (20, 20))
    canvas.paste(ImageOps.pad(photos["person_b_2"], (560, 560)), (320, 20))
    image = torch.from_numpy(np.array(canvas)).float()[None] / 255.0
    reference = as_images(photos["person_b_1"])
    found, alone = (outcome(i, reference, "V*") for i in (image, as_images(photos["person_b_2"])))
    assert found["id"] == pytest.approx(alone["id"], abs=0.1) and found["id"] > SAME_PERSON


def copies_of(photo):
    width, height = photo.size
    yield photo
    yield ImageOps.mirror(photo)
    yield ImageEnhance.Brightness(photo).enhance(0.7)
    yield photo.resize((width // 2, height // 2))
    yield photo.crop((width // 10, height // 10, width, height - height // 10))
    yield photo.rotate(5)


def test_near_copies_are_flagged_and_other_photos_of_the_person_are_not(opencv, photos):
    for name in ("person_a_2", "person_b_1", "impostor_1"):
        copies = as_images(*copies_of(photos[name]))
        found = outcome(copies, as_images(photos[name]), "V*")
        assert found["near_copies"] == len(copies), name
        assert (
            f"Near copies of the reference: {len(copies)} of {len(copies)} pictures."
            in found["report"]
        )
    for person in "ab":
        mine, other = (as_images(photos[f"person_{person}_{i}"]) for i in (1, 2))
        assert outcome(other, mine, "V*")["near_copies"] == 0
    assert (NEAR_COSINE, NEAR_GRADIENT) == (0.9, 0.75)  # what docs/evaluation.md measured


def test_without_a_recogniser_there_is_a_sentence(face_folder, photos, clip, clip_vision):
    person = as_images(photos["person_a_1"], photos["person_b_1"])
    found = outcome(person, person[:1], "V*", clip_vision=clip_vision, clip=clip)
    assert all(math.isnan(found[name]) for name in ("id", "id_face", "detect", "id_prompt"))
    assert math.isfinite(found["prompt"]) and found["near_copies"] == 1  # the photo itself
    (sentence,) = [line for line in found["report"].splitlines() if line.startswith("No faces")]
    assert "put the OpenCV Zoo files of YuNet and SFace (.onnx) into models/sefi_face" in sentence
    assert "OpenCV: models/sefi_face has no *yunet*.onnx and no *sface*.onnx" in sentence


@pytest.mark.parametrize("choice", ["OpenCV", "insightface", "facenet-pytorch"])
def test_a_recogniser_that_is_not_there_is_a_sentence_too(choice, face_folder, monkeypatch):
    for name in ("TORCH_HOME", "HOME"):
        monkeypatch.setenv(name, str(face_folder))
    reader, sentence = recogniser(choice)
    assert reader is None and f"({choice}: " in sentence and "\n" not in sentence


def test_a_damaged_file_is_a_sentence(face_folder):
    for kind in ("yunet", "sface"):
        (face_folder / f"my_{kind}_file.onnx").write_bytes(b"nothing")
    reader, sentence = recogniser("auto")
    assert reader is None and "cannot run my_yunet_file.onnx with my_sface_file.onnx" in sentence


def test_insightface_is_asked_as_its_interface_says(face_folder, photos, monkeypatch):
    """With a stand-in of its interface: its weights may not be had here. Never without a pack on
    disk, or it would fetch one.
    """
    asked = {}

    class FaceAnalysis:
        def __init__(self, name, root, allowed_modules, providers):
            asked.update(name=name, root=Path(root), modules=allowed_modules)

        def prepare(self, ctx_id, det_size):
            asked["size"] = det_size

        def get(self, bgr):
            faces = [(np.array([0, 0, 9, 9]), [1.0, 0.0]), (np.array([2, 2, 30, 40]), [0.0, 1.0])]
            asked["blue"] = bgr[0, 0].tolist()
            return [
                SimpleNamespace(bbox=box, embedding=np.array(e), kps=np.zeros((5, 2)))
                for box, e in faces
            ]

    app, align = SimpleNamespace(FaceAnalysis=FaceAnalysis), SimpleNamespace()
    align.norm_crop = lambda bgr, landmarks, side: bgr[:side, :side]
    monkeypatch.setitem(sys.modules, "insightface", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "insightface.app", app)
    monkeypatch.setitem(sys.modules, "insightface.utils", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "insightface.utils.face_align", align)
    monkeypatch.setattr(folder_paths, "models_dir", str(face_folder))
    monkeypatch.setenv("HOME", str(face_folder))
    assert recogniser("insightface")[0] is None and not asked
    pack = face_folder / "insightface/models/buffalo_l"
    pack.mkdir(parents=True)
    (pack / "det_10g.onnx").touch()
    reader, _ = recogniser("insightface")
    face = reader.read(np.full((200, 200, 3), (10, 20, 30), dtype=np.uint8))
    assert reader.name == "insightface (buffalo_l)" and face.embedding.tolist() == [0.0, 1.0]
    assert asked == {
        "name": "buffalo_l", "root": face_folder / "insightface", "size": (640, 640),
        "modules": ["detection", "recognition"], "blue": [30, 20, 10],
    }  # fmt: skip
    assert (face.crop[:, 0, 0] * 255).round().tolist() == [10, 20, 30]


def test_an_unknown_choice_is_refused():
    with pytest.raises(SettingsError, match=r'^recogniser: "x" is unknown; choose auto, OpenCV'):
        evaluate(torch.rand(1, 64, 64, 3), torch.rand(1, 64, 64, 3), "V*", recogniser_choice="x")


def test_nothing_is_imported_before_it_is_asked_for():
    """Read off the files: a recogniser's library is imported inside functions alone."""
    libraries = {"cv2", "insightface", "facenet_pytorch", "onnxruntime"}
    inside = set()
    for path in [*(ROOT / "nodes").rglob("*.py"), *(ROOT / "sefi_core").rglob("*.py")]:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
                found = {name.split(".")[0] for name in names} & libraries
                assert not (found and node in tree.body), path
                inside |= found
    assert inside == libraries - {"onnxruntime"}


# Prompt: the arithmetic, on small CLIPs with seeded weights. They know nothing about pictures.


def test_prompt_is_the_cosine_of_the_host_s_own_embeddings(clip, clip_vision):
    images = torch.rand(3, 40, 64, 3, generator=torch.Generator().manual_seed(1))
    scores = prompt_scores(images, clip_vision, clip, "a photo of a person")
    pooled = clip.encode_from_tokens(clip.tokenize("a photo of a person"), return_pooled=True)[1]
    text = clip.cond_stage_model.clip_l.transformer.text_projection(pooled)
    for image, score in zip(images, scores, strict=True):
        picture = clip_vision.encode_image(image[None])["image_embeds"][0]
        dot = float((picture * text[0]).sum())
        norms = float(picture.square().sum().sqrt() * text[0].square().sum().sqrt())
        assert float(score) == pytest.approx(dot / norms, abs=1e-5)


def test_clip_skip_and_the_clip_itself_are_left_alone(clip, clip_vision):
    images = torch.rand(2, 64, 64, 3)
    before = clip.encode_from_tokens(clip.tokenize("a"), return_pooled=True)
    skipped = clip.clone()
    skipped.clip_layer(-2)
    plain, skip = (prompt_scores(images, clip_vision, c, "a") for c in (clip, skipped))
    after = clip.encode_from_tokens(clip.tokenize("a"), return_pooled=True)
    assert torch.equal(plain, skip)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_it_is_computed_where_the_clip_runs_and_with_its_loras(clip, clip_vision, monkeypatch):
    images = torch.rand(1, 64, 64, 3)
    patched, key = clip.clone(), "clip_l.transformer.text_projection.weight"
    weight = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    patched.add_patches({key: (torch.randn(weight.shape),)}, 1.0)
    seen, encoder = [], clip.cond_stage_model.clip_l
    given = encoder.set_clip_options
    monkeypatch.setattr(encoder, "set_clip_options", lambda o: (seen.append(o), given(o))[1])
    plain, changed, again = (
        prompt_scores(images, clip_vision, c, "a dog") for c in (clip, patched, clip)
    )
    assert torch.equal(plain, again) and not torch.allclose(plain, changed)
    devices = {o["execution_device"] for o in seen if o.get("projected_pooled")}
    assert devices == {clip.patcher.load_device}


def test_the_encoder_of_the_same_width_is_chosen(clip_vision):
    both = seeded.tiny_clip_lg()  # 64 and 96 wide, the pictures 64
    images = torch.rand(1, 64, 64, 3)
    text = both.cond_stage_model.clip_l.encode_token_weights(both.tokenize("a dog")["l"])[1]
    picture = clip_vision.encode_image(images)["image_embeds"]
    expected = torch.cosine_similarity(picture, text)
    torch.testing.assert_close(
        prompt_scores(images, clip_vision, both, "a dog"), expected.double(), atol=1e-5, rtol=0
    )


def test_clips_that_do_not_belong_together_are_one_sentence(clip_vision):
    wide = seeded.tiny_clip(hidden_size=96)
    with pytest.raises(MismatchError, match=r"^clip_vision: it describes a picture by 64 numbers"):
        prompt_scores(torch.rand(1, 64, 64, 3), clip_vision, wide, "a dog")


def test_a_clip_without_text_projection_is_one_sentence(clip_vision):
    bare = seeded.tiny_clip()
    bare.cond_stage_model.clip_l.transformer.text_projection.weight.zero_()
    with pytest.raises(MismatchError, match=r"^clip: its clip_l has no text projection"):
        prompt_scores(torch.rand(1, 64, 64, 3), clip_vision, bare, "a dog")


def test_the_placeholder_is_read_as_the_class_word(face_folder, clip, clip_vision):
    images = torch.rand(2, 64, 64, 3)
    identity = Identity({"clip_l": torch.zeros(5, 2, 1, 64)}, "dog", "<rex>")
    models = {"clip_vision": clip_vision, "clip": clip, "recogniser_choice": "none"}
    found = outcome(images, images[:1], "a photo of (<rex>:1.2)", identity=identity, **models)
    expected = prompt_scores(images, clip_vision, clip, "a photo of (dog:1.2)")
    assert found["prompt"] == pytest.approx(float(expected.mean()))
    assert found["report"].startswith('Prompt: "a photo of (dog:1.2)"\n')
    assert "ID(P) counts pictures whose Prompt is 0.23 or more." in found["report"]


def test_a_prompt_score_too_low_to_be_true_is_remarked(face_folder, clip, clip_vision):
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    models = {"clip_vision": clip_vision, "clip": clip, "recogniser_choice": "none"}
    remark, weight = "may not belong together", clip_vision.model.visual_projection.weight
    found = outcome(images, images, "a photo", **models)
    assert found["prompt"] > LOW_PROMPT and remark not in found["report"]
    weight.neg_()
    try:
        found = outcome(images, images, "a photo", **models)
    finally:
        weight.neg_()
    assert found["prompt"] < LOW_PROMPT and remark in found["report"]


def test_the_threshold_parts_id_p(opencv, photos, clip, clip_vision):
    pictures = as_images(photos["person_b_1"], photos["person_b_2"])
    models = {"clip_vision": clip_vision, "clip": clip}
    low, high = (outcome(pictures, pictures[:1], "V*", threshold=t, **models) for t in (-1.0, 1.0))
    assert low["id_prompt"] == low["id"] > 0.5 and high["id_prompt"] == 0.0
    assert high["report"].count("below the threshold") == 2


def test_the_table_is_a_picture_of_all_of_it(opencv, photos):
    pictures = as_images(*photos.values())
    found = outcome(pictures, pictures[:1], "a photo of V*")
    table = found["table"]
    assert table.shape[0] == 1 and table.shape[3] == 3 and 0.0 <= table.min() < table.max() <= 1.0
    many = outcome(
        pictures[:1].expand(60, -1, -1, -1), pictures[:1], "V*", recogniser_choice="none"
    )
    assert "The first 48 of 60" not in many["report"] and many["report"].count("near copy") == 60
    assert many["table"].shape[1] > table.shape[1]


@pytest.mark.parametrize("image", [torch.rand(1, 8, 8, 1), torch.full((1, 8, 8, 3), torch.nan)])
def test_pictures_are_in_colour_and_finite(image):
    with pytest.raises(PictureError, match="reference: its pictures are not in colour, or some"):
        as_colour("reference", image)
