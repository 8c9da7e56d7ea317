"""Events of a process and relayed events, as they are written and as listeners receive them."""

import json
from pathlib import Path

import pytest
import trio

from rt import log


def test_event_is_one_json_line_with_its_context(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(level="info", fmt="json", stream=stream, app="device")
        log.get_logger(port="/dev/ttyACM0").info("device connected", uid="5")
        log.get_logger().debug("below the level")
    (line,) = path.read_text().splitlines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "device connected",
        "level": "info",
        "app": "device",
        "port": "/dev/ttyACM0",
        "uid": "5",
    }


def test_exception_is_data_of_its_event(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(stream=stream)
        try:
            1 / 0  # noqa: B018 - for its error
        except ZeroDivisionError:
            log.get_logger().error("it failed", exc_info=True)
    raised = json.loads(path.read_text())["exception"]
    assert (raised["type"], raised["message"]) == ("ZeroDivisionError", "division by zero")
    assert raised["frames"][-1]["func"] == "test_exception_is_data_of_its_event"


def test_relayed_event_keeps_its_level_time_and_app(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(stream=stream, app="root")
        log.relay(
            {
                "event": "hello",
                "level": "warning",
                "app": "device",
                "timestamp": "2026-01-01T00:00:00Z",
            }
        )
    assert json.loads(path.read_text()) == {
        "event": "hello",
        "level": "warning",
        "app": "device",
        "timestamp": "2026-01-01T00:00:00Z",
    }


def test_pretty_line_contains_level_text_and_context(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(fmt="pretty", stream=stream)
        log.get_logger().warning("gamepad silent", gamepad=0)
    text = path.read_text()
    assert "warning" in text
    assert "gamepad silent" in text
    assert "gamepad=0" in text


def test_non_finite_numbers_are_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(stream=stream)
        log.get_logger().info("odd", value=float("nan"), values=[float("inf"), 1.5])
    event = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert event["value"] == "nan"
    assert event["values"] == ["inf", 1.5]


def test_pretty_line_omits_fields_for_programs(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(fmt="pretty", stream=stream, app="root")
        log.get_logger().info(
            "child ready", child="device", reason="ready", pid=5, names=["a", "b"]
        )
        log.relay(
            {
                "event": "hello team",
                "level": "info",
                "app": "executor",
                "child": "executor",
                "source": "print",
            }
        )
    ready, printed = path.read_text().splitlines()
    assert "child=device" in ready
    assert "a, b" in ready
    assert not any(word in ready for word in ("pid", "app=", "reason"))
    assert printed.endswith("print | hello team")


def test_listener_receives_its_levels_until_the_end_of_its_block(tmp_path: Path) -> None:
    seen: list[str] = []
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(level="warning", listener_level="info", stream=stream, app="root")
        with log.listening(lambda event: seen.append(event["event"])):
            log.get_logger().debug("below both levels")
            log.get_logger().info("only the listener")
            log.relay({"event": "of a child", "level": "info"})
            log.relay({"event": "below both levels", "level": "debug"})
            log.get_logger().error("both")
        log.get_logger().error("only the file")
    assert seen == ["only the listener", "of a child", "both"]
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == [
        "both",
        "only the file",
    ]


async def test_events_of_a_task_carry_its_bound_context(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(stream=stream)

        async def act(name: str) -> None:
            with log.bound(action=name):
                await trio.lowlevel.checkpoint()
                log.get_logger().info("acting", own=name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(act, "wave")
            nursery.start_soon(act, "turn")
        log.get_logger().info("over")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(event.get("action") == event.get("own") for event in events)
    assert {event.get("action") for event in events} == {"wave", "turn", None}


def test_relayed_event_without_valid_level_or_time_gets_both(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(stream=stream, app="root", pid=1, instance="red")
        log.relay({"event": 5, "level": "loud", "timestamp": "soon", "self": "no trouble"})
    event = json.loads(path.read_text())
    assert event.pop("timestamp") > "2026"
    assert event == {"event": "5", "level": "info", "instance": "red", "self": "no trouble"}


def test_pretty_line_shows_print_time_and_exception(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(fmt="pretty", stream=stream)
        log.get_logger().info("hello", source="print", mode="auto", clock=1.5)
        log.get_logger().info("mode began", mode="teleop", code="studentcode.py")
        try:
            1 / 0  # noqa: B018 - for its error
        except ZeroDivisionError:
            log.get_logger().exception("it failed")
    text = path.read_text()
    assert "print | auto 1.50 s | hello" in text
    assert "mode=teleop" in text
    assert "ZeroDivisionError: division by zero" in text
