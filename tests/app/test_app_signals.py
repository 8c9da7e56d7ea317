"""An Application in a process of its own, with real signals."""

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
                print("ending", flush=True)
                await trio.sleep(0.3)
            print("ended in order", flush=True)
    print("stopped:", app.stopped, flush=True)
trio.run(main)
print("handlers are back:", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
"""


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
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
                    await lines.said("ending")
                    for number in numbers[1:]:
                        process.send_signal(number)
            assert process.returncode is not None
            return process.returncode, lines.all


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_block_in_order_and_says_which(
    tmp_path: Path, number: signal.Signals
) -> None:
    code, lines = await run(tmp_path, "on", number)
    assert code == 0
    plain = [line for line in lines if not line.startswith("{")]
    assert plain == [
        "running",
        "ending",
        "ended in order",
        f"stopped: received {number.name}",
        "handlers are back: True",
    ]
    assert sum('"the application stops"' in line for line in lines) == 1


async def test_a_second_signal_disturbs_no_orderly_end(tmp_path: Path) -> None:
    code, lines = await run(tmp_path, "on", signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
    assert code == 0
    assert "ended in order" in lines
    assert "stopped: received SIGTERM" in lines


async def test_signals_can_be_left_to_the_process(tmp_path: Path) -> None:
    code, lines = await run(tmp_path, "off", signal.SIGTERM)
    assert code == -signal.SIGTERM
    assert lines == ["running"]


def test_in_another_thread_signals_are_not_touched(tmp_path: Path) -> None:
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
