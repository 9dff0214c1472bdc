"""What the page is told: records of trainings, "Stop and keep", cards of identity files."""
# ruff: noqa: F811 - fixtures of the neighbours

import base64
import json
import re
from io import BytesIO

import comfy.model_management as mm
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from sefi_pack.nodes.host import folders
from sefi_pack.nodes.host.page import board, gallery
from sefi_pack.nodes.host.page.progress import common_stage
from sefi_pack.nodes.host.train import run, trainer
from sefi_pack.sefi_core.errors import IdentityFileError
from sefi_pack.sefi_core.identity.container import MAX_HEADER, load_header
from test_nodes import models  # noqa: F401
from test_training import interrupt_at, pairs_of

WORKFLOW = {"workflow": {"id": "here"}}


@pytest.fixture(autouse=True)
def records(monkeypatch):
    monkeypatch.setattr(board, "records", {})
    return board.records


def the_training():
    (training,) = board.of_workflow("here")
    return training


def press_keep_at(monkeypatch, step):
    shown = run.Progress.step

    def press(self, report):
        shown(self, report)
        self.training.keep_asked = report.step == step

    monkeypatch.setattr(run.Progress, "step", press)


def test_keeping_ends_early_with_an_ordinary_result(ask, output, monkeypatch):
    whole = ask(steps=9, node_id="3", workflow=WORKFLOW)
    for file in (output / "finished").iterdir():
        file.unlink()
    with monkeypatch.context() as patched:
        press_keep_at(patched, 4)
        kept = ask(steps=9, preview_every=3, node_id="3", workflow=WORKFLOW)
    assert {name: len(values) for name, values in kept[1].items()} == dict.fromkeys(kept[1], 4)
    assert '"steps": 4' in kept[0].metadata["sefi.training"]
    assert len(kept[2]) == 1
    assert kept[1]["denoising"] == whole[1]["denoising"][:4]
    assert not list(output.glob("finished/*"))  # it is not what was asked for
    training = the_training()
    assert (training.state, training.done, training.total) == ("kept", 4, 9)
    name = folders.checkpoint_names()[1]
    assert name in training.note

    resumed = ask(steps=9, resume=name)
    assert torch.equal(pairs_of(resumed), pairs_of(whole)) and resumed[1] == whole[1]


def test_asking_at_the_last_step_is_a_finished_training(ask, output, monkeypatch):
    press_keep_at(monkeypatch, 6)
    ask(node_id="3", workflow=WORKFLOW)
    assert the_training().state == "finished" and list(output.glob("finished/*"))


def test_the_record_follows_a_training(ask, output, monkeypatch):
    outputs = ask(steps=6, preview_every=4, node_id="3", workflow=WORKFLOW)
    training = the_training()
    told = training.told()
    losses = zip(outputs[1]["denoising"], outputs[1]["attention"], strict=True)
    assert [p[0] for p in told["points"]] == [1, 2, 3, 4, 5, 6]
    for point, (denoising, attention) in zip(told["points"], losses, strict=True):
        assert point[1] == pytest.approx(denoising, rel=1e-3)
        assert point[2] == pytest.approx(attention, rel=1e-3)
        assert point[3] in range(5)
    assert (told["state"], told["done"], told["preview"]) == ("finished", 6, 4)
    assert told["reference"] == 2  # as it came, then with its subject found
    for jpeg in (training.reference, training.preview):
        assert Image.open(BytesIO(jpeg)).size == (64, 64)
    (panel,) = outputs[3]["sefi_training"]
    assert panel["points"] == told["points"] and not panel["reference"] and not panel["preview"]

    again = ask(steps=6, preview_every=4, node_id="3", workflow=WORKFLOW)
    assert "Finished before" in the_training().note
    assert the_training().told()["points"] == told["points"]  # stages, too, are kept on disk
    assert torch.equal(pairs_of(again), pairs_of(outputs))


