"""Names of new files on every disk, in every script, written as the artist writes them."""

import os
import unicodedata
from datetime import datetime
from pathlib import Path

import folder_paths
import pytest
import torch
from sefi_pack.nodes.host import folders, prefixes
from sefi_pack.nodes.host.apply.sampling import apply_identity
from sefi_pack.nodes.host.identities.saving import save_new_embedding, save_new_identity
from sefi_pack.sefi_core.errors import IdentityFileError, SettingsError
from sefi_pack.sefi_core.identity import container
from sefi_pack.sefi_core.identity.file_format import load_identity

FOLDS = {
    "case": str.casefold,
    # More than any table of ours knows: only writing tells.
    "marks too": lambda name: unicodedata.normalize("NFKD", name).encode("ascii", "ignore").lower(),
}


@pytest.fixture
def models(tmp_path, monkeypatch):
    tmp_path = tmp_path / "models"
    for name in ("sefi", "embeddings"):
        (tmp_path / name).mkdir(parents=True)
        extensions = folder_paths.folder_names_and_paths[name][1]
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, name, ([str(tmp_path / name)], extensions)
        )
    return tmp_path


@pytest.fixture(params=FOLDS)
def folding(request, monkeypatch, models):
    """A disk on which names are one that differ in their case: a door to the genuine one."""
    fold = FOLDS[request.param]

    class FoldingPath(type(Path())):
        def __fspath__(self):
            real = self.anchor or "."
            for part in self.parts[bool(self.anchor) :]:
                there = os.listdir(real) if os.path.isdir(real) else ()
                same = [name for name in there if fold(name) == fold(part)]
                real = os.path.join(real, part if part in there else (same or [part])[0])
            return real

    monkeypatch.setattr(folders, "Path", FoldingPath)
    return request.param


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))


def test_names_that_are_one_on_the_disk_get_the_next_number(models, folding, learned):
    names = ["anna", "Anna", "ANNA"] + ["Änna"] * (folding != "case")
    for name in names:
        save_new_identity(learned, name)
        save_new_embedding(learned, name, "values", None)
    assert len(files_in(models / "sefi")) == len(files_in(models / "embeddings")) == len(names)
    assert len({FOLDS[folding](name) for name in files_in(models / "sefi")}) == len(names)


def test_a_folder_in_another_case_is_the_same_folder(models, folding, learned):
    save_new_identity(learned, "Faces/anna")
    save_new_identity(learned, "faces\\Anna")
    assert files_in(models / "sefi") == [
        "Faces/Anna_00002_.safetensors",
        "Faces/anna_00001_.safetensors",
    ]


@pytest.mark.parametrize("word", ["อันนา", "ශ්‍රී", "བཀྲ་ཤིས", "می‌نا", "Zoë", "ሰው", "व्यक्ति"])
def test_a_name_in_any_script_is_saved_listed_loaded_and_applied(
    models, model, clip, learned, word
):
    save_new_identity(learned, f" {unicodedata.normalize('NFD', word)}/{word}\n")
    (name,) = folders.identity_names()
    kept = unicodedata.normalize("NFC", word)
    assert name == f"{kept}/{kept}_00001_.safetensors"
    for written in (name, name.replace("/", "\\"), unicodedata.normalize("NFD", name)):
        identity = load_identity(folders.identity_path(written))
        assert folders.file_state(written)
    apply_identity(model, clip, identity, "V*" if word == "Zoë" else f"{word}V*{word}")
    prompt, _ = save_new_embedding(learned, word, "values", None)
    assert prompt == f"embedding:{kept}"


def test_a_file_whose_name_has_a_backslash_is_itself(models, learned):
    save_new_identity(learned, "a/b")
    os.link(models / "sefi/a/b_00001_.safetensors", models / "sefi/a\\b_00001_.safetensors")
    path = folders.identity_path("a\\b_00001_.safetensors")
    assert path.name == "a\\b_00001_.safetensors"


