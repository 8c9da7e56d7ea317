"""The task that writes the log file: the root never waits, and losses are reported."""

import functools
import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from rt import log
from rt.config import Config
from rt.logs.file import LogFile
from rt.logs.file_writer import LogFileWriter

DEADLINE = 10.0


@pytest.fixture(autouse=True)
def output() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    log.configure(stream=stream, app="root")
    yield stream
    structlog.reset_defaults()


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(DEADLINE):
        while not condition():  # noqa: ASYNC110 - a file sends no events
            await trio.sleep(0.01)


async def test_every_event_is_written_including_the_last(tmp_path: Path) -> None:
    path = tmp_path / "robot.log"
    async with trio.open_nursery() as nursery:
        await nursery.start(LogFileWriter(LogFile(path, 100_000, 2)).run)
        log.get_logger().info("first")
        await until(path.exists)
        for number in range(50):
            log.get_logger().info("many", number=number)
        log.get_logger().info("last")
        nursery.cancel_scope.cancel()
    assert [event["event"] for event in events(path)] == ["first", *["many"] * 50, "last"]


async def test_failure_is_logged_once_and_its_end_with_the_lost_lines(
    tmp_path: Path, output: io.StringIO
) -> None:
    class Disk(LogFile):
        full = True

        def write(self, lines: Sequence[bytes]) -> int:
            if self.full:
                self.error = OSError(28, "No space left on device")
                return 0
            return super().write(lines)

    disk = Disk(tmp_path / "robot.log", 100_000, 2)
    writer = LogFileWriter(disk, retry_interval=0.01)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        for lost in range(3):
            log.get_logger().info("lost")
            await until(functools.partial(lambda least: writer.lost >= least, lost + 1))
        disk.full = False
        log.get_logger().info("kept")
        await until(lambda: "log file lines lost" in output.getvalue())
        nursery.cancel_scope.cancel()
    assert output.getvalue().count("log file not writable") == 1
    kept = events(disk.path)
    assert "kept" in [event["event"] for event in kept]
    assert kept[-1]["lost"] == writer.lost >= 3


async def test_hanging_disk_blocks_neither_logging_nor_cancellation(tmp_path: Path) -> None:
    release = threading.Event()
    hangs = threading.Event()

    class Disk(LogFile):
        def write(self, lines: Sequence[bytes]) -> int:
            hangs.set()
            release.wait()
            return len(lines)

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(LogFileWriter(Disk(tmp_path / "robot.log", 100_000, 2)).run)
            log.get_logger().info("first")
            await until(hangs.is_set)
            for _ in range(1000):
                log.get_logger().info("x" * 10_000)
            nursery.cancel_scope.cancel()
    release.set()


def test_empty_log_file_means_no_writer(tmp_path: Path) -> None:
    assert LogFileWriter.of(Config(log_file="")) is None


async def test_flood_of_prints_does_not_displace_events_of_the_robot(
    tmp_path: Path, output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LogFile(tmp_path / "robot.log", 20_000, 5)
    writer = LogFileWriter(file)
    flood = [
        {
            "event": "spam",
            "level": "info",
            "app": "executor",
            "child": "executor",
            "source": "print",
        },
        {
            "event": "spam",
            "level": "info",
            "app": "executor",
            "child": "executor",
            "stream": "stdout",
        },
        {"event": "spam", "level": "critical", "app": "executor", "child": "executor"},
        {"event": "spam", "level": "info", "app": "camera", "via": "hub"},
    ]
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        log.get_logger().info("first")
        for number in range(3000):
            for event in flood:
                log.relay({**event, "number": number})
            if number % 300 == 0:
                log.get_logger().info("own", number=number)
                await trio.lowlevel.checkpoint()
        log.get_logger().info("last")
        await until(lambda: "log file share exceeded" in output.getvalue())
        nursery.cancel_scope.cancel()
    paths = [file.path, *(tmp_path / f"robot.log.{number}" for number in range(1, 5))]
    kept = [event for path in paths if path.exists() for event in events(path)]
    assert {"first", "last"} <= {event["event"] for event in kept}
    assert len([event for event in kept if event["event"] == "own"]) == 10
    spam = [event for event in kept if event["event"] == "spam"]
    assert {event.get("source", event.get("stream", event["app"])) for event in spam} == {
        "print",
        "stdout",
        "executor",
        "camera",
    }
    reports = [event for event in kept if event["event"] == "log file share exceeded"]
    assert {event["writer"] for event in reports} <= {
        "team prints",
        "team process",
        "other programs",
    }
    assert sum(path.stat().st_size for path in paths if path.exists()) < 0.4 * file.total_max_bytes
