"""Serial ports come and go; the robot keeps up and leaks nothing."""

import errno
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from support.device_robot import Board, Robot, make_board

from rt.buffer import DeviceBuffer, segment
from rt.emulator.lines import serve_pty
from rt.link.link import Link, StreamLink
from rt.link.serial import SerialLink
from rt.protocol.message import DevWrite, SubReq
from rt.serialports.observer import PollingObserver
from rt.serialports.port_state import PortChange
from rt.serialports.ports import keep_ports_open


async def plug(robot: Robot, board: Board, path: Path) -> trio.CancelScope:
    """Plug a board in; cancelling the returned scope unplugs it."""
    scope = trio.CancelScope()

    async def run(task_status: trio.TaskStatus[None]) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_pty, board.device, path)
                task_status.started()

    await robot.nursery.start(run)
    return scope


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def segments(prefix: str) -> set[str]:
    return set(segment.names(prefix))


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def logged(
    events: Sequence[MutableMapping[str, Any]], words: str
) -> list[MutableMapping[str, Any]]:
    return [event for event in events if words in event["event"]]


async def gone(robot: Robot) -> None:
    with trio.fail_after(30):
        while robot.manager.devices:  # noqa: ASYNC110
            await trio.sleep(0.002)


async def test_unplugged_board_is_found_again(robot: Robot, tmp_path: Path) -> None:
    port = tmp_path / "ttyACM0"
    robot.nursery.start_soon(
        robot.manager.open_serial_devices, PollingObserver([f"{tmp_path}/ttyACM*"], interval=0.02)
    )
    robot.nursery.start_soon(robot.keep_lease)
    fds = 0
    for turn in range(6):
        board = make_board("polar-bear")
        scope = await plug(robot, board, port)
        await board.receives(SubReq)
        buffer = robot.buffer_of(board)
        buffer.write("duty_cycle", 0.5)
        await board.receives(DevWrite)
        scope.cancel()
        await gone(robot)
        assert not buffer.valid
        if turn == 1:
            fds = open_files()
    assert open_files() <= fds


async def test_a_hundred_replugs_leak_nothing(robot: Robot, tmp_path: Path, prefix: str) -> None:
    robot.nursery.start_soon(
        robot.manager.open_serial_devices, PollingObserver([f"{tmp_path}/ttyACM*"], interval=0.01)
    )
    await trio.testing.wait_all_tasks_blocked()
    without_a_board = tasks()
    board = make_board("limit-switch")
    first: DeviceBuffer | None = None
    before: tuple[int, set[str]] | None = None
    for turn in range(101):
        board.received.clear()
        scope = await plug(robot, board, tmp_path / "ttyACM0")
        await board.receives(SubReq)
        buffer = robot.buffer_of(board)
        first = first or buffer
        assert buffer is first
        assert buffer.valid
        scope.cancel()
        await gone(robot)
        if turn % 2:  # it is back before its absence was noticed
            continue
        with trio.fail_after(30):
            while tasks() > without_a_board:  # noqa: ASYNC110
                await trio.sleep(0.002)
        before = before or (open_files(), segments(prefix))
        assert open_files() <= before[0]
        assert segments(prefix) == before[1]
    assert first is robot.buffer_of(board)


