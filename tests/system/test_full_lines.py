"""A board with a full line receives DEV_DISABLE at any end of the robot; its port is then free."""

import fcntl
import os
import select
import signal
import tty
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest
import trio
from support.robot import PATIENCE, Robot, uid_of

from rt.smartdevice.sender import DISABLE_FRAME

pytestmark = pytest.mark.system

GARBAGE = b"\xaa"
SETTLED = 0.1
"""How long (s) a full line accepts no data."""


class Line:
    """A serial port of the robot whose board reads only when the test does."""

    def __init__(self, robot: Robot) -> None:
        self.board, self.port = os.openpty()
        tty.setraw(self.port)
        os.set_blocking(self.board, False)
        os.set_blocking(self.port, False)
        (robot.folder / f"tty{uid_of('polar-bear')}").symlink_to(os.ttyname(self.port))

    async def opened(self) -> None:
        """Wait until the device process has opened the port and disabled the board."""
        heard = b""
        with trio.fail_after(PATIENCE):
            while DISABLE_FRAME not in heard:
                await trio.lowlevel.wait_readable(self.board)
                heard += os.read(self.board, 65536)

    def fill(self) -> None:
        """Fill the line and all buffers of the kernel behind it."""
        while select.select([], [self.port], [], SETTLED)[1]:
            for size in (512, 1):
                with suppress(BlockingIOError):
                    while True:
                        os.write(self.port, GARBAGE * size)

    def last_heard(self) -> bytes:
        """Return what the board receives after the bytes that fill the line."""
        heard = b""
        while select.select([self.board], [], [], 0)[0]:
            heard += os.read(self.board, 65536)
        return heard.rpartition(GARBAGE)[2]

    def is_free(self) -> bool:
        """Return whether no process has the lock of the port."""
        with suppress(BlockingIOError):
            fcntl.flock(self.port, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False


@pytest.fixture
def line(robot: Robot) -> Iterator[Line]:
    made = Line(robot)
    yield made
    os.close(made.board)
    os.close(made.port)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def stop(robot: Robot, signum: int = signal.SIGTERM) -> None:
    os.kill(robot.root(), signum)


async def interrupt_twice(robot: Robot) -> None:
    await stop(robot, signal.SIGINT)
    await stop(robot, signal.SIGINT)


async def estop(robot: Robot) -> None:
    await robot.call("estop")


async def crash(robot: Robot) -> None:
    kill(robot.child("device"))
    await stop(robot)


async def crash_all(robot: Robot) -> None:
    device = robot.child("device")
    kill(robot.root())
    kill(device)


async def lose_the_root(robot: Robot) -> None:
    kill(robot.root())


async def lose_the_brake(robot: Robot) -> None:
    kill(robot.child("brake"))
    await stop(robot)


async def lose_the_device_process_while_it_stops(robot: Robot) -> None:
    device = robot.child("device")
    await stop(robot)
    await robot.logged("device process stopping")
    kill(device)


ENDS = [
    stop,
    interrupt_twice,
    estop,
    crash,
    crash_all,
    lose_the_root,
    lose_the_brake,
    lose_the_device_process_while_it_stops,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_board_with_a_full_line_is_disabled_at_any_end(
    robot: Robot, line: Line, end: Callable[[Robot], Awaitable[None]]
) -> None:
    await robot.start()
    await line.opened()
    line.fill()
    await end(robot)
    await robot.wait_all_exited()
    await robot.wait()
    assert line.is_free()
    assert DISABLE_FRAME in line.last_heard()
    if end in {crash_all, lose_the_root}:
        await robot.start()  # which removes the files of a root that was killed
        await robot.stop()
