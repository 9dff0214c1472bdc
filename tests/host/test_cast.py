"""Train SeFi Cast through its own door: folders as people have them, many at once, stopped, resumed
and answered from before.
"""

import json
from dataclasses import replace

import comfy.model_management as mm
import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image
from sefi_pack.nodes.cast import TrainSeFiCast
from sefi_pack.nodes.host import folders
from sefi_pack.nodes.host.cast import batch, caster
from sefi_pack.nodes.host.cast.people import people_in
from sefi_pack.nodes.host.cast.photos import photos_of, read_picture
from sefi_pack.nodes.host.page import cast_progress
from sefi_pack.nodes.host.train import trainer
from sefi_pack.sefi_core.errors import PictureError, PromptError, SettingsError, TrainingError
from sefi_pack.sefi_core.identity.file_format import load_identity

ROW = np.linspace(0, 255, 80, dtype=np.uint8)


def picture(path, seed=0, mode="RGB", size=(80, 72), **options):
    """Writes a picture of noise, as large as a training takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


@pytest.fixture
def places(tmp_path, monkeypatch):
    """input/, output/ and models/sefi of this test's own; returns the folder of a cast."""
    for name in ("input", "output", "models"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    paths = ([str(tmp_path / "models")], folder_paths.folder_names_and_paths["sefi"][1])
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "sefi", paths)
    return tmp_path / "input/town"


@pytest.fixture
def settings(model, clip, vae, small):
    return {
        "model": model, "clip": clip, "vae": vae, "class_word": "person", "train_seed": 0,
        "preset": "default", "steps": 6, "learning_rate": 3e-4, "attention_loss_weight": 0.003,
        "resolution": 64, "preview_every": 0, "checkpoint_every": 0,
    }  # fmt: skip


@pytest.fixture
def cast(settings):
    return lambda **changed: caster.train_cast(**{"folder": "town", **settings, **changed})


def state_of(answer):
    """Returns what the panel shows of each person: their state, by name."""
    (shown,) = answer[2]["sefi_training"]
    return {person["name"]: person["state"] for person in shown["people"]}


def notes_of(answer):
    (shown,) = answer[2]["sefi_training"]
    return {person["name"]: person["note"] for person in shown["people"]}, shown["note"]


def pairs(identity):
    return identity.pairs["clip_l"]


def test_folders_are_as_people_have_them(places):
    picture(places / "Zoë.png")
    picture(places / "anna.JPG", size=(80, 90))
    (places / "anna.txt").write_text("in a hat", encoding="utf-8-sig")
    picture(places / "anna.mask.png", mode="L", size=(80, 90))
    picture(places / "bob/1.png"), picture(places / "bob/2.webp", size=(64, 100))
    (places / "bob/2.txt").write_text("at the\nbeach")
    for name in ("Thumbs.db", ".DS_Store", "bob/.DS_Store", "notes.docx", "gone.txt"):
        (places / name).write_bytes(b"\0")
    (places / "empty").mkdir()
    people, left_out = people_in(places, places.parent)
    assert [person.name for person in people] == ["anna", "bob", "empty", "Zoë"]
    assert left_out == ["gone.txt", "notes.docx"]
    anna, bob, empty, zoe = people
    with pytest.raises(PictureError, match='the sub-folder "empty" has no picture in it; put one'):
        photos_of(empty, 64)
    found = photos_of(anna, 64)
    assert found.masked and found.caption == "in a hat" and found.pictures.shape == (1, 3, 64, 64)
    found = photos_of(bob, 64)
    assert not found.masked and found.caption == "-\nat the beach" and len(found.pictures) == 2
    assert photos_of(zoe, 64).caption == ""


