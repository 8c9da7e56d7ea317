"""Tests of `run_process`: in every case the process has exited afterwards."""

import math
import os
import signal
import sys
from collections.abc import Iterator

import pytest
import structlog
import trio
import trio.testing
from support import called
from support.lines import Lines
from support.supervised import PRELUDE, STUBBORN, assert_no_children, wait_until_exited
from trio.testing import MockClock

from rt.errors import EmergencyStopException
from rt.process.call import CallableProcess
from rt.process.command import CommandProcess
from rt.process.run import run_process


@pytest.fixture(autouse=True)
def no_child_remains() -> Iterator[None]:
    yield
    assert_no_children()


def python(body: str) -> tuple[CommandProcess, Lines]:
    lines = Lines()
    return CommandProcess(
        [sys.executable, "-I", "-S", "-c", PRELUDE + body], name="child", on_line=lines
    ), lines


ASLEEP = "print('ready', flush=True); time.sleep(1000)"
IGNORING = STUBBORN.replace("notify('READY=1'); ", "").replace("ignoring", "ready")


@pytest.mark.parametrize(("code", "event"), [(0, "process exited"), (3, "process failed")])
async def test_start_and_exit_are_logged(code: int, event: str) -> None:
    process, _ = python(f"sys.exit({code})")
    with structlog.testing.capture_logs() as logs, trio.fail_after(20):
        assert await run_process(process) == code
    assert [entry["event"] for entry in logs] == ["process started", event]
    assert all(entry["process"] == "child" and entry["pid"] == process.pid for entry in logs)


async def test_signal_is_a_negative_return_code() -> None:
    process, _ = python("os.kill(os.getpid(), signal.SIGKILL)")
    with trio.fail_after(20):
        assert await run_process(process) == -signal.SIGKILL


async def test_started_process_is_waited_for() -> None:
    process, _ = python("sys.exit(6)")
    with trio.fail_after(20):
        await process.start()
        assert await run_process(process) == 6


async def test_trio_process_is_accepted() -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-I", "-S", "-c", "raise SystemExit(2)"]
    )
    with trio.fail_after(20):
        assert await run_process(process) == 2


async def test_cancel_terminates_the_process() -> None:
    process, lines = python(ASLEEP)
    with trio.fail_after(20), structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_process, process)
            await lines.said("ready")
            nursery.cancel_scope.cancel()
    assert process.returncode == -signal.SIGTERM
    assert [entry["event"] for entry in logs] == ["process started", "process stopped"]


async def test_cancel_terminates_a_stopped_process() -> None:
    process, lines = python(ASLEEP)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run_process(process, terminate_timeout=math.inf))
            await lines.said("ready")
            process.send_signal(signal.SIGSTOP)
            nursery.cancel_scope.cancel()
    assert process.returncode == -signal.SIGTERM


async def test_process_that_ignores_sigterm_is_killed() -> None:
    process, lines = python(IGNORING)
    with trio.fail_after(20), structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run_process(process, terminate_timeout=0.05))
            await lines.said("ready")
            nursery.cancel_scope.cancel()
    assert process.returncode == -signal.SIGKILL
    assert "process killed after timeout" in [entry["event"] for entry in logs]


async def test_default_terminate_timeout_is_two_seconds(autojump_clock: MockClock) -> None:
    class IgnoringProcess:
        """A process that ignores SIGTERM."""

        pid = 1
        returncode: int | None = None
        terminated: float
        killed: float | None = None

        def __init__(self) -> None:
            self.end = trio.Event()

        async def wait(self) -> int:
            await self.end.wait()
            self.returncode = -9
            return -9

        def terminate(self) -> None:
            self.terminated = trio.current_time()

        def kill(self) -> None:
            self.killed = trio.current_time()
            self.end.set()

    process = IgnoringProcess()
    with trio.move_on_after(5):
        await run_process(process)
    assert process.killed is not None
    assert process.killed - process.terminated == pytest.approx(2)


async def test_second_cancel_changes_nothing() -> None:
    process, lines = python(IGNORING)
    with trio.fail_after(20), trio.CancelScope() as outer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run_process(process, terminate_timeout=0.2))
            await lines.said("ready")
            nursery.cancel_scope.cancel()
            outer.cancel()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("after", [0, 0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4])
