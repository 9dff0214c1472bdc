"""The sentences an artist can meet: the page is the code's, and each is one that helps."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))
try:
    from benchmarks.messages import PAGE, messages, page
finally:
    sys.path.remove(str(ROOT))

MESSAGES = messages()


def words(text):
    return re.sub(r"[^a-z ]+", " ", text.lower()).split()


SAID = " ".join(words("".join(p.read_text() for p in sorted((ROOT / "tests").rglob("*.py")))))


def test_the_page_is_what_the_code_says():
    assert PAGE.read_text() == page(), "run: python -m benchmarks.messages"
    assert len(MESSAGES) > 40


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.text[:50])
def test_each_is_one_sentence_that_says_what_to_do(message):
    text = message.text
    assert text.endswith(".") and "\n" not in text and "; " in text
    assert not re.search(r"[Tt]raceback|torch\.|Size\(|Exception|object at", text)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.text[:50])
def test_each_is_met_in_a_test(message):
    """Two or three words of it in a row stand in one."""
    parts = [words(part) for part in re.split(r"<[^>]*>", message.text)]
    runs = [" ".join(p[i : i + n]) for p in parts for n in (2, 3) for i in range(len(p) - n + 1)]
    assert any(run in SAID for run in runs if len(run) >= 10), message