def test_pictures_come_upright_and_in_all_their_shades(places):
    places.mkdir()
    turned = Image.new("RGB", (80, 64), "white")
    turned.paste("black", (0, 0, 80, 10))
    exif = turned.getexif()
    exif[0x0112] = 6  # a phone held upright: the top of the picture is at its right
    turned.save(places / "phone.jpg", exif=exif, quality=95)
    upright = read_picture(places / "phone.jpg")
    assert upright.shape == (1, 80, 64, 3) and upright[0, :, -5:].max() < 0.1
    deep = np.broadcast_to(np.arange(80, dtype=np.uint16) * 800 + 7, (72, 80))
    Image.fromarray(deep.copy()).save(places / "deep.png")
    assert read_picture(places / "deep.png")[0, 0, :, 0].unique().numel() == 80
    assert read_picture(places / "deep.png").max() == (79 * 800 + 7) / 65535
    for mode, name in (("P", "p.png"), ("L", "l.png"), ("CMYK", "c.jpg"), ("1", "b.bmp")):
        assert read_picture(picture(places / name, mode=mode)).shape == (1, 72, 80, 3)
    alpha = Image.fromarray(np.dstack([np.full((72, 80, 3), 9, np.uint8), np.tile(ROW, (72, 1))]))
    alpha.save(places / "alpha.png")
    assert torch.equal(
        read_picture(places / "alpha.png")[0, 0, :, 3] * 255, torch.tensor(ROW).float()
    )
    alpha.putalpha(255)
    alpha.save(places / "opaque.png")
    assert read_picture(places / "opaque.png").shape[-1] == 3
    (places / "x.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (places / "cut.png").write_bytes((places / "p.png").read_bytes()[:300])
    with pytest.raises(PictureError, match=r"x\.heic: this Python reads no HEIC; export the pic"):
        read_picture(places / "x.heic")
    with pytest.raises(PictureError, match=r"cut\.png: it is no whole picture that can be read"):
        read_picture(places / "cut.png")


def test_an_opaque_picture_is_what_load_image_gives(places):
    import nodes

    for name, mode in (("c.png", "RGB"), ("l.png", "L"), ("p.png", "P"), ("photo.jpg", "RGB")):
        path = picture(places / name, seed=3, mode=mode)
        loaded = nodes.LoadImage().load_image(f"town/{path.name}")[0]
        assert torch.equal(read_picture(path), loaded)


def test_names_links_and_folders_that_cannot_be(places, tmp_path, cast):
    picture(tmp_path / "outside.png"), picture(places / "ok.png")
    (places / "linked.png").symlink_to(tmp_path / "outside.png")
    picture(places / "a(1).png")
    faults = {person.name: person.fault for person in people_in(places, places.parent)[0]}
    assert '"linked.png" is a link that leads out of input/; put the file' in faults["linked"]
    assert 'folder: "a(1)" is no plain name' in faults["a(1)"] and faults["ok"] == ""
    picture(places / "OK/1.png")
    with pytest.raises(SettingsError, match=r'"(OK|ok\.png)" and "(OK|ok\.png)" would be one'):
        cast()
    for name in ("..", "../output", "nowhere", "/etc", "a\0b"):
        assert "there is no folder" in caster.asked_cast(name, "person", 0, "")
        assert caster.cast_state(name) == ()
    (places.parent / "none").mkdir()
    assert "holds no pictures; put" in caster.asked_cast("none", "person", 0, "")
    with pytest.raises(SettingsError, match="it is empty, and no images are connected; write"):
        cast(folder=" ")
    images = [torch.rand(2, 72, 80, 3), torch.rand(1, 64, 64, 3)]
    with pytest.raises(SettingsError, match="there are 2 names for 3 pictures; write one on a"):
        cast(folder="", images=images, names="a\nb")
    with pytest.raises(SettingsError, match='"a" and "A" would be one person'):
        cast(folder="", images=images, names="a\nA\nb")


def test_the_node_takes_the_lists_that_the_host_gives(places, settings):
    """A list of images is one cast, their names a line each; of all else the first counts."""
    images = [torch.rand(2, 72, 80, 3), None, torch.rand(1, 64, 64, 3)]
    node = TrainSeFiCast.PREPARE_CLASS_CLONE(None)
    lists = {name: [value] for name, value in settings.items()} | {"steps": [2], "folder": [""]}
    answer = node.execute(**lists, images=images, names=["a", "b\nc"])
    identities, sheet = answer.args
    assert len(identities) == 3 and sheet.shape[0] == 1
    (shown,) = answer.ui["sefi_training"]
    assert [person["name"] for person in shown["people"]] == ["a", "b", "c"]
    assert len(list((places.parents[1] / "models/cast").glob("*_00001_.safetensors"))) == 3
    picture(places / "dora.png")
    only_a_folder = lists | {"folder": ["town"]}
    assert len(node.execute(**only_a_folder).args[0]) == 1


def test_a_folder_that_has_changed_is_another_one_to_the_host(places):
    picture(places / "anna/1.png"), picture(places / "bob.png")
    asked = {"class_word": ["person"], "resolution": [0], "training_prompts": [""]}
    assert TrainSeFiCast.validate_inputs(folder=["town"], **asked) is True
    assert TrainSeFiCast.validate_inputs(folder=None) is True  # by a link that is not there yet
    states = [TrainSeFiCast.fingerprint_inputs(folder=["town"])]
    assert TrainSeFiCast.fingerprint_inputs(folder=["town"], steps=[3]) == states[0]
    picture(places / "anna/2.png", 1)
    states.append(TrainSeFiCast.fingerprint_inputs(folder=["town"]))
    picture(places / "bob.png", 2)
    states.append(TrainSeFiCast.fingerprint_inputs(folder=["town"]))
    (places / "anna/1.txt").write_text("in a hat")
    states.append(TrainSeFiCast.fingerprint_inputs(folder=["town"]))
    assert len(set(states)) == 4


def test_a_cast_gives_what_single_trainings_give_and_retrains_nobody(
    places, cast, settings, monkeypatch
):
    """Two are trained at once, a third is added; one of them was trained alone before."""
    picture(places / "anna.png", 1), picture(places / "bob.png", 2, size=(90, 70))
    (places / "bob.txt").write_text("in a red hat")
    (places / "broken.png").write_bytes(b"\x89PNG")
    first = cast(preview_every=6, at_once=2)
    assert state_of(first) == {"anna": "finished", "bob": "finished", "broken": "failed"}
    assert "broken: broken.png: it is no whole picture" in notes_of(first)[1]
    assert [i.metadata["sefi.training"] for i in first[0]] != [] and first[1].shape == (
        1,
        256,
        512,
        3,
    )
    saved = sorted((places.parents[1] / "models/town").iterdir())
    assert [path.name for path in saved] == ["anna_00001_.safetensors", "bob_00001_.safetensors"]
    assert torch.equal(pairs(load_identity(saved[1])), pairs(first[0][1]))
    assert "ssmd_cover_images" in load_identity(saved[0]).metadata

    image = read_picture(places / "anna.png")
    alone = trainer.train_identity(image=image, name="x", **settings)
    assert alone[3]["sefi_training"][0]["note"].startswith("Finished before")
    assert torch.equal(pairs(alone[0]), pairs(first[0][0]))
    for path in (places.parents[1] / "output/sefi/finished").iterdir():
        path.unlink()
    alone = trainer.train_identity(image=image, **settings)[0]
    torch.testing.assert_close(pairs(alone), pairs(first[0][0]), rtol=1e-4, atol=1e-5)
    assert alone.metadata.keys() == first[0][0].metadata.keys()
    cast()

    picture(places / "carl.png", 3), (places / "broken.png").unlink()
    trained = []
    prepared = batch.CastRun.prepared
    monkeypatch.setattr(
        batch.CastRun, "prepared", lambda *given: (trained.append(given[6]), prepared(*given))[1]
    )
    third = cast()
    assert [own.member.name for own in trained] == ["carl"] and len(third[0]) == 3
    assert torch.equal(pairs(third[0][0]), pairs(alone))
    monkeypatch.setattr(mm, "load_models_gpu", None)  # no model is loaded for nothing
    again = cast()
    assert set(notes_of(again)[0].values()) == {"Finished before."}
    assert [torch.equal(pairs(a), pairs(b)) for a, b in zip(third[0], again[0], strict=True)] == [
        True
    ] * 3
    assert len(list((places.parents[1] / "models/town").glob("carl*"))) == 1


@pytest.fixture
def three(places):
    for i, name in enumerate(("anna", "bob", "carl")):
        picture(places / f"{name}.png", i)
    return places


def stop_at(monkeypatch, step, error=None):
    shown = cast_progress.CastProgress.step

    def press(self, report):
        if report.step == step:
            if error is not None:
                raise error
            mm.interrupt_current_processing(True)
        shown(self, report)

    monkeypatch.setattr(cast_progress.CastProgress, "step", press)


def test_a_cancelled_cast_goes_on_by_itself_where_each_was(three, cast, monkeypatch):
    whole = cast(at_once=2, steps=6)
    output = three.parents[1] / "output/sefi"
    for path in (output / "finished").iterdir():
        path.unlink()
    with monkeypatch.context() as patched:
        stop_at(patched, 4)
        with pytest.raises(mm.InterruptProcessingException):
            cast(at_once=2, steps=6)
    assert sorted(p.name.split("_")[0] for p in output.glob("*.checkpoint.safetensors")) == [
        "anna",
        "bob",
    ]
    (damaged,) = output.glob("bob_*.checkpoint.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:50])
    steps = []
    monkeypatch.setattr(
        cast_progress.PersonProgress, "step", lambda self, r: steps.append((self.index, r.step))
    )
    resumed = cast(at_once=2, steps=6)
    assert [n for i, n in steps if i == 0] == [5, 6]
    assert [n for i, n in steps if i == 1] == [1, 2, 3, 4, 5, 6]  # anew
    for one, other in zip(whole[0], resumed[0], strict=True):
        torch.testing.assert_close(pairs(one), pairs(other), rtol=1e-4, atol=1e-5)
    assert not list(output.glob("*.checkpoint.safetensors"))


def test_stop_and_keep_ends_with_those_who_have_begun(three, cast, monkeypatch):
    keep = property(lambda self: self.taken >= 3)
    monkeypatch.setattr(cast_progress.CastProgress, "keep_asked", keep)
    kept = cast(at_once=2)
    assert state_of(kept) == {"anna": "kept", "bob": "kept", "carl": "waiting"}
    assert json.loads(kept[0][1].metadata["sefi.training"])["steps"] == 3 and len(kept[0]) == 2
    assert "1 were not begun; queue the cast again" in notes_of(kept)[1]
    assert "queue the cast again" in notes_of(kept)[0]["anna"]


def test_who_blows_up_is_named_and_the_others_learn_what_they_would(three, cast, monkeypatch):
    (three / "bob.png").rename(three / "bob.gone")
    whole = cast(steps=11)
    (three / "bob.gone").rename(three / "bob.png")
    for path in (three.parents[1] / "output/sefi/finished").iterdir():
        path.unlink()
    losses = batch.train_together.__globals__["losses_of"]

    def one_infinite(subjects, *given):
        terms = losses(subjects, *given)
        found = [
            replace(
                t, denoising=t.denoising * (torch.inf if len(subjects) == 3 and i == 1 else 1.0)
            )
            for i, t in enumerate(terms)
        ]
        return [replace(t, total=t.denoising + t.attention * 0.003) for t in found]

    monkeypatch.setitem(batch.train_together.__globals__, "losses_of", one_infinite)
    answer = cast(steps=11, at_once=3)
    assert state_of(answer) == {"anna": "finished", "bob": "failed", "carl": "finished"}
    assert "bob: learning_rate: the training blew up near step" in notes_of(answer)[1]
    for one, other in zip(whole[0], answer[0], strict=True):
        torch.testing.assert_close(pairs(one), pairs(other), rtol=1e-4, atol=1e-5)


def test_where_memory_runs_out_fewer_learn_at_once(three, cast, monkeypatch):
    tried = []
    together = batch.train_together

    def crowded(backbone, subjects):
        tried.append(len(subjects))
        if len(subjects) > 1:
            raise torch.OutOfMemoryError("full")
        return together(backbone, subjects)

    monkeypatch.setattr(batch, "train_together", crowded)
    assert len(cast(at_once=3, steps=2)[0]) == 3 and tried == [3, 2, 1, 1, 1]


def test_what_cannot_be_is_named_as_far_as_it_is_read_and_costs_the_others_nothing(places, cast):
    """A shelf that takes no file, words that cannot be trained with, and a heap of broken files."""
    picture(places / "anna.png"), picture(places / "bob.png")
    (places / "bob.txt").write_text("a person in a hat")
    for i in range(caster.MOST_NAMED + 1):
        (places / f"x{i}.png").write_bytes(b"no picture")
    (places.parents[1] / "models/town").write_bytes(b"a file where the folder would be")
    answer = cast(steps=2)
    states, (notes, last) = state_of(answer), notes_of(answer)
    assert len(answer[0]) == 1 and states["anna"] == "finished" and states["bob"] == "failed"
    assert 'caption: "a person in a hat" has "person"' in notes["bob"]
    assert last.count("no whole picture") == caster.MOST_NAMED - 1
    assert "2 more could not be trained." in last


def test_nobody_is_told_in_a_sentence_and_masks_are_of_all_or_none(places, cast):
    picture(places / "anna/1.png"), picture(places / "anna/2.png")
    picture(places / "anna/1.mask.png", mode="L")
    picture(places / "bob.png")
    (places / "bob.txt").write_bytes(b"\xff\xfe\0")
    people, _ = people_in(places, places.parent)
    with pytest.raises(
        PictureError, match="1 of 2 pictures have one; give every picture of a pers"
    ):
        photos_of(people[0], 64)
    with pytest.raises(PromptError, match=r"caption: bob\.txt is no text in UTF-8; save it as"):
        photos_of(people[1], 64)
    with pytest.raises(TrainingError, match=r"nobody of 2 people could be trained .* queue again"):
        cast()
    assert not list(places.parents[1].rglob("*.safetensors")) and folders.checkpoint_names() == [
        "[none]"
    ]
