"""A clip skip at Apply other than at Train is told once, in the console."""

from dataclasses import replace

import pytest
from sefi_pack.nodes.host.apply import clip_skip
from sefi_pack.nodes.host.apply.sampling import apply_identity


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    monkeypatch.setattr(clip_skip, "told", set())


def skipping(clip, layer):
    other = clip.clone()
    other.clip_layer(layer)
    return other


def test_another_clip_skip_is_told_once_and_the_same_is_not(ask, model, clip, caplog):
    identity = ask(steps=2)[0]
    apply_identity(model, clip, identity, "V*")
    assert "clip" not in caplog.text
    for _ in range(2):
        apply_identity(model, skipping(clip, -2), identity, "V*")
    assert caplog.text.count("was trained with the model's own last layer") == 1
    assert "encoded with stop_at_clip_layer -2" in caplog.text

    caplog.clear()
    skipped = ask(steps=2, clip=skipping(clip, -2))[0]
    apply_identity(model, skipping(clip, -2), skipped, "V*")
    assert "trained with" not in caplog.text
    apply_identity(model, clip, skipped, "V*")
    assert "was trained with stop_at_clip_layer -2" in caplog.text


@pytest.mark.parametrize("text", ["", "[", "[]", '{"clip_skip": "x"}', "{}", "[" * 100_000])
def test_a_file_that_does_not_tell_is_no_complaint(model, clip, learned, caplog, text):
    apply_identity(model, clip, replace(learned, metadata={"sefi.training": text}), "V*")
    assert not [record for record in caplog.records if record.name == "sefi"]
