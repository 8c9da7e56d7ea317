"""Tests of `CommandProcess` with real commands."""

import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing
from support.lines import Lines
from support.supervised import PRELUDE, assert_no_children, open_fds, wait_until_exited

from rt.errors import ProcessStateError
from rt.process.command import CommandProcess
from rt.process.run import ChildProcess

SLEEPER = "print('asleep', flush=True); time.sleep(1000)"


@pytest.fixture(autouse=True)
def no_child_remains() -> Iterator[None]:
    yield
    assert_no_children()


def python(body: str, **options: object) -> tuple[CommandProcess, Lines]:
    lines = Lines()
    command = [sys.executable, "-I", "-S", "-c", PRELUDE + body]
    return CommandProcess(command, on_line=lines, **options), lines  # type: ignore[arg-type]


async def test_wait_returns_the_exit_code_and_all_output_is_read() -> None:
    process, lines = python(
        "print('hello'); print('trouble', file=sys.stderr); sys.exit(3)", name="greeter"
    )
    assert process.pid is None
    assert process.returncode is None
    with trio.fail_after(20):
        await process.start()
        assert await process.wait() == 3
    assert process.returncode == 3
    assert sorted(lines.all) == ["hello", "trouble"]
    assert await process.wait() == 3


async def test_last_line_may_lack_a_line_break() -> None:
    process, lines = python("sys.stdout.write('no end')")
    with trio.fail_after(20):
        await process.start()
        await process.wait()
    assert lines.all == ["no end"]


async def test_signal_is_a_negative_return_code() -> None:
    process, _ = python("os.kill(os.getpid(), signal.SIGKILL)")
    with trio.fail_after(20):
        await process.start()
        assert await process.wait() == -signal.SIGKILL


async def test_return_code_is_known_without_a_wait() -> None:
    process, _ = python("sys.exit(7)")
    with trio.fail_after(20):
        await process.start()
        assert process.pid is not None
        await wait_until_exited(process.pid)
        assert process.returncode == 7
        process.terminate()
        assert await process.wait() == 7


async def test_several_tasks_may_wait_and_one_may_be_cancelled() -> None:
    process, lines = python(
        "print('first', flush=True); sys.stdin.read(); time.sleep(0.2); print('last'); sys.exit(4)"
    )
    found: list[int] = []
    with trio.fail_after(20):
        await process.start()

        async def wait() -> None:
            found.append(await process.wait())

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(lines.said, "first")
                nursery.start_soon(wait)
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await process.wait()
            await wait()
    assert found == [4, 4, 4]
    assert lines.all == ["first", "last"]


async def test_terminate_and_kill_signal_the_whole_group() -> None:
    for end in (CommandProcess.terminate, CommandProcess.kill):
        process, lines = python(
            "child = sleeper(); print('child', child.pid, flush=True); time.sleep(1000)"
        )
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                await process.start()
                nursery.start_soon(process.wait)
                pid = int(await lines.said("child"))
                end(process)
            await wait_until_exited(pid)
        assert process.returncode in (-signal.SIGTERM, -signal.SIGKILL)


async def test_rest_of_the_session_is_killed() -> None:
    process, lines = python("child = sleeper(process_group=0); print('child', child.pid)")
    with trio.fail_after(20):
        await process.start()
        assert await process.wait() == 0
        await wait_until_exited(int(await lines.said("child")))


async def test_end_of_the_block_kills_the_process() -> None:
    before = open_fds()
    process, _ = python(SLEEPER)
    with trio.fail_after(20):
        with pytest.raises(KeyError):
            async with process:
                raise KeyError
    assert process.returncode == -signal.SIGKILL
    assert open_fds() <= before


async def test_error_of_on_line_is_raised_once_and_without_a_group() -> None:
    def refuse(_name: str, _stream: str, line: str) -> None:
        raise KeyError(line)

    process = CommandProcess(
        [sys.executable, "-c", "print('one'); print('two'); exit(5)"], on_line=refuse
    )
    with trio.fail_after(20):
        await process.start()
        with pytest.raises(KeyError, match="one"):
            await process.wait()
        assert await process.wait() == 5


async def test_error_of_on_line_at_the_end_leaves_no_process() -> None:
    def refuse(_name: str, _stream: str, line: str) -> None:
        raise KeyError(line)

    before = open_fds()
    process = CommandProcess([sys.executable, "-c", PRELUDE + SLEEPER], on_line=refuse)

    async def look() -> None:
        async with process:
            stream: Any = process._streams[0][0]
            await trio.lowlevel.wait_readable(stream.fileno())

    with trio.fail_after(20), pytest.raises(KeyError, match="asleep"):
        await look()
    assert process.returncode == -signal.SIGKILL
    assert open_fds() <= before


async def test_environment_is_inherited_without_the_notify_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setenv("TEAM", "7")
    process, lines = python(
        "print(os.environ.get('NOTIFY_SOCKET'), os.environ['TEAM'], os.environ['MORE'])",
        env={"MORE": "yes"},
    )
    with trio.fail_after(20):
        await process.start()
        await process.wait()
    assert lines.all == ["None 7 yes"]


async def test_output_is_inherited_without_on_line(capfd: pytest.CaptureFixture[str]) -> None:
    process = CommandProcess([sys.executable, "-c", "print('here')"], on_line=None)
    with trio.fail_after(20):
        await process.start()
        await process.wait()
    assert capfd.readouterr().out == "here\n"


async def test_cancel_before_the_start_starts_no_process() -> None:
    process, _ = python(SLEEPER)
    with trio.CancelScope() as scope:
        scope.cancel()
        await process.start()
    assert scope.cancelled_caught
    assert process.pid is None


async def test_missing_program_is_an_error_at_the_start() -> None:
    before = open_fds()
    process = CommandProcess(["/nowhere/program"])
    with pytest.raises(FileNotFoundError):
        await process.start()
    assert process.pid is None
    assert open_fds() <= before


async def test_calls_in_the_wrong_state_are_errors() -> None:
    process, _ = python("")
    with pytest.raises(ProcessStateError, match="is not started"):
        await process.wait()
    with pytest.raises(ValueError, match="is not started"):
        process.terminate()
    with trio.fail_after(20):
        await process.start()
        with pytest.raises(ProcessStateError, match="was started before"):
            await process.start()
        await process.wait()
    with pytest.raises(ValueError, match="is empty"):
        CommandProcess([])


async def test_command_and_trio_process_are_child_processes() -> None:
    process, _ = python("")
    assert isinstance(process, ChildProcess)
    assert "-I -S -c" in repr(process)
    other = await trio.lowlevel.open_process([sys.executable, "-I", "-S", "-c", ""])
    assert isinstance(other, ChildProcess)
    with trio.fail_after(20):
        await other.wait()


async def test_signal_after_the_exit_does_nothing() -> None:
    process, _ = python("")
    with trio.fail_after(20):
        await process.start()
        await process.wait()
    process.kill()
    process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
