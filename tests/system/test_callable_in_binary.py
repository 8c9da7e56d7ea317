"""`CallableProcess` in the executable."""

import json
import signal
import socket
from pathlib import Path

import pytest
import trio
from support.lines import Lines
from support.robot import COMMAND, PATIENCE
from support.supervised import assert_no_children, wait_until_exited

from rt.process.call import CallSettings
from rt.process.command import CommandProcess
from rt.process.lifeline import LIFELINE, open_lifeline

pytestmark = [pytest.mark.system, pytest.mark.every_case]

MODULE = """
import os, sys, time
import msgspec

class Point(msgspec.Struct):
    x: float

def tell(point: Point) -> None:
    print(type(point).__name__, point.x, flush=True)

def stay() -> None:
    print("staying", os.getpid(), flush=True)
    time.sleep(1000)

async def in_order() -> None:
    import trio
    try:
        print("staying", os.getpid(), flush=True)
        await trio.sleep_forever()
    finally:
        print("ended in order", flush=True)

def stop() -> None:
    from rt.errors import EmergencyStopException
    raise EmergencyStopException
"""


def process(folder: Path, function: str, *args: object) -> tuple[CommandProcess, Lines]:
    (folder / "points.py").write_text(MODULE)
    settings = CallSettings(
        name=function, target=f"points:{function}", args=list(args), path=[str(folder)]
    )
    lines = Lines()
    command = [*COMMAND, "_child", "call", LIFELINE]
    # A killed executable leaves its unpacked files behind.
    env = {"TMPDIR": str(folder)}
    return CommandProcess(
        command, message=settings.encode(), name=function, env=env, on_line=lines
    ), lines


async def test_function_receives_types_and_its_status_is_returned(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        child, lines = process(tmp_path, "tell", {"x": 1.5})
        await child.start()
        assert await child.wait() == 0
        assert lines.all == ["Point 1.5"]

        child, lines = process(tmp_path, "stop")
        await child.start()
        assert await child.wait() == 255
        assert json.loads(lines.all[0])["event"] == "emergency stop"

        child, lines = process(tmp_path, "tell", {"y": 1.5})
        await child.start()
        assert await child.wait() == 1
        assert "argument point" in json.loads(lines.all[0])["event"]
    assert_no_children()


async def test_sigterm_ends_the_function(tmp_path: Path) -> None:
    child, lines = process(tmp_path, "stay")
    with trio.fail_after(PATIENCE):
        async with child, trio.open_nursery() as nursery:
            nursery.start_soon(child.wait)
            await lines.said("staying")
            child.terminate()
    assert child.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert_no_children()


async def test_async_function_stops_in_order_after_repeated_signals(tmp_path: Path) -> None:
    child, lines = process(tmp_path, "in_order")
    with trio.fail_after(PATIENCE):
        async with child, trio.open_nursery() as nursery:
            nursery.start_soon(child.wait)
            await lines.said("staying")
            child.terminate()
    assert child.returncode == 0
    assert lines.all[-1] == "ended in order"


async def test_function_ends_when_its_lifeline_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifelines: list[socket.socket] = []

    def open_and_record(message: bytes | None) -> tuple[socket.socket, socket.socket]:
        ours, theirs = open_lifeline(message)
        lifelines.append(ours)
        return ours, theirs

    monkeypatch.setattr("rt.process.spawn.open_lifeline", open_and_record)
    child, lines = process(tmp_path, "stay")
    with trio.fail_after(PATIENCE):
        async with child, trio.open_nursery() as nursery:
            nursery.start_soon(child.wait)
            pid = int(await lines.said("staying"))
            lifelines[0].close()
            await wait_until_exited(pid)
    assert child.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
