"""Tests of a child's output: lines, limits and log events."""

import io
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from rt import log
from rt.log.stamp import now
from rt.log.throttle import Throttle
from rt.process import output as output_module
from rt.process.logpipe import LOG
from rt.process.output import MAX_LINE, TAIL, TEXT_LINES, ChildLog, LineSplitter, Output, log_line
from rt.protocol.logevent import CUT_MARKER


@pytest.fixture
def events() -> Iterator[list[Any]]:
    captured: list[Any] = []
    log.configure(stream=io.StringIO(), listener_level="debug")
    with log.listening(lambda event: captured.append(dict(event))):
        yield captured
    structlog.reset_defaults()


def split(*chunks: bytes) -> list[str]:
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    last = splitter.finish()
    return lines if last is None else [*lines, last]


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))),
    st.integers(1, 20),
)
def test_lines_do_not_depend_on_chunk_boundaries(lines: list[str], size: int) -> None:
    data = "".join(line + "\n" for line in lines).encode()
    assert split(*(data[at : at + size] for at in range(0, len(data), size))) == lines


def test_last_line_may_lack_a_line_break() -> None:
    assert split(b"one\ntwo") == ["one", "two"]


def test_crlf_ends_a_line() -> None:
    assert split(b"one\r\ntwo\r\n") == ["one", "two"]


def test_invalid_utf8_is_replaced() -> None:
    assert split(b"a\xffb\n") == ["a\N{REPLACEMENT CHARACTER}b"]


@pytest.mark.parametrize("size", [1000, 100_000, 1_000_000])
def test_overlong_line_is_cut_and_marked_and_the_next_is_complete(size: int) -> None:
    data = b"x" * 300_000 + b"\nnext\n"
    assert split(*(data[at : at + size] for at in range(0, len(data), size))) == [
        "x" * MAX_LINE + CUT_MARKER,
        "next",
    ]


def test_line_of_maximum_length_is_complete() -> None:
    assert split(b"x" * MAX_LINE + b"\n") == ["x" * MAX_LINE]


async def test_stream_is_read_to_its_end_and_its_tail_is_kept() -> None:
    lines: list[tuple[str, str, str]] = []
    output = Output("kid", lambda *line: lines.append(line))
    send, receive = trio.testing.memory_stream_one_way_pair()
    await send.send_all(b"y" * TAIL + b"\nthe end")
    await send.aclose()
    await output.drain(receive, "stderr")
    assert lines == [("kid", "stderr", "y" * TAIL), ("kid", "stderr", "the end")]
    assert output.tail == "y" * (TAIL - 8) + "\nthe end"


async def test_cancelled_reader_delivers_the_incomplete_line() -> None:
    lines: list[str] = []
    output = Output("kid", lambda _child, _stream, line: lines.append(line))
    send, receive = trio.testing.memory_stream_one_way_pair()
    await send.send_all(b"half a li")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.drain, receive, "stdout")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert lines == ["half a li"]


async def test_many_lines_at_once_let_other_tasks_run() -> None:
    turns = 0
    seen: list[int] = []

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    send, receive = trio.testing.memory_stream_one_way_pair()
    await send.send_all(b"\n" * 8000)
    await send.aclose()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await Output("kid", lambda *_line: seen.append(turns)).drain(receive, "stdout")
        nursery.cancel_scope.cancel()
    assert len(seen) == 8000
    assert len(set(seen)) > 100


def test_event_on_the_log_pipe_keeps_its_context(events: list[Any]) -> None:
    stamp = now()
    line = {"event": "device found", "level": "warning", "timestamp": stamp, "uid": 5}
    log_line("device", LOG, json.dumps(line))
    (event,) = events
    assert event == {
        "event": "device found",
        "level": "warning",
        "uid": 5,
        "app": "device",
        "child": "device",
        "timestamp": stamp,
    }


FORGED = {
    "event": "robot ready",
    "level": "critical",
    "app": "root",
    "child": "root",
    "pid": 1,
    "instance": "another",
    "seq": 5,
    "clock_moved": 3600.0,
}


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_json_on_stdout_is_text(events: list[Any], stream: str) -> None:
    line = json.dumps(FORGED)
    log_line("executor", stream, line)
    (event,) = events
    del event["timestamp"]
    assert event == {
        "event": line,
        "level": "info",
        "app": "executor",
        "child": "executor",
        "stream": stream,
    }


@pytest.mark.parametrize("app", ["root", "device", "", 5, None])
def test_event_on_the_log_pipe_cannot_claim_another_origin(events: list[Any], app: object) -> None:
    ChildLog("executor", 77).line("executor", LOG, json.dumps({**FORGED, "app": app}))
    (event,) = events
    assert event["level"] == "critical"
    assert (event["app"], event["child"], event["pid"]) == ("executor", "executor", 77)
    assert not event.keys() & {"seq", "clock_moved", "instance"}


