"""Rendering of events as text: every event is shown, and none affects the terminal."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt import log

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = [
    "timestamp",
    "app",
    "child",
    "reason",
    "exception",
    "exc_info",
    "stack",
    "logger",
    "clock",
    "mode",
    "source",
]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES) | st.text(), VALUES), st.text(), st.text())
def test_every_event_is_shown_without_control_characters(
    fields: dict[str, Any], event: str, level: str
) -> None:
    text = log.pretty(colors=False)({**fields, "event": event, "level": level})
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text if char not in "\n\t")


@pytest.mark.parametrize(
    "fields",
    [
        {"note": "\x1b]0;title\x07"},
        {"notes": ["\x1b[2J", "\x9b"]},
        {"\x1bname": 1},
        {"exception": {"type": "E", "message": "\x1b[2J"}},
        {"source": "print", "mode": "\x1b[2J", "clock": 1.0},
        {"timestamp": "yesterday, \x1b[2Jor so"},
    ],
)
def test_no_event_moves_the_cursor(fields: dict[str, Any]) -> None:
    text = log.pretty(colors=False)({"event": "gone\rover\x1b[2J", "level": "info", **fields})
    assert not any(char in text for char in "\x1b\r\x9b\x07")


def test_relayed_stack_and_traceback_are_shown_below_the_event(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(fmt="pretty", stream=stream)
        log.relay({"event": "odd", "level": "info", "stack": 5, "exc_info": "a traceback"})
    _event, *below = path.read_text().splitlines()
    assert "5" in below
    assert below[-1] == "a traceback"


def test_event_that_cannot_be_rendered_is_written_as_json(tmp_path: Path) -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd"

        __repr__ = None  # type: ignore[assignment]  # a mistake that a team may make

    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(fmt="pretty", stream=stream)
        log.get_logger().info("event", what=Odd())
    assert json.loads(path.read_text())["what"] == "odd"


def test_removed_working_directory_does_not_affect_rendering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(FileNotFoundError):
        Path.cwd()
    assert log.pretty(colors=False)({"event": "hello", "level": "info"}).endswith("hello")


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_used_only_on_terminals_that_want_them(
    environment: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    leader, follower = os.openpty()
    with open(leader, "rb"), open(follower, "w") as terminal:  # noqa: PTH123 - descriptors
        assert log.wants_colors(terminal) is wanted
    assert not log.wants_colors(io.StringIO())


@pytest.mark.parametrize(
    "fields",
    [{"event": "a\n12:40:06.566 root"}, {"source": "print"}, {"note": "a\n12:40:06.566 root"}],
)
def test_no_part_of_an_event_looks_like_another_event(fields: dict[str, Any]) -> None:
    event = {"event": "event\n12:40:06.566 root", "level": "info", **fields}
    _first, *others = log.pretty(colors=False)(event).splitlines()
    assert others
    assert all(line.startswith("    ") for line in others)


@pytest.mark.parametrize("char", ["\u202e", "\u2066", "\u200f", "\u2028", "\x9b", "\x7f"])
def test_no_character_changes_how_the_terminal_shows_other_text(char: str) -> None:
    text = log.pretty(colors=False)(
        {"event": f"a{char}b", "level": "info", "note": char, "source": "x"}
    )
    assert char not in text
