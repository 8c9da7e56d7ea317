"""The linter's process: its answer, its limits and its end."""

import re
import sys
from pathlib import Path

import pytest
import trio
from support.lint import request, write

from rt.errors import ExecutionError
from rt.instance.stale_files import ENV_DIRECTORY
from rt.lint.child import Answer, answer
from rt.lint.runner import run_lint
from rt.process.lifeline import LIFELINE
from rt.process.spawn import child_command

PATIENCE = 60.0
"""A limit that no loaded machine reaches."""
MAIN = "\n\ndef teleop_main():\n"


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, LIFELINE)


def is_alive(marker: Path) -> bool:
    """Return whether the process that wrote its pid to a file exists."""
    return Path(f"/proc/{marker.read_text()}").exists()


async def test_records_come_from_another_process(tmp_path: Path) -> None:
    write(tmp_path, {"studentcode.py": f"import os\n{MAIN}    Robot.get('mtor', 'duty_cycle')\n"})
    found = await run_lint(request(tmp_path), limit=PATIENCE)
    assert [(each.symbol, each.line) for each in found] == [
        ("UnusedImport", 1),
        ("unknown-device", 5),
    ]


async def test_missing_code_is_an_error_of_the_call(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="no team code at"):
        await run_lint(request(tmp_path), limit=PATIENCE)


async def test_code_is_never_run(tmp_path: Path) -> None:
    write(tmp_path, {"studentcode.py": f"open({str(tmp_path / 'ran')!r}, 'w')\n{MAIN}    pass\n"})
    assert await run_lint(request(tmp_path), limit=PATIENCE) == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "-" * 200_000 + "1",
        "x = " + " + ".join(["1"] * 100_000),
        "x = " + "1j**" * 3000 + "1",
        "x = [" + "[[0] * 9]," * 40_000 + "]",
        "x = '" + "a" * 500_000 + "'",
        "def f():\n"
        + "".join(f"{' ' * depth}while True:\n" for depth in range(1, 90))
        + " " * 90
        + "pass",
        "".join(f"def f{number}(): f{number + 1}()\n" for number in range(12_000)),
        "x = 1\n" * 80_000,
        "A = " + " + ".join(f"A{number}" for number in range(2000)),
        "\n".join(f"A{number} = A{number + 1} + A{number + 1}" for number in range(3000)),
        "(" * 100_000,
        "{" * 5000 + "}" * 5000,
        "lambda: " * 20_000 + "0",
        "a if " * 5000 + "b" + " else c" * 5000,
        "x" * 600_000,
    ],
    ids=range(15),
)
async def test_hostile_program_does_not_crash_the_linter(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"studentcode.py": text})
    found = await run_lint(request(tmp_path), limit=PATIENCE)
    assert found
    assert not {each.symbol for each in found} & {"lint-crashed", "check-failed"}


async def test_process_is_killed_at_its_time_limit(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    code = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN);"
        f"open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    )
    async with trio.open_nursery() as nursery:
        steps = 0

        async def count() -> None:
            nonlocal steps
            while True:
                await trio.sleep(0.01)
                steps += 1

        nursery.start_soon(count)
        (found,) = await run_lint(request(tmp_path), limit=2.0, command=python(code))
        nursery.cancel_scope.cancel()
    assert (found.type, found.symbol) == ("fatal", "lint-timeout")
    assert found.message.startswith("linting took longer than 2 s: ")
    assert found.path == "studentcode.py"
    assert steps > 3, "the event loop was blocked"
    if marker.exists():
        assert not is_alive(marker)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "by signal 11"),
        ("import sys; sys.exit(3)", "with exit code 3"),
        ("print('no message')", "with exit code 0"),
        # It may see the closed pipe when it prints or when it exits.
        ("while True: print('x' * 100000)", "by signal 9|with exit code (1|120)"),
    ],
)
async def test_crash_is_a_record(tmp_path: Path, code: str, how: str) -> None:
    (found,) = await run_lint(request(tmp_path), limit=PATIENCE, command=python(code))
    assert (found.type, found.symbol) == ("fatal", "lint-crashed")
    assert re.match(f"the linter process exited ({how}): ", found.message)


async def test_command_that_cannot_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="cannot start the linter process: No such file"):
        await run_lint(request(tmp_path), command=(str(tmp_path / "absent"),))


async def test_cancel_leaves_no_process(tmp_path: Path) -> None:
    fifo = tmp_path / "started"
    code = f"import os, time; open({str(fifo)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: run_lint(request(tmp_path), limit=PATIENCE, command=python(code))
        )
        with trio.fail_after(PATIENCE):
            while not fifo.exists() or not fifo.read_text():  # noqa: ASYNC110 - a file has no event
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert not is_alive(fifo)


async def test_process_is_marked_as_one_of_its_robot(tmp_path: Path) -> None:
    code = f"import os, sys; sys.exit(os.environ.get({ENV_DIRECTORY!r}) == {str(tmp_path)!r})"
    (found,) = await run_lint(
        request(tmp_path), limit=PATIENCE, instance_directory=tmp_path, command=python(code)
    )
    assert "with exit code 1" in found.message


@pytest.mark.parametrize(
    "name", ["RT_LOG_FD", "NOTIFY_SOCKET", "RT_NOTIFY", "WATCHDOG_USEC", "LISTEN_FDS"]
)
async def test_process_does_not_inherit_variables_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "7")
    code = f"import os, sys; sys.exit(3 if {name!r} in os.environ else 1)"
    (found,) = await run_lint(request(tmp_path), limit=PATIENCE, command=python(code))
    assert "with exit code 1" in found.message


def test_bug_in_the_linter_is_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rt.lint import lint as module

    for error, symbol in (
        (MemoryError(), "too-large"),
        (KeyError("x"), "check-failed"),
        (RecursionError(), "check-failed"),
    ):

        def fail(_request: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(module, "lint", fail)
        found = answer(request(tmp_path))
        assert isinstance(found, Answer)
        assert [(each.type, each.symbol) for each in found.records] == [("fatal", symbol)]


def test_executable_starts_itself_for_the_process() -> None:
    assert child_command("lint")[-3:] == ("_child", "lint", LIFELINE)
