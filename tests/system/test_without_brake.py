"""A mode continues only while a brake is ready, measured at the board."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from support import no_brake
from support.brake_cells import BOUNDS, OBSERVED, PROGRAM, Board, Starvation, open_board
from support.robot import PATIENCE, Robot, uid_of

from rt.brake.watch import GRACE, is_watching
from rt.errors import RemoteCallError

pytestmark = pytest.mark.system

KILLS = 10
TRIES = 4
SLACK = 1.0
"""Time (s) after `GRACE` within which a mode without a brake ends."""


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


@contextlib.asynccontextmanager
async def brakeless(robot: Robot) -> AsyncIterator[None]:
    """Prevent every brake of a robot from becoming ready."""
    process = await trio.lowlevel.open_process(
        [sys.executable, no_brake.__file__, str(robot.instance.directory)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        kill(robot.child("brake"))
        with trio.fail_after(PATIENCE):
            assert await process.stdout.receive_some()  # it has killed one
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, process.stdout)
            yield
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def drain(stream: trio.abc.ReceiveStream) -> None:
    async for _ in stream:
        pass


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


def brakes(robot: Robot) -> int:
    """Return how many brakes have been ready so far."""
    return sum(
        entry["event"] == "child is ready" and entry["child"] == "brake" for entry in robot.log
    )


async def while_no_brake_is_ready(robot: Robot, check: Callable[[], Awaitable[None]]) -> None:
    """Run a check while a robot has no brake; repeat it if a brake was ready in between."""
    for _ in range(TRIES):
        before = brakes(robot)
        try:
            await check()
        except (AssertionError, pytest.fail.Exception):
            await robot.call("idle")
            if brakes(robot) == before:
                raise
            with trio.fail_after(PATIENCE):
                while (
                    "nothing may move"
                    not in (await robot.command("doctor", "--only", "brake")).stdout
                ):
                    pass
        else:
            return
    raise AssertionError("a brake was ready again and again")


def _is_another(robot: Robot, killed: int) -> bool:
    return robot.child("brake") != killed


async def brake_status(robot: Robot) -> dict[str, object]:
    return next(each for each in await robot.call("status") if each["name"] == "brake")


@contextlib.asynccontextmanager
async def driven(
    robot: Robot, starvation: Starvation, nursery: trio.Nursery
) -> AsyncIterator[Board]:
    """Start a robot that moves a board in autonomous."""
    robot.write("studentcode.py", PROGRAM)
    async with open_board(robot) as board:
        await robot.start()
        await robot.logged("device connected", uid=str(uid_of("polar-bear")))
        await robot.call("auto")
        assert await board.moves(5)
        nursery.start_soon(starvation.watch)
        yield board


async def test_brake_stops_the_board_after_ten_restarts(
    robot: Robot, nursery: trio.Nursery
) -> None:
    starvation = Starvation()
    outcomes: list[tuple[float, float]] = []
    async with driven(robot, starvation, nursery) as board:
        for _ in range(TRIES):
            for _ in range(KILLS):
                killed = robot.child("brake")
                kill(killed)
                await until(functools.partial(_is_another, robot, killed))
            kill(killed := robot.child("brake"))
            starvation.longest = 0.0
            await trio.sleep(GRACE + SLACK)
            if robot.child("brake") == killed:  # back-off: a mode without a brake has ended
                await board.still()
                assert await robot.call("mode") == "idle"
            fault = time.monotonic_ns()
            moved = board.moved_at(fault)
            kill(robot.child("device"))
            await trio.sleep(OBSERVED)
            if moved:
                outcomes.append(((board.ends(fault)[0] - fault) / 1e6, starvation.longest * 1e3))
                if outcomes[-1][0] <= BOUNDS["kill"] + outcomes[-1][1]:
                    return
            await robot.logged("child is ready", child="device", count=len(outcomes) + 1)
            await robot.call("auto")
            await board.moves(sum(speed != 0 for _, speed in board.changes) + 5)
    raise AssertionError(
        f"the board moved for too long after the end of the device process: {outcomes}"
    )


async def test_mode_without_a_brake_ends_until_one_is_ready(
    robot: Robot, nursery: trio.Nursery
) -> None:
    starvation = Starvation()
    async with driven(robot, starvation, nursery) as board:
        async with brakeless(robot):
            began = time.monotonic_ns()
            await board.still()
            moved = (board.changes[-1][0] - began) / 1e9
            assert brakes(robot) > 1 or moved <= GRACE + SLACK + starvation.longest
            assert await robot.call("mode") == "idle"
            reason = (await robot.logged("every mode and command ended"))["reason"]

            async def refused(method: str) -> None:
                with pytest.raises(
                    RemoteCallError, match="the brake, which disables devices when a process dies"
                ):
                    await robot.call(method)

            async def write_refused() -> None:
                written = await robot.command("write", "motor", "duty_cycle=0.5")
                assert written.returncode != 0
                assert "the brake" in written.stderr

            async def shown() -> None:
                status = str((await brake_status(robot))["status"])
                assert status.partition("(")[0] == reason.partition("(")[0]
                doctor = await robot.command("doctor", "--only", "brake")
                assert "nothing may move" in doctor.stdout
                assert doctor.returncode != 0
                assert not board.moved_at(time.monotonic_ns())

            for check in (
                functools.partial(refused, "auto"),
                functools.partial(refused, "teleop"),
                write_refused,
                shown,
            ):
                await while_no_brake_is_ready(robot, check)
        await robot.logged("devices may move again")
        assert is_watching(str((await brake_status(robot))["status"]))
        doctor = await robot.command("doctor", "--only", "brake")
        assert doctor.returncode == 0, doctor.stdout
        before = sum(speed != 0 for _, speed in board.changes)
        await robot.call("auto")
        assert await board.moves(before + 5)


async def test_rt_write_without_a_brake_ends(robot: Robot) -> None:
    async with open_board(robot) as board, trio.open_nursery() as nursery:
        await robot.start()
        await robot.logged("device connected", uid=str(uid_of("polar-bear")))
        results: list[subprocess.CompletedProcess[str]] = []

        async def write() -> None:
            results.append(await robot.command("write", "motor", "duty_cycle=0.5"))

        nursery.start_soon(write)
        assert await board.moves(1)
        async with brakeless(robot):
            await board.still()
            await until(lambda: results)
        assert "the brake" in results[0].stderr
        assert results[0].returncode != 0


async def test_line_in_the_queue_of_a_dead_brake_is_reopened(robot: Robot) -> None:
    """The restarted device process stops the board, even if no brake becomes ready."""
    robot.write("studentcode.py", PROGRAM)
    await robot.start()
    brake = robot.child("brake")
    kill(brake, signal.SIGSTOP)
    try:
        async with open_board(robot) as board:
            await robot.logged("device connected", uid=str(uid_of("polar-bear")))
            await robot.call("auto")
            assert await board.moves(5)
            async with brakeless(robot):
                kill(robot.child("device"))
                await robot.logged("device connected", count=2, uid=str(uid_of("polar-bear")))
                await board.still()
    finally:
        kill(brake, signal.SIGCONT)
    assert not [each for each in robot.log if "another program holds it" in str(each)]
