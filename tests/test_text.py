"""Tests of suggestions and short forms: correct for typos, bounded for hostile input."""

import difflib
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt import text

names = st.lists(st.text(max_size=text.COMPARED_MAX), max_size=20)


class CountingMatcher(difflib.SequenceMatcher[str]):
    """Counts the comparisons and their longest text."""

    compared = 0
    longest = 0

    def set_seq1(self, a: Sequence[str]) -> None:
        type(self).compared += 1
        type(self).longest = max(self.longest, len(a))
        super().set_seq1(a)

    def set_seq2(self, b: Sequence[str]) -> None:
        type(self).longest = max(self.longest, len(b))
        super().set_seq2(b)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[CountingMatcher]]:
    monkeypatch.setattr(difflib, "SequenceMatcher", CountingMatcher)
    yield CountingMatcher
    CountingMatcher.compared = CountingMatcher.longest = 0


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("left_moter", "left_motor"),
        ("LEFT_MOTOR", "left_motor"),
        ("lift_motr", "left_motor"),
        ("arm", "Arm"),
        ("x", None),
    ],
)
def test_most_similar_name_is_suggested(word: str, found: str | None) -> None:
    assert text.closest(word, ["right_motor", "left_motor", "Arm"]) == found


@given(st.text(max_size=text.COMPARED_MAX), names)
def test_suggestion_reaches_the_cutoff_if_a_known_name_does(word: str, known: list[str]) -> None:
    def similarity(name: str) -> float:
        return difflib.SequenceMatcher(None, name.lower(), word.lower()).ratio()

    found = text.closest(word, known, cutoff=0.7)
    if found is None:
        # The lower-case form may be longer, so that it is compared only in part.
        assert all(similarity(each) < 0.7 or len(each.lower()) != len(each) for each in known)
    else:
        assert found in known


@pytest.mark.parametrize(
    "word", ["x" * 900_000, "left_motor" * 90_000, "\U0001f600" * 100_000, "", "\x1b" * 5000]
)
def test_cost_of_a_suggestion_is_bounded(word: str, counted: type[CountingMatcher]) -> None:
    text.closest(word, [f"left_motor_{index}{'x' * (index % 50)}" for index in range(100_000)])
    assert counted.compared <= text.WORDS_MAX + 5
    assert counted.longest <= text.COMPARED_MAX


@pytest.mark.parametrize(
    "value",
    [
        "x" * 900_000,
        b"x" * 900_000,
        [1] * 100_000,
        {str(n): n for n in range(9000)},
        ["\x1b" * 9000] * 900,
        2**64 - 1,
    ],
)
def test_quoted_value_is_short_and_printable(value: object) -> None:
    quoted = text.quote(value)
    assert len(quoted) <= 4 * text.WORD_MAX + 3
    assert quoted.isprintable()


@given(st.text())
def test_clipped_text_is_printable_and_short_text_is_unchanged(word: str) -> None:
    clipped = text.clip(word)
    assert clipped.isprintable()
    assert len(clipped) <= 10 * text.WORD_MAX + 3
    if word.isprintable() and len(word) <= text.WORD_MAX:
        assert clipped == word


def test_long_list_of_names_ends_with_the_number_of_the_others() -> None:
    assert text.listed(["a", "b"]) == "a, b"
    assert text.listed(map(str, range(1000))).endswith("18, 19 and 980 more")
