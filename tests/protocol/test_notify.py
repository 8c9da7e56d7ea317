"""Tests of sd_notify datagrams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.protocol import notify
from rt.protocol.notify import MAX_STATUS, Notice

NOTICES = st.builds(
    Notice,
    ready=st.booleans(),
    stopping=st.booleans(),
    watchdog=st.just(False),
    trouble=st.booleans(),
    status=st.none()
    | st.text(
        st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=MAX_STATUS
    ),
    errno=st.none() | st.integers(0, 4095),
    mainpid=st.none() | st.integers(1, 2**22),
    extend=st.none() | st.integers(0, 10**9).map(lambda ms: ms / 1e3),
)


@pytest.mark.parametrize(
    ("datagram", "notice"),
    [
        (b"READY=1", Notice(ready=True)),
        (b"READY=1\nSTATUS=3 devices\n", Notice(ready=True, status="3 devices")),
        (b"WATCHDOG=1", Notice(watchdog=True)),
        (b"WATCHDOG=trigger", Notice(trouble=True)),
        (b"STOPPING=1\nERRNO=2", Notice(stopping=True, errno=2)),
        (b"MAINPID=4711", Notice(mainpid=4711)),
        (b"EXTEND_TIMEOUT_USEC=1500000", Notice(extend=1.5)),
        (b"STATUS=a=b", Notice(status="a=b")),
        (b"STATUS=one\nSTATUS=two", Notice(status="two")),
    ],
)
def test_known_lines_are_parsed(datagram: bytes, notice: Notice) -> None:
    assert notify.parse(datagram) == notice


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\n\n",
        b"READY",
        b"READY=0",
        b"ready=1",
        b"FDSTORE=1",
        b"ERRNO=-1",
        b"MAINPID=1_0",
        b"MAINPID=" + b"9" * 5000,
    ],
)
def test_unknown_lines_are_ignored(datagram: bytes) -> None:
    assert notify.parse(datagram) == Notice()


def test_long_status_in_any_encoding_is_truncated() -> None:
    assert notify.parse(
        b"STATUS=\xff" + b"x" * 5000
    ).status == "\N{REPLACEMENT CHARACTER}" + "x" * (MAX_STATUS - 1)


def test_line_break_in_a_status_adds_no_line() -> None:
    datagram = notify.format(Notice(status="calm\nREADY=1"))
    assert notify.parse(datagram) == Notice(status="calm READY=1")


@given(NOTICES)
def test_notice_round_trips(notice: Notice) -> None:
    assert notify.parse(notify.format(notice)) == notice


@given(st.binary(max_size=200))
def test_no_datagram_raises_an_error(datagram: bytes) -> None:
    notify.parse(datagram)
