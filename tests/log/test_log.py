import json
from pathlib import Path

import pytest
import trio

from rt import log


def test_an_event_is_one_json_line_with_its_context(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(level="info", fmt="json", stream=stream, app="device")
        log.get_logger(port="/dev/ttyACM0").info("the device is connected", uid="5")
        log.get_logger().debug("nobody reads this")
    (line,) = path.read_text().splitlines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "the device is connected",
        "level": "info",
        "app": "device",
        "port": "/dev/ttyACM0",
        "uid": "5",
    }


def test_an_exception_is_data_of_its_event(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(stream=stream)
        try:
            1 / 0  # noqa: B018 - for its error
        except ZeroDivisionError:
            log.get_logger().error("it failed", exc_info=True)
    raised = json.loads(path.read_text())["exception"]
    assert (raised["type"], raised["message"]) == ("ZeroDivisionError", "division by zero")
    assert raised["frames"][-1]["func"] == "test_an_exception_is_data_of_its_event"


def test_an_event_of_a_child_keeps_its_level_time_and_maker(tmp_path: Path) -> None:
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


def test_a_person_reads_the_time_the_level_and_the_sentence(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(fmt="pretty", stream=stream)
        log.get_logger().warning("the gamepad is silent", gamepad=0)
    text = path.read_text()
    assert "warning" in text
    assert "the gamepad is silent" in text
    assert "gamepad=0" in text


def test_not_a_number_is_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(stream=stream)
        log.get_logger().info("odd", value=float("nan"), values=[float("inf"), 1.5])
    event = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert event["value"] == "nan"
    assert event["values"] == ["inf", 1.5]


def test_a_person_is_spared_what_only_programs_need(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(fmt="pretty", stream=stream, app="root")
        log.get_logger().info(
            "child is ready", child="device", reason="ready", pid=5, names=["a", "b"]
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
    ready, said = path.read_text().splitlines()
    assert "child=device" in ready
    assert "a, b" in ready
    assert not any(word in ready for word in ("pid", "app=", "reason"))
    assert said.endswith("print | hello team")


def test_a_tap_sees_what_is_not_written_and_is_gone_after_its_block(tmp_path: Path) -> None:
    seen: list[str] = []
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(level="warning", listener_level="info", stream=stream, app="root")
        with log.listening(lambda event: seen.append(event["event"])):
            log.get_logger().debug("nobody wants this")
            log.get_logger().info("only the tap")
            log.relay({"event": "of a child", "level": "info"})
            log.relay({"event": "too little", "level": "debug"})
            log.get_logger().error("both")
        log.get_logger().error("only the file")
    assert seen == ["only the tap", "of a child", "both"]
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == [
        "both",
        "only the file",
    ]


async def test_what_a_task_logs_carries_what_is_bound_to_it(tmp_path: Path) -> None:
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


def test_a_relayed_event_of_no_known_level_or_time_is_one_of_now(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        log.configure(stream=stream, app="root", pid=1, instance="red")
        log.relay({"event": 5, "level": "loud", "timestamp": "soon", "self": "no trouble"})
    event = json.loads(path.read_text())
    assert event.pop("timestamp") > "2026"
    assert event == {"event": "5", "level": "info", "instance": "red", "self": "no trouble"}


def test_a_person_reads_when_the_team_printed_and_where_an_error_came_from(tmp_path: Path) -> None:
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