def test_the_record_of_a_stopped_and_resumed_training(ask, output, monkeypatch):
    whole = ask(steps=8)
    points = board.with_prompt("", "None").told()["points"]
    for file in (output / "finished").iterdir():
        file.unlink()
    with monkeypatch.context() as patched:
        interrupt_at(patched, 5)
        with pytest.raises(mm.InterruptProcessingException):
            ask(steps=8, node_id="3", workflow=WORKFLOW)
    assert the_training().state == "stopped" and "Stopped at step 5" in the_training().note
    ask(steps=8, resume=folders.checkpoint_names()[1], node_id="3", workflow=WORKFLOW)
    assert the_training().told()["points"] == points
    assert len(whole[1]["loss"]) == 8


def test_an_error_leaves_a_stopped_record_without_words(ask):
    with pytest.raises(Exception, match="class_word"):
        ask(class_word="(person:2)", node_id="3", workflow=WORKFLOW)
    assert (the_training().state, the_training().note) == ("stopped", "")


def new(workflow="w", node="1", **fields):
    fields = {"prompt": "p", "total": 9, "stages": 5, **fields}
    return board.Training(workflow=workflow, node=node, **fields)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9000), st.data())
def test_what_is_told_is_bounded_ordered_and_ends_with_the_last(done, data):
    since = data.draw(st.integers(0, done))
    training = new()
    training.add([[i, -i] for i in range(done)], [i % 5 for i in range(done)])
    points = training.told(since)["points"]
    assert len(points) <= board.MOST_POINTS
    steps = [point[0] for point in points]
    assert steps == sorted(set(steps)) and all(since < step <= done for step in steps)
    assert steps[-1:] == ([done] if done > since else [])
    for step, denoising, attention, stage in points:
        assert (denoising, attention) == (pytest.approx(step - 1, rel=1e-3), -denoising)
        assert stage == (step - 1) % 5
    if done - since <= board.MOST_POINTS:
        assert steps == list(range(since + 1, done + 1))


def test_numbers_that_json_does_not_have_are_null():
    training = new()
    training.add([[float("nan"), float("inf")], [1 / 3, 0.0]], [-1, 4])
    assert training.told()["points"] == [[1, None, None, -1], [2, 0.3333, 0.0, 4]]
    json.dumps(training.told(), allow_nan=False)


def test_one_record_for_a_place_and_only_the_last_of_them(records):
    first, second = board.begin(new(prompt="a")), board.begin(new(prompt="b"))
    assert list(board.of_workflow("w")) == [second] and board.with_prompt("a", "1") is None
    assert first is not second and list(board.of_workflow("x")) == []
    for number in range(board.KEPT):
        board.begin(new(node=str(number + 2)))
    assert len(records) == board.KEPT and board.with_prompt("b", "1") is None


def test_a_step_of_several_stages_is_of_none():
    assert common_stage(torch.tensor([3, 3])) == 3
    assert common_stage(torch.tensor([3, 2])) == board.MIXED


def test_batches_of_several_stages_are_told_so(ask):
    ask(batch_size=4, steps=3, node_id="3", workflow=WORKFLOW)
    assert board.MIXED in {point[3] for point in the_training().told()["points"]}


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=4), st.booleans())
def test_a_loss_map_can_be_drawn(values, same):
    values = [values[0]] * len(values) if same else values
    losses = trainer.loss_map(torch.tensor([[v, 0.0] for v in values]), 0.003)
    low, high = min(losses["loss"]), max(losses["loss"])
    assert high > low  # Plot Loss Graph divides by the difference
    assert len(losses["denoising"]) == len(values)
    exact = [float(torch.tensor(v)) for v in values]
    if len(set(exact)) > 1:
        assert losses["loss"] == exact


def picture_of(kind):
    data = BytesIO()
    Image.new("RGB", (8, 8), "teal").save(data, kind)
    return base64.b64encode(data.getvalue()).decode()


