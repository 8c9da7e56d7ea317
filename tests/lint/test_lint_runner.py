"""The linter's process: started, answered, and ended whatever it does."""

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


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, LIFELINE)


def is_there(marker: Path) -> bool:
    """Whether the process lives that has written its number there."""
    return Path(f"/proc/{marker.read_text()}").exists()


async def test_records_come_from_another_process(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "studentcode.py": "import os\n\n\ndef teleop_main():\n    Robot.get('mtor', 'duty_cycle')\n"
        },
    )
    found = await run_lint(request(tmp_path), limit=PATIENCE)
    assert [(each.symbol, each.line) for each in found] == [
        ("UnusedImport", 1),
        ("unknown-device", 5),
    ]


async def test_code_that_is_not_there_is_an_error_of_the_call(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="no team code at"):
        await run_lint(request(tmp_path), limit=PATIENCE)


async def test_code_is_never_run(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "studentcode.py": f"open({str(tmp_path / 'ran')!r}, 'w')\n\n\ndef teleop_main():\n    pass\n"
        },
    )
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
async def test_a_hostile_program_is_answered_and_never_a_crash_of_ours(
    tmp_path: Path, text: str
) -> None:
    write(tmp_path, {"studentcode.py": text})
    found = await run_lint(request(tmp_path), limit=PATIENCE)
    assert found
    assert not {each.symbol for each in found} & {"lint-crashed", "check-failed"}


async def test_a_process_that_does_not_end_is_killed_at_its_limit(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    code = f"import os, signal, time; signal.signal(15, signal.SIG_IGN); open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    async with trio.open_nursery() as nursery:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await trio.sleep(0.01)
                beats += 1

        nursery.start_soon(beat)
        (found,) = await run_lint(request(tmp_path), limit=2.0, command=python(code))
        nursery.cancel_scope.cancel()
    assert (found.type, found.symbol) == ("fatal", "lint-timeout")
    assert found.message.startswith("linting took longer than 2 s and was ended: ")
    assert found.path == "studentcode.py"
    assert beats > 3, "the loop stood still"
    if marker.exists():
        assert not is_there(marker)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "by signal 11"),
        ("import sys; sys.exit(3)", "with exit code 3"),
        ("print('no message')", "with exit code 0"),
        # It may see that nobody listens any more, when it prints or when it ends.
        ("while True: print('x' * 100000)", "by signal 9|with exit code (1|120)"),
    ],
)
async def test_a_process_that_crashes_is_a_record(tmp_path: Path, code: str, how: str) -> None:
    (found,) = await run_lint(request(tmp_path), limit=PATIENCE, command=python(code))
    assert (found.type, found.symbol) == ("fatal", "lint-crashed")
    assert re.match(f"the linter's process ended ({how}): ", found.message)


async def test_a_command_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="cannot start the linter's process: No such file"):
        await run_lint(request(tmp_path), command=(str(tmp_path / "absent"),))


async def test_a_cancel_leaves_no_process(tmp_path: Path) -> None:
    fifo = tmp_path / "started"
    code = f"import os, time; open({str(fifo)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: run_lint(request(tmp_path), limit=PATIENCE, command=python(code))
        )
        with trio.fail_after(PATIENCE):
            while not fifo.exists() or not fifo.read_text():  # noqa: ASYNC110 - the process rings no bell
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert not is_there(fifo)


async def test_the_process_is_known_as_one_of_its_robot(tmp_path: Path) -> None:
    code = f"import os, sys; sys.exit(os.environ.get({ENV_DIRECTORY!r}) == {str(tmp_path)!r})"
    (found,) = await run_lint(
        request(tmp_path), limit=PATIENCE, instance_directory=tmp_path, command=python(code)
    )
    assert "with exit code 1" in found.message


@pytest.mark.parametrize(
    "name", ["RT_LOG_FD", "NOTIFY_SOCKET", "RT_NOTIFY", "WATCHDOG_USEC", "LISTEN_FDS"]
)
async def test_process_does_not_inherit_what_is_meant_for_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "7")
    code = f"import os, sys; sys.exit(3 if {name!r} in os.environ else 1)"
    (found,) = await run_lint(request(tmp_path), limit=PATIENCE, command=python(code))
    assert "with exit code 1" in found.message


def test_a_fault_of_the_linter_is_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rt.lint import lint as room

    for error, symbol in (
        (MemoryError(), "too-large"),
        (KeyError("x"), "check-failed"),
        (RecursionError(), "check-failed"),
    ):

        def fail(_request: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(room, "lint", fail)
        found = answer(request(tmp_path))
        assert isinstance(found, Answer)
        assert [(each.type, each.symbol) for each in found.records] == [("fatal", symbol)]


def test_the_executable_starts_itself_again_for_it() -> None:
    assert child_command("lint")[-3:] == ("_child", "lint", LIFELINE)