async def test_no_process_runs_after_a_cancel_at_any_time(after: float) -> None:
    process = CallableProcess(called.sleep, on_line=Lines())
    with trio.fail_after(30):
        with trio.move_on_after(after) as scope:
            await run_process(process)
    assert scope.cancelled_caught
    assert process.pid is None or process.returncode is not None


async def test_forked_process_is_killed_too() -> None:
    lines = Lines()
    process = CallableProcess(called.fork_and_stay, on_line=lines)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_process, process)
            pid = int(await lines.said("grandchild"))
            nursery.cancel_scope.cancel()
        await wait_until_exited(pid)


async def test_exit_code_255_raises_an_emergency_stop() -> None:
    process = CallableProcess(called.stop_everything)
    with (
        trio.fail_after(30),
        pytest.raises(EmergencyStopException, match="process stop_everything raised") as caught,
    ):
        await run_process(process)
    assert caught.value.context == {"process": "stop_everything", "pid": process.pid}


async def test_emergency_stop_takes_precedence_over_a_cancel() -> None:
    lines = Lines()
    process = CommandProcess(
        [sys.executable, "-I", "-S", "-c", called.EMERGENCY_AT_SIGTERM], on_line=lines
    )
    raised: list[EmergencyStopException] = []
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                try:
                    await run_process(process)
                except EmergencyStopException as error:
                    raised.append(error)

            nursery.start_soon(run)
            await lines.said("armed")
            nursery.cancel_scope.cancel()
    assert len(raised) == 1


async def test_error_of_on_line_terminates_the_process() -> None:
    def refuse(*_line: str) -> None:
        raise KeyError

    process = CommandProcess([sys.executable, "-c", PRELUDE + ASLEEP], on_line=refuse)
    with trio.fail_after(20), pytest.raises(KeyError):
        await run_process(process)
    assert process.returncode == -signal.SIGTERM


async def test_error_during_the_stop_is_raised_after_the_exit() -> None:
    received = trio.Event()

    def refuse(_name: str, _stream: str, line: str) -> None:
        received.set()
        if line == "no":
            raise KeyError(line)

    handler = (
        "signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'no\\n')); print('yes', flush=True)"
    )
    process = CommandProcess(
        [sys.executable, "-c", f"{PRELUDE}{handler}\nwhile True: time.sleep(1000)"], on_line=refuse
    )
    with trio.fail_after(20), pytest.RaisesGroup(pytest.RaisesExc(KeyError, match="no")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run_process(process, terminate_timeout=0.1))
            await received.wait()
            nursery.cancel_scope.cancel()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("seconds", [-1.0, math.nan])
async def test_invalid_terminate_timeout_is_rejected_before_the_start(seconds: float) -> None:
    process, _ = python(ASLEEP)
    with pytest.raises(ValueError, match="invalid terminate_timeout"):
        await run_process(process, terminate_timeout=seconds)
    assert process.pid is None


async def test_missing_command_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        await run_process(CommandProcess(["/nowhere/at/all"]))


PARENT = """
import sys, trio
from rt.process.command import CommandProcess
from rt.process.run import run_process
body = sys.argv[1]
command = [sys.executable, "-I", "-S", "-c", body]
trio.run(run_process, CommandProcess(command, on_line=lambda *line: print(line[2], flush=True)))
"""


async def test_command_is_killed_when_its_parent_is_killed() -> None:
    body = (
        PRELUDE
        + "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        + "print('pids', os.getpid(), sleeper().pid, flush=True); time.sleep(1000)"
    )
    parent = await trio.lowlevel.open_process(
        [sys.executable, "-c", PARENT, body],
        stdout=-1,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    output = b""
    with trio.fail_after(30):
        while not (b"pids" in output and output.endswith(b"\n")):
            output += await parent.stdout.receive_some()
        pids = [int(word) for word in output.split(b"pids")[1].split()[:2]]
        parent.kill()
        await parent.wait()
        for pid in pids:
            await wait_until_exited(pid)
    await parent.stdout.aclose()
