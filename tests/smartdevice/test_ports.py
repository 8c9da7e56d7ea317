"""Serial ports come and go; the robot keeps up and leaks nothing."""

import os
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from support.device_robot import Board, Robot, make_board

from rt.protocol.message import DevWrite, SubReq
from rt.smartdevice.emulator import serve_pty
from rt.smartdevice.observer import PollingObserver


async def plug(robot: Robot, board: Board, path: Path) -> trio.CancelScope:
    """Plug a board in; the scope that is returned unplugs it."""
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


async def gone(robot: Robot) -> None:
    with trio.fail_after(10):
        while robot.manager.devices:  # noqa: ASYNC110
            await trio.sleep(0.002)


async def test_a_board_on_a_port_is_found_driven_unplugged_and_found_again(robot: Robot, tmp_path: Path) -> None:
    port = tmp_path / "ttyACM0"
    robot.nursery.start_soon(robot.manager.open_serial_devices, PollingObserver([f"{tmp_path}/ttyACM*"], interval=0.02))
    robot.nursery.start_soon(robot.keep_lease)
    fds = 0
    for turn in range(6):
        board = make_board("polar-bear")
        scope = await plug(robot, board, port)
        await board.hears(SubReq)
        buffer = robot.buffer_of(board)
        buffer.write("duty_cycle", 0.5)
        await board.hears(DevWrite)
        scope.cancel()
        await gone(robot)
        assert not buffer.valid
        if turn == 1:
            fds = open_files()
    assert open_files() <= fds


async def test_a_port_that_another_program_holds_is_told_of_once_with_a_remedy(robot: Robot, tmp_path: Path) -> None:
    import fcntl

    port = tmp_path / "ttyACM0"
    board = make_board("limit-switch")
    await plug(robot, board, port)
    other = os.open(port, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with capture_logs() as events:
        robot.nursery.start_soon(robot.manager.open_serial_devices, PollingObserver([str(port)], interval=0.02))
        await trio.sleep(0.5)
        os.close(other)
        await board.hears(SubReq)
    (event,) = [event for event in events if "cannot be opened" in event["event"]]
    assert event["port"] == str(port)
    assert "close the other program" in event["remedy"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
async def test_a_port_without_permission_is_told_of_with_a_remedy(robot: Robot, tmp_path: Path) -> None:
    port = tmp_path / "ttyACM0"
    port.touch(mode=0)
    with capture_logs() as events:
        robot.nursery.start_soon(robot.manager.open_serial_devices, PollingObserver([str(port)], interval=0.02))
        await trio.sleep(0.5)
    (event,) = [event for event in events if "cannot be opened" in event["event"]]
    assert "group" in event["remedy"]