HOLD = """
import fcntl, os, sys
port = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
fcntl.flock(port, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


async def test_held_port_is_logged_once_with_its_holder(robot: Robot, tmp_path: Path) -> None:
    port = tmp_path / "ttyACM0"
    board = make_board("limit-switch")
    await plug(robot, board, port)
    with (
        capture_logs() as events,
        subprocess.Popen(  # noqa: ASYNC220 - an awaited one would be the test's own child task
            [sys.executable, "-c", HOLD, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other,
    ):
        assert other.stdin
        assert other.stdout
        other.stdout.readline()
        robot.nursery.start_soon(
            robot.manager.open_serial_devices, PollingObserver([str(port)], interval=0.02)
        )
        with trio.fail_after(30):
            while not logged(events, "cannot open serial port"):  # noqa: ASYNC110
                await trio.sleep(0.01)
        other.stdin.close()
        await board.receives(SubReq)
    (event,) = logged(events, "cannot open serial port")
    assert event["port"] == str(port)
    assert f"(process {other.pid}) has it open" in event["remedy"]
    assert len(logged(events, "serial port opened")) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
async def test_port_without_permission_is_logged_with_remedy(robot: Robot, tmp_path: Path) -> None:
    port = tmp_path / "ttyACM0"
    port.touch(mode=0)
    with capture_logs() as events:
        robot.nursery.start_soon(
            robot.manager.open_serial_devices, PollingObserver([str(port)], interval=0.02)
        )
        await trio.sleep(0.5)
    (event,) = logged(events, "cannot open serial port")
    assert "sudo usermod -aG " in event["remedy"]


class Port:
    """A port whose attempts to open fail as a test requires; records the times of the attempts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: int | None = None
        self.tries: list[float] = []
        self.ends = trio.Event()
        self.send, self._changes = trio.open_memory_channel[PortChange](10)
        monkeypatch.setattr(SerialLink, "open", self._open)

    async def _open(self, port: str, **_: object) -> Link:
        self.tries.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error), port)
        stream = trio.testing.memory_stream_pair()[0]
        return StreamLink(stream, port)

    async def run(self, link: Link) -> bool:
        """Run as a device until the test ends it or it vanishes; then closing takes a while."""
        try:
            await self.ends.wait()
            return True
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
                await link.aclose()

    async def changes(self) -> AsyncIterator[PortChange]:
        yield PortChange(appeared=frozenset({NAME}))
        async for change in self._changes:
            yield change


NAME = "/dev/ttyACM7"
NAMES = frozenset({NAME})


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery) -> Port:
    port = Port(monkeypatch)
    nursery.start_soon(keep_ports_open, port.changes(), port.run)
    return port


async def test_attempts_back_off_to_five_seconds(
    port: Port, autojump_clock: trio.testing.MockClock
) -> None:
    port.error = errno.EBUSY
    await trio.sleep(60)
    pauses = [after - before for before, after in itertools.pairwise(port.tries)]
    assert pauses[:3] == pytest.approx([0.05, 0.1, 0.2])
    assert pauses[-3:] == pytest.approx([5, 5, 5])


async def test_announced_port_is_tried_at_once_but_not_in_bursts(
    port: Port, autojump_clock: trio.testing.MockClock
) -> None:
    port.error = errno.EACCES
    await trio.sleep(60)
    count = len(port.tries)
    announced = trio.current_time()
    for _ in range(10):
        port.send.send_nowait(PortChange(announced=NAMES))
    await trio.sleep(0.01)
    assert port.tries[count:] == pytest.approx([announced])
    port.send.send_nowait(PortChange(announced=NAMES))
    await trio.sleep(0.02)
    assert port.tries[count:] == pytest.approx([announced, announced + 0.02])


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EBUSY, errno.ENXIO, errno.ENOENT, errno.EIO, errno.EINVAL]
)
async def test_each_open_error_and_its_end_are_logged_once(
    port: Port, autojump_clock: trio.testing.MockClock, number: int
) -> None:
    with capture_logs() as events:
        port.error = number
        await trio.sleep(30)
        port.error = None
        await trio.sleep(30)
    failed, opened = events
    assert (failed["event"], failed["port"]) == ("cannot open serial port", NAME)
    assert failed["reason"] == os.strerror(number)
    assert failed["remedy"]
    assert opened["event"] == "serial port opened"


async def test_vanishing_port_is_not_logged(
    port: Port, autojump_clock: trio.testing.MockClock
) -> None:
    with capture_logs() as events:
        await trio.sleep(10)
        port.error = errno.ENOENT
        port.ends.set()
        await trio.sleep(0.5)
        port.send.send_nowait(PortChange(vanished=NAMES))
        await trio.sleep(10)
    assert events == []


async def test_replugged_port_is_opened_after_it_was_closed(
    port: Port, autojump_clock: trio.testing.MockClock
) -> None:
    await trio.sleep(10)
    port.send.send_nowait(PortChange(vanished=NAMES, appeared=NAMES))
    start = trio.current_time()
    await trio.sleep(10)
    assert port.tries[1:] == pytest.approx([start + 0.05])