def put(folder, name, tensors=None, **metadata):
    tensors = tensors or {"pairs.clip_l": torch.zeros(5, 2, 1, 768)}
    given = {re.sub("^(modelspec|sefi)_", r"\1.", key): v for key, v in metadata.items()}
    save_file(tensors, folder / name, given)


def test_a_card_tells_what_the_header_holds(models):
    put(
        models / "sefi", "anna.safetensors", modelspec_title="Anna", sefi_class_word="dog",
        modelspec_date="2026-01-31T10:00", modelspec_thumbnail="data:image/png;base64,"
        + picture_of("PNG"),
    )  # fmt: skip
    (card,) = gallery.cards()
    assert {"title": "Anna", "class_word": "dog", "date": "2026-01-31"}.items() <= card.items()
    assert card["family"] == "SD 1.x" and card["cover"] and 30_000 < card["bytes"] < 40_000
    data, kind = gallery.cover("anna.safetensors")
    assert kind == "image/png" and Image.open(BytesIO(data)).size == (8, 8)
    put(models / "sefi", "anna.safetensors", modelspec_title="Anna again")
    assert gallery.cards()[0]["title"] == "Anna again"


def test_cards_of_files_that_do_not_mean_well(models):
    html = base64.b64encode(b"<svg onload=alert(1)>").decode()
    put(
        models / "sefi", "a.safetensors", modelspec_title="x" * 5000, modelspec_date="yesterday",
        modelspec_thumbnail=f"data:image/svg+xml;base64,{html}",
    )  # fmt: skip
    put(models / "sefi", "b.safetensors", modelspec_thumbnail="https://example.com/a.jpg")
    put(models / "sefi", "c.safetensors", ssmd_cover_images='{"not": "a list"}')
    (models / "sefi/d.safetensors").write_bytes(b"\xff" * 99)
    put(models / "sefi", "e.safetensors", ssmd_cover_images="[" * 100_000)
    cards = {card["name"][0]: card for card in gallery.cards()}
    assert len(cards["a"]["title"]) == 200 and cards["a"]["date"].startswith("20")
    assert cards["d"] == {"name": "d.safetensors"}
    for name in "abcde":
        assert not cards[name].get("cover")
        assert gallery.cover(f"{name}.safetensors") is None
    assert gallery.cover("../../etc/passwd") is None


@pytest.mark.parametrize(
    ("tensors", "family"),
    [
        ({"pairs.clip_l": (5, 2, 1, 768)}, "SD 1.x"),
        ({"pairs.0.clip_l": (5, 2, 1, 768), "pairs.0.clip_g": (5, 2, 1, 1280)}, "SDXL"),
        ({"clip_h": (1, 1024)}, "SD 2.x"),
        ({"emb_params": (2, 768)}, "SD 1.x"),
        ({"emb_params": (2, 1024)}, "SD 2.x"),
        ({"emb_params": (2, 7)}, ""),
        ({"lora.weight": (2, 768)}, ""),
    ],
)
def test_families_are_told_by_the_tensors(models, tensors, family):
    put(models / "embeddings", "e.safetensors", {k: torch.zeros(s) for k, s in tensors.items()})
    (card,) = gallery.cards()
    assert (card["name"], card["family"]) == ("textual inversion/e.safetensors", family)


def test_a_header_is_read_without_the_rest(tmp_path):
    path = tmp_path / "a.safetensors"
    put(tmp_path, path.name, {"x": torch.zeros(1 << 20)}, modelspec_title="big")
    with path.open("r+b") as file:
        file.truncate(8 + MAX_HEADER)  # all that is read of it
    assert load_header(path) == ({"x": [1 << 20]}, {"modelspec.title": "big"})
    for content in (b"", b"\x01", b"\x02\0\0\0\0\0\0\0[]", b"\x0a\0\0\0\0\0\0\0" + b'{"x": [1]}'):
        path.write_bytes(content)
        with pytest.raises(IdentityFileError):
            load_header(path)
