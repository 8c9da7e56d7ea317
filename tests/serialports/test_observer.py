"""The polling observer reports exactly what has changed."""

import contextlib
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from rt.serialports.observer import PollingObserver
from rt.serialports.port_state import PortChange


def change(appeared: set[str], vanished: set[str]) -> PortChange:
    return PortChange(frozenset(appeared), frozenset(vanished))


def test_ports_appear_and_vanish_by_pattern(tmp_path: Path) -> None:
    first, second = str(tmp_path / "ttyACM0"), str(tmp_path / "ttyACM1")
    observer = PollingObserver([f"{tmp_path}/ttyACM*", f"{tmp_path}/tty*0"])
    assert observer.scan() == change(set(), set())
    Path(first).touch()
    (tmp_path / "ttyS7").touch()
    assert observer.scan() == change({first}, set())
    assert observer.scan() == change(set(), set())
    Path(second).touch()
    Path(first).unlink()
    assert observer.scan() == change({second}, {first})


async def test_changes_are_yielded_at_the_interval(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    port = f"{tmp_path}/ttyACM0"
    observer = PollingObserver([port], interval=0.5)
    start = autojump_clock.current_time()
    os.mknod(port)
    seen = []
    async with contextlib.aclosing(observer.changes()) as changes:
        async for each in changes:
            seen.append(each)
            if each.vanished:
                break
            os.unlink(port)  # noqa: PTH108 - as the kernel does it
    assert seen == [change({port}, set()), change(set(), {port})]
    assert autojump_clock.current_time() - start == pytest.approx(0.5)
