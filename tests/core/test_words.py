"""What a word is, in every script."""

import sys
import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sefi_pack.sefi_core.errors import PromptError
from sefi_pack.sefi_core.identity.group import combine
from sefi_pack.sefi_core.identity.identity import Identity
from sefi_pack.sefi_core.prompts import placeholders_in, plain_noun, replace_placeholders
from sefi_pack.sefi_core.words import cleaned, is_noun, is_plain_name, is_word_sign, narrowed

# "person" or a name, in scripts of every kind: with marks, joiners, without spaces, beyond 16 bits.
WORDS = [
    "อันนา", "ຄົນ", "មនុស្ស", "လူ", "व्यक्ति", "মানুষ", "நபர்", "వ్యక్తి", "ವ್ಯಕ್ತಿ", "വ്യക്തി", "ශ්‍රී", "ਵਿਅਕਤੀ",
    "བཀྲ་ཤིས", "ሰው", "אדם", "שָׁלוֹם", "شخص", "شَخْص", "می‌نا", "사람", "人", "ひと",
    "カール・マルクス", "человек", "й",
    "άνθρωπος", "անձ", "ადამიანი", "ᏴᏫ", "ⵉⵏⵙⴰⵏ", "𞤀𞤣𞤤𞤢𞤥",
    "ߡߐ߱", "ᠬᠦᠮᠦᠨ", "ᱦᱚᱲ", "người", "Zoë", "O’Brien", "col·lega", "ꦮꦺꦴꦁ",
    "ᐃᓄᒃ", "ꆀ", "𑄟𑄚𑄪𑄌𑄴", "ތަނާ",
]  # fmt: skip
UNSPACED = [
    "一张{}的照片",
    "写真{}です",
    "ภาพของ{}ครับ",
    "ที่{}อยู่",
    "រូប{}ក្នុង",
    "ຮູບ{}ຢູ່",
    "ပုံ{}သည်",
    "{}의 사진",
]
letters = st.characters(categories=["L", "M", "Nd"])
spaces = st.text(st.sampled_from(" \t\n\r\u3000\u00a0\ufeff\u200b\u2009"), max_size=3)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_word_of_any_script_is_a_noun_a_name_and_a_placeholder(word, form):
    written = unicodedata.normalize(form, word)
    kept = unicodedata.normalize("NFC", word)
    assert plain_noun(f" \u3000{written}\n") == kept == cleaned(f"{written}\r\n")
    assert is_noun(kept) and is_plain_name(kept)
    assert placeholders_in(f"a photo of {written}, smiling", [kept]) == [kept]
    assert replace_placeholders(f"<{kept}> {written}.", {written: "X"}) == "<X> X."
    with pytest.raises(PromptError, match="does not stand in"):
        placeholders_in(f"a {written}{written[0]}", [written])


@given(letters, st.text(letters, max_size=12), spaces, spaces)
def test_letters_with_their_marks_are_words(first, others, before, after):
    text = unicodedata.normalize("NFC", f"{first}{others}")
    if not is_word_sign(text[0]) or unicodedata.category(text[0])[0] == "M":
        text = f"a{text}"
    text = unicodedata.normalize("NFC", text)
    assert cleaned(f"{before}{unicodedata.normalize('NFD', text)}{after}") == text
    assert plain_noun(f"{before}{text}{after}") == text and is_plain_name(text) == (
        len(text.encode()) <= 180 and text.lower() not in ("con", "prn", "aux", "nul")
    )


@given(
    st.characters(categories=["C", "P", "S", "Z"], exclude_characters="'-·_’ʼ‐‑・་־׳״՚፡᐀‌‍ .\u0387")
)
def test_signs_that_no_word_has_are_in_no_noun_and_no_name(sign):  # U+0387 is U+00B7 in NFC
    inner = cleaned(f"a{sign}b")
    assert inner == "a b" or not (is_noun(inner) or is_plain_name(inner))


def test_every_sign_there_is_gets_an_answer():
    for number in range(sys.maxunicode + 1):
        sign = chr(number)
        assert len(narrowed(sign)) == 1 and is_noun(sign) in (True, False)
        if is_noun(sign) or is_plain_name(sign):
            assert sign not in '/\\:*?"<>|(){}[],%' and not sign.isspace() and number >= 32


@pytest.mark.parametrize("text", UNSPACED)
@pytest.mark.parametrize("placeholder", ["V*", "<อันนา>", "sks"])
def test_a_placeholder_stands_in_scripts_without_spaces(text, placeholder):
    written = text.format(placeholder)
    assert placeholders_in(written, [placeholder]) == [placeholder]
    replaced = replace_placeholders(written, {placeholder: "person"})
    assert " person " in f" {replaced} " and placeholder not in replaced
    assert replaced.replace(" person ", "").replace(" ", "") == text.format("").replace(
        " ", ""
    ) or replaced.startswith("person ")


@pytest.mark.parametrize(
    "text", ["xV*", "V*2", "V*s", "éV*", "e\u0301V*", "V*_", "сV*", "αV*", "V*Ａ"]
)
def test_letters_with_case_and_digits_do_not_touch_a_placeholder(text):
    with pytest.raises(PromptError, match="does not stand in"):
        placeholders_in(text, ["V*"])


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("Ｖ＊的照片", "person 的照片"), ("一张Ｖ*，微笑", "一张 person，微笑"),
        ("（V*）", "（person）"),
        ("「V*」と＜b＞", "「person」と dog"), ("V*。", "person。"), ("པར་V*གི", "པར་person གི"),
        ("V*'s", "person's"), ("(V*:1.2)", "(person:1.2)"),
    ],
)  # fmt: skip
def test_full_width_signs_count_as_the_plain_ones(text, replaced):
    assert replace_placeholders(text, {"V*": "person", "<b>": "dog"}) == replaced


def test_a_placeholder_of_letters_alone_stays_a_word_of_its_own():
    """安娜贝尔 is somebody else than 安娜."""
    with pytest.raises(PromptError, match="does not stand in"):
        placeholders_in("安娜贝尔的照片", ["安娜"])
    assert placeholders_in("照片 安娜，微笑", ["安娜"]) == ["安娜"]


@pytest.mark.parametrize(
    "name",
    [
        "con",
        "CON",
        "Nul",
        "aux.x",
        "COM1",
        "com0",
        "LPT9.txt",
        "lpt²",
        "PRN .a",
        "a.",
        " a",
        "a\tb",
    ],
)
def test_names_that_windows_keeps_for_itself_are_none(name):
    assert not is_plain_name(name)
    assert is_plain_name(f"x{name.strip('. ')}".replace("\t", ""))


def test_names_of_a_group_are_cleaned_once():
    one = Identity({"clip_l": torch.zeros(5, 2, 1, 4)})
    group = combine([one, one], [" <อันนา>\n", unicodedata.normalize("NFD", "<Zoë>")])
    assert [member.placeholder for member in group.members] == ["<อันนา>", "<Zoë>"]
    assert one.named(" <é>\n").placeholder == "<é>" and one.named(" \n").placeholder == "V*"
