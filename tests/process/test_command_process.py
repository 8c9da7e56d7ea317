"""A command as a process, with real commands: started once, waited for by anybody, and nothing of it is left."""

import signal
import sys
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from support.lines import Lines
from support.supervised import PRELUDE, assert_no_children, gone, open_fds

from rt.errors import ProcessStateError
from rt.process.base import ChildProcess
from rt.process.command import CommandProcess

SLEEPER = "print('asleep', flush=True); time.sleep(1000)"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert_no_children()


def python(body: str, **options: object) -> tuple[CommandProcess, Lines]:
    lines = Lines()
    command = [sys.executable, "-I", "-S", "-c", PRELUDE + body]
    return CommandProcess(command, on_line=lines, **options), lines  # type: ignore[arg-type]


async def test_a_command_ends_with_its_exit_code_and_its_output() -> None:
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


async def test_a_line_without_an_end_is_a_line_too() -> None:
    process, lines = python("sys.stdout.write('no end')")
    with trio.fail_after(20):
        await process.start()
        await process.wait()
    assert lines.all == ["no end"]


async def test_a_signal_is_told_as_its_negative_number() -> None:
    process, _ = python("os.kill(os.getpid(), signal.SIGKILL)")
    with trio.fail_after(20):
        await process.start()
        assert await process.wait() == -signal.SIGKILL


async def test_its_exit_is_known_without_anybody_waiting() -> None:
    process, _ = python("sys.exit(7)")
    with trio.fail_after(20):
        await process.start()
        assert process.pid is not None
        await gone(process.pid)
        assert process.returncode == 7
        process.terminate()
        assert await process.wait() == 7


async def test_several_tasks_may_wait_and_one_may_give_up() -> None:
    process, lines = python(
        "print('first', flush=True); sys.stdin.read(); time.sleep(0.2); print('last'); sys.exit(4)"
    )
    found: list[int] = []
    with trio.fail_after(20):
        await process.start()

        async def wait() -> None:
            found.append(await process.wait())

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as impatient:
                nursery.start_soon(lines.said, "first")
                nursery.start_soon(wait)
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                impatient.cancel()
                await process.wait()
            await wait()
    assert found == [4, 4, 4]
    assert lines.all == ["first", "last"]


async def test_terminate_and_kill_go_to_the_whole_group() -> None:
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
            await gone(pid)
        assert process.returncode in (-signal.SIGTERM, -signal.SIGKILL)


async def test_what_it_leaves_of_its_session_is_killed() -> None:
    process, lines = python("child = sleeper(process_group=0); print('child', child.pid)")
    with trio.fail_after(20):
        await process.start()
        assert await process.wait() == 0
        await gone(int(await lines.said("child")))


async def test_the_block_of_a_process_leaves_nothing_of_it() -> None:
    before = open_fds()
    process, _ = python(SLEEPER)
    with trio.fail_after(20):
        with pytest.raises(KeyError):
            async with process:
                raise KeyError
    assert process.returncode == -signal.SIGKILL
    assert open_fds() <= before


async def test_an_error_of_whoever_reads_the_lines_comes_once_and_bare() -> None:
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


async def test_an_error_of_whoever_reads_the_last_lines_leaves_nothing_either() -> None:
    def refuse(_name: str, _stream: str, line: str) -> None:
        raise KeyError(line)

    before = open_fds()
    process = CommandProcess([sys.executable, "-c", PRELUDE + SLEEPER], on_line=refuse)

    async def look() -> None:
        async with process:
            await trio.lowlevel.wait_readable(process._streams[0][0].fileno())  # type: ignore[attr-defined]

    with trio.fail_after(20), pytest.raises(KeyError, match="asleep"):
        await look()
    assert process.returncode == -signal.SIGKILL
    assert open_fds() <= before


async def test_it_inherits_our_environment_but_not_our_parents_ear(
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


async def test_it_may_write_where_we_do(capfd: pytest.CaptureFixture[str]) -> None:
    process = CommandProcess([sys.executable, "-c", "print('here')"], on_line=None)
    with trio.fail_after(20):
        await process.start()
        await process.wait()
    assert capfd.readouterr().out == "here\n"


async def test_a_cancel_before_the_start_starts_nothing() -> None:
    process, _ = python(SLEEPER)
    with trio.CancelScope() as scope:
        scope.cancel()
        await process.start()
    assert scope.cancelled_caught
    assert process.pid is None


async def test_a_program_that_is_not_there_is_an_error_at_the_start() -> None:
    before = open_fds()
    process = CommandProcess(["/nowhere/program"])
    with pytest.raises(FileNotFoundError):
        await process.start()
    assert process.pid is None
    assert open_fds() <= before


async def test_states_are_told_by_name() -> None:
    process, _ = python("")
    with pytest.raises(ProcessStateError, match="before it is started"):
        await process.wait()
    with pytest.raises(ValueError, match="before it is started"):
        process.terminate()
    with trio.fail_after(20):
        await process.start()
        with pytest.raises(ProcessStateError, match="is started once"):
            await process.start()
        await process.wait()
    with pytest.raises(ValueError, match="needs a command"):
        CommandProcess([])


async def test_it_is_a_child_process_and_so_is_one_of_trio() -> None:
    process, _ = python("")
    assert isinstance(process, ChildProcess)
    assert "-I -S -c" in repr(process)
    other = await trio.lowlevel.open_process([sys.executable, "-I", "-S", "-c", ""])
    assert isinstance(other, ChildProcess)
    with trio.fail_after(20):
        await other.wait()


async def test_a_signal_after_the_end_reaches_nobody() -> None:
    process, _ = python("")
    with trio.fail_after(20):
        await process.start()
        await process.wait()
    process.kill()
    process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