@pytest.mark.parametrize("name", ["CON", "faces/nul", "com1.x/anna", "LPT³"])
def test_a_name_that_windows_keeps_is_refused_everywhere(models, learned, name):
    with pytest.raises(SettingsError, match=r"no plain name; .* that Windows keeps for itself"):
        save_new_identity(learned, name)
    assert not files_in(models)


def test_a_path_too_long_for_windows_is_said_before_it_is_written(models, learned, monkeypatch):
    monkeypatch.setattr(prefixes, "LONGEST_PATH", 259)
    name = "x" * 80 + "/" + "y" * 80 + "/" + "z" * 80
    with pytest.raises(SettingsError, match=r"takes \d+ signs, the system takes 259; shorten it"):
        save_new_identity(learned, name)
    assert not list((models / "sefi").iterdir())


def test_a_file_that_somebody_has_open_is_replaced_when_it_is_closed(models, learned, monkeypatch):
    """Windows renames over no open file; a scanner holds a new one for a moment."""
    replace, refusals = Path.replace, [PermissionError(13, "Access is denied")] * 2

    def held(self, target):
        if refusals:
            raise refusals.pop()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", held)
    container.save_tensors({"x": torch.ones(1)}, models / "a.safetensors", {})
    assert (models / "a.safetensors").exists() and not refusals
    refusals.extend([PermissionError(13, "Access is denied")] * 9)
    monkeypatch.setattr(container, "WAITS", (0.0,))
    with pytest.raises(IdentityFileError, match=r"cannot be written to .* \(Access is denied\)"):
        container.save_tensors({"x": torch.ones(1)}, models / "a.safetensors", {})


def test_prefixes_take_dates_as_the_hosts_save_nodes_do(models, learned):
    now = datetime(2031, 2, 3, 4, 5, 6)
    texts = {
        "%year%-%month%-%day% %hour%%minute%%second%": "2031-02-03 040506",
        "%date:yyyy-MM-dd%/anna": "2031-02-03/anna", "%date:yy-M-d h.m.s%": "31-2-3 4.5.6",
        "%date:hh:mm:ss%": "04-05-06", "100%": "100%", "%Node.width%": "%Node.width%",
    }  # fmt: skip
    assert {text: prefixes.dated(text, now) for text in texts} == texts
    save_new_identity(learned, "%date:yyyy%/%year%_anna")
    year = f"{datetime.now():%Y}"
    assert files_in(models / "sefi") == [f"{year}/{year}_anna_00001_.safetensors"]


SCRIPTS = {
    "Lao": ("ຄຳ", "ຄົນ", "ຮູບຂອງV*ຢູ່ສວນ"),
    "Khmer": ("សុភា", "មនុស្ស", "រូបV*"), "Burmese": ("အောင်", "လူ", "V*၏ပုံ"),
    "Georgian": ("ნინო", "ადამიანი", "V* ბაღში"),
    "Amharic": ("ሰላም", "ሰው", "የ V* ፎቶ"),
    "Tamil": ("கவிதா", "நபர்", "V*, தோட்டம்"),
    "Hangul": ("지우", "사람", "정원의 V*를"), "Hebrew": ("שָׂרָה", "אדם", "תמונה של V*"),
    "N'Ko": ("ߡߐ߱", "ߡߐ߱", "V* ߟߊ"),
    "Adlam": ("𞤀𞤣𞤤𞤢𞤥", "𞤲𞤫𞤣𞤣𞤮", "V* 𞤲"),
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_graph_of_another_script_is_trained_saved_loaded_and_applied(
    models, ask, model, clip, script
):
    name, word, prompt = SCRIPTS[script]
    identity = ask(steps=2, class_word=f"{word}\n", name=f" {name} ")[0]
    assert identity.class_word == unicodedata.normalize("NFC", word)
    save_new_identity(identity, f"{name}/{name}", title=name)
    (listed,) = folders.identity_names()
    loaded = load_identity(folders.identity_path(listed.replace("/", "\\")))
    _, conditioning = apply_identity(model, clip, loaded, prompt)
    assert conditioning[0][1]["sefi"].keys.shape[0] >= 1