@pytest.mark.parametrize(
    "stamp", ["2024-01-01T00:00:00Z", "2124-01-01T00:00:00Z", "2024-99-99T00:00:00Z", 5, None]
)
def test_timestamp_far_from_the_clock_is_replaced(events: list[Any], stamp: object) -> None:
    log_line("executor", LOG, json.dumps({**FORGED, "timestamp": stamp}))
    (event,) = events
    assert event["timestamp"][:4] == now()[:4] != "2024"


def test_flood_on_one_stream_is_limited_and_spares_the_others(events: list[Any]) -> None:
    lines = ChildLog("executor", 77)
    for number in range(20_000):
        lines.line("executor", "stdout", f"line {number}")
        if number % 1000 == 0:
            lines.line("executor", LOG, '{"event": "mode began", "level": "info"}')
    lines.flush(always=True)
    logged = [event for event in events if "stream" in event]
    assert TEXT_LINES.burst <= len(logged) < 10_000
    assert len([event for event in events if event["event"] == "mode began"]) == 20
    suppressed = sum(event.get("suppressed", 0) for event in events)
    assert len(logged) + suppressed == 20_000


def test_flood_of_bytes_is_limited(events: list[Any]) -> None:
    lines = ChildLog("executor", 77)
    for _ in range(1000):
        lines.line("executor", "stderr", "x" * 60_000)
    assert len(events) < 100


async def test_suppressed_lines_are_reported_while_the_child_is_silent(events: list[Any]) -> None:
    output = Output("kid", log_line)
    send, receive = trio.testing.memory_stream_one_way_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.drain, receive, "stdout")
        await send.send_all(b"hello\n" * 5000)
        await until(
            lambda: sum(event.get("suppressed", 0) for event in events) + 1000 >= 5000 - 500
        )
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("stream", ["stderr", LOG])
@pytest.mark.parametrize(
    "line",
    [
        "hello",
        "{not json",
        '{"event": "no level"}',
        '{"event": 5, "level": "info"}',
        "[1]",
        "{" * 5000,
        '{"a": 1e999}',
    ],
)
def test_any_other_line_is_text(events: list[Any], line: str, stream: str) -> None:
    log_line("executor", stream, line)
    (event,) = events
    del event["timestamp"]
    assert event == {
        "event": line,
        "level": "info",
        "app": "executor",
        "child": "executor",
        "stream": stream,
    }


@pytest.mark.parametrize("field", ["self", "event_", "_event", "exc_info", "logger", "child"])
def test_reserved_field_of_a_child_is_no_error(events: list[Any], field: str) -> None:
    log_line("executor", LOG, json.dumps({"event": "x", "level": "info", field: "y"}))
    assert len(events) == 1
    assert events[0]["child"] == "executor"


def test_empty_lines_are_skipped(events: list[Any]) -> None:
    log_line("executor", "stdout", "  ")
    assert not events


def stall(func: str) -> bytes:
    """Return the dump that a process writes when a team function blocks its event loop."""
    return (
        "Timeout (0:00:00.750000)!\nThread 0x00007fca741a56c0 (most recent call first):\n"
        f'  File "/home/team/robot.py", line 2 in {func}\n'
    ).encode()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


async def send_dump(send: trio.abc.SendStream, output: Output, func: str) -> None:
    """Send a dump and wait until it is complete."""
    child_log = output._log
    assert child_log is not None
    await send.send_all(stall(func))
    await trio.testing.wait_all_tasks_blocked()
    await until(lambda: not child_log._dump.active)


def stalled_functions(events: list[Any]) -> list[str]:
    return [event["func"] for event in events if "func" in event]


async def test_newest_suppressed_stall_is_logged_while_the_process_runs(
    events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_module, "Throttle", lambda: Throttle(burst=1, interval=0.3))
    send, receive = trio.testing.memory_stream_one_way_pair()
    output = Output("executor", log_line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.drain, receive, LOG)
        for func in ("first", "second", "third"):
            await send_dump(send, output, func)
        await until(lambda: stalled_functions(events) == ["first", "third"])
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
        nursery.cancel_scope.cancel()


async def test_newest_suppressed_stall_is_logged_when_the_process_ends(events: list[Any]) -> None:
    send, receive = trio.testing.memory_stream_one_way_pair()
    output = Output("executor", log_line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.drain, receive, LOG)
        for number in range(10):
            await send_dump(send, output, f"number_{number}")
        await send.aclose()
    assert stalled_functions(events) == [*(f"number_{number}" for number in range(5)), "number_9"]
