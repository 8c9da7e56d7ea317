"""Tests of an application's signal handling, in a process of its own."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from support.lines import Lines
from support.supervised import assert_no_children

from rt import config
from rt.app import Application
from rt.process.command import CommandProcess

PROGRAM = """
import signal, sys, trio
from pathlib import Path
from rt import config, log
from rt.app import Application
log.configure()
async def main():
    options = config.load(env={}, cwd=Path.cwd()).config.resolved(Path.cwd())
    async with Application("program", options, signals=sys.argv[1] == "on") as app:
        try:
            print("running", flush=True)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                print("stopping", flush=True)
                await trio.sleep(0.3)
            print("stopped in order", flush=True)
    print("stopped:", app.stopped, flush=True)
trio.run(main)
print("handlers restored:", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
"""


@pytest.fixture(autouse=True)
def no_child_remains() -> Iterator[None]:
    yield
    assert_no_children()


async def run(directory: Path, signals: str, *numbers: signal.Signals) -> tuple[int, list[str]]:
    lines = Lines()
    process = CommandProcess(
        [sys.executable, "-c", PROGRAM, signals],
        cwd=directory,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        on_line=lines,
    )
    with trio.fail_after(30):
        async with process:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(process.wait)
                await lines.said("running")
                process.send_signal(numbers[0])
                if len(numbers) > 1:
                    await lines.said("stopping")
                    for number in numbers[1:]:
                        process.send_signal(number)
            assert process.returncode is not None
            return process.returncode, lines.all


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_ends_the_block_and_is_the_reason(
    tmp_path: Path, number: signal.Signals
) -> None:
    code, lines = await run(tmp_path, "on", number)
    assert code == 0
    plain = [line for line in lines if not line.startswith("{")]
    assert plain == [
        "running",
        "stopping",
        "stopped in order",
        f"stopped: received {number.name}",
        "handlers restored: True",
    ]
    assert sum('"application stopping"' in line for line in lines) == 1


async def test_second_signal_does_not_disturb_the_stop(tmp_path: Path) -> None:
    code, lines = await run(tmp_path, "on", signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
    assert code == 0
    assert "stopped in order" in lines
    assert "stopped: received SIGTERM" in lines


async def test_signal_handling_can_be_disabled(tmp_path: Path) -> None:
    code, lines = await run(tmp_path, "off", signal.SIGTERM)
    assert code == -signal.SIGTERM
    assert lines == ["running"]


def test_other_threads_change_no_signal_handlers(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    async def main() -> None:
        options = config.load(env={}, cwd=tmp_path).config.resolved(tmp_path)
        async with Application("second", options):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    thread.join(20)
    assert seen == [before]
