"""What training prompts say: chosen by the class word, lines, captions, and their mistakes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sefi_pack.sefi_core.errors import PromptError
from sefi_pack.sefi_core.prompts import FACES, training_prompt
from sefi_pack.sefi_core.training.wording import MOST_PROMPTS, Wording

FACE, THING = "a photo of the face of V*", "a photo of V*"


@pytest.mark.parametrize(
    ("class_word", "chosen"),
    [
        ("person", FACE), ("Old Man", FACE), ("little girl", FACE), ("face", FACE),
        ("dog", THING), ("snowman", THING), ("1girl", THING), ("man dog", THING),
        ("\u4eba", THING), ("\u043c\u0443\u0436\u0447\u0438\u043d\u0430", THING),
    ],
)  # fmt: skip
def test_an_empty_prompt_is_chosen_by_the_class_word_s_last_word(class_word, chosen):
    wording = Wording.read(class_word, "", "")
    assert wording.prompts == (chosen,)
    assert wording.recorded == {"prompt": chosen.replace("V*", "{}")}
    assert training_prompt(class_word) == chosen.replace("V*", class_word)


def test_what_is_chosen_and_what_is_written_out_are_one():
    for noun in sorted(FACES):
        assert Wording.read(noun, f"\n {FACE} \n\n", "\n") == Wording.read(noun, "", "")


WORDS = st.text("abc {}%é中", min_size=1, max_size=8).filter(lambda text: text.strip())
LINES = st.lists(WORDS.map(lambda word: f"{word} V* {word}"), min_size=1, max_size=5)
CAPTIONS = st.lists(WORDS | st.just("-"), min_size=1, max_size=6)


@given(LINES, CAPTIONS)
def test_every_line_stands_with_every_caption_and_pictures_find_theirs(lines, captions):
    wording = Wording.read("dog", "\n".join(lines), "\n\n".join(captions))
    places = wording.of_pictures(len(captions))
    assert len(places) == len(captions) and len(wording.prompts) <= len(lines) * len(captions)
    for place, caption in zip(places, captions, strict=True):
        for i, line in enumerate(wording.lines):
            said = wording.prompts[place * len(lines) + i]
            end = "" if caption == "-" else f", {caption.strip()}"
            assert " ".join(said.split()) == " ".join(f"{line}{end}".split())
    assert set(places) == set(range(len(wording.kinds)))
    templates = wording.recorded["prompt"]
    for line, each in zip(
        wording.lines, [templates] if len(lines) == 1 else templates, strict=True
    ):
        assert each.format("V*") == line


def test_one_caption_is_for_all_pictures_and_equal_ones_are_one():
    one = Wording.read("dog", "", "in a hat")
    assert one.of_pictures(3) == [0, 0, 0] and one.prompts == ("a photo of V*, in a hat",)
    same = Wording.read("dog", "", "in a hat\nin a hat")
    assert same.prompts == one.prompts and same.recorded == one.recorded
    own = Wording.read("dog", "", "in a hat\n-\nin a hat")
    assert own.of_pictures(3) == [0, 1, 0] and own.recorded["captions"] == [
        "in a hat",
        "",
        "in a hat",
    ]


WRONG = [
    ("V*\na dog", "", r'training_prompts: the line "a dog" lacks V\*; write it where'),
    ("a V*dog", "", "training_prompts: the line .* lacks"),
    ("a (V*:1.2)", "", "training_prompts: .* has weights in brackets, which a training does not"),
    ("V*, embedding:good", "", "training_prompts: .* has an embedding, which"),
    ("V* <|endoftext|>", "", "training_prompts: .* has a mark of the text encoder"),
    ("V* \ud800", "", "training_prompts: .* has signs that are no text; write it anew"),
    ("V*\n" * 65, "", "training_prompts: it has 65 lines; write 64 at most"),
    ("V* " + "x" * 2000, "", "training_prompts: a line has 2003 signs, which no text encoder"),
    ("", "with V*", r'caption: "with V\*" has "V\*", for which the training prompt stands already'),
    ("", "a big DOG", 'caption: "a big DOG" has "dog", for which'),
    ("", "a (red:1.3) hat", "caption: .* has weights in brackets"),
    ("", "embedding:bad", "caption: .* has an embedding"),
    ("", "(" * 3000, "caption: a line has 3000 signs"),
]  # fmt: skip


@pytest.mark.parametrize(("prompts", "caption", "said"), WRONG, ids=[w[2][:40] for w in WRONG])
def test_a_mistake_is_one_sentence(prompts, caption, said):
    with pytest.raises(PromptError, match=f"^{said}"):
        Wording.read("dog", prompts, caption)


def test_what_only_looks_like_a_mistake_is_taken():
    wording = Wording.read("dog", r"V* \(plush\), a :) smile", "dogged, hotdogs; a ( alone")
    assert wording.prompts == (r"V* \(plush\), a :) smile, dogged, hotdogs; a ( alone",)
    assert Wording.read("", "", "a dog").captions == ("a dog",)  # the word comes by a link


def test_captions_are_counted_against_the_pictures():
    with pytest.raises(PromptError, match=r"^caption: it has 2 lines for 3 pictures; write one"):
        Wording.read("dog", "", "a\nb").of_pictures(3)
    many = Wording.read("dog", "V*\n" * 60, "\n".join("abcdefgh"))
    with pytest.raises(PromptError, match="make 480 prompts; write fewer") as told:
        many.of_pictures(8)
    assert str(MOST_PROMPTS) in str(told.value)
