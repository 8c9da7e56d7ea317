"""The observer that listens: real news of the kernel, more of them than it keeps, and none at all."""

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from rt.link.link import Link
from rt.link.serial import SerialLink
from rt.serialports import uevents
from rt.serialports.filter import PortFilter
from rt.serialports.observer import PollingObserver
from rt.serialports.port_state import PortChange
from rt.serialports.ports import keep_ports_open
from rt.serialports.udev import EventObserver, open_observer
from rt.serialports.uevents import (
    MAX_EVENTS,
    UdevMonitor,
    UdevUnavailableError,
    last_sequence_number,
)

PORT = "/dev/ttyS0"
UEVENT = Path("/sys/class/tty/ttyS0/uevent")


def say(action: str) -> None:
    """Have the kernel say something of the first serial port; nothing else happens to it."""
    UEVENT.write_text(action)


def why_not() -> str:
    """Why the kernel cannot be made to say something here, or nothing."""
    if not os.access(UEVENT, os.W_OK) or not Path(PORT).exists():
        return f"only root can have the kernel speak, and of {PORT} only"
    try:
        UdevMonitor().close()
    except UdevUnavailableError as error:
        return str(error)
    return ""


kernel = pytest.mark.skipif(bool(why_not()), reason=why_not() or "the kernel speaks")


@pytest.fixture(autouse=True)
def listen_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # What a test has the kernel say, udevd repeats much later on a loaded machine.
    monkeypatch.setattr(uevents, "UDEVD", Path("/nonexistent"))
    if why_not():
        yield
    else:
        with UEVENT.open() as held:  # the whole machine hears it: one test at a time
            fcntl.flock(held, fcntl.LOCK_EX)
            yield


@pytest.fixture
def monitor() -> Iterator[UdevMonitor]:
    monitor = UdevMonitor()
    yield monitor
    monitor.close()


@contextlib.asynccontextmanager
async def watching(
    observer: PollingObserver,
) -> AsyncIterator[trio.MemoryReceiveChannel[PortChange]]:
    """An observer at work, its changes in a channel."""
    send, receive = trio.open_memory_channel[PortChange](100)

    async def watch() -> None:
        async with contextlib.aclosing(observer.changes()) as changes:
            async for change in changes:
                await send.send(change)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        with trio.fail_after(20):
            yield receive
        nursery.cancel_scope.cancel()


def make_small(monitor: UdevMonitor) -> None:
    """Let the kernel keep only two or three news."""
    try:
        monitor.set_buffer_size(1)
    except OSError as error:
        pytest.skip(f"the buffer cannot be made small here: {error}")


@kernel
def test_what_the_kernel_says_is_heard(monitor: UdevMonitor) -> None:
    before = last_sequence_number()
    say("change")
    (events, lost) = monitor.read()
    assert not lost
    assert [(each.action, each.device) for each in events] == [("change", PORT)]
    assert events[0].number > before
    assert monitor.read() == ([], False)


@kernel
def test_one_call_takes_no_more_than_motors_can_wait_for(monitor: UdevMonitor) -> None:
    for _ in range(MAX_EVENTS + 1):
        say("change")
    assert [len(monitor.read().events), len(monitor.read().events)] == [MAX_EVENTS, 1]


@kernel
def test_that_some_news_are_lost_is_told_once_and_the_next_are_heard(monitor: UdevMonitor) -> None:
    make_small(monitor)
    for _ in range(100):
        say("change")
    assert monitor.read().lost
    assert monitor.read() == ([], False)
    say("add")
    assert [each.action for each in monitor.read().events] == ["add"]


@kernel
async def test_more_news_than_the_kernel_keeps_lead_to_a_look_at_all_ports(
    tmp_path: Path, monitor: UdevMonitor
) -> None:
    make_small(monitor)
    (tmp_path / "board").touch()
    # The glob of a link is looked at every 0.5 s, so the intervals are made too long to help.
    observer = EventObserver([PORT, f"{tmp_path}/*"], interval=1000, rescan=1000, monitor=monitor)
    async with watching(observer) as changes:
        first = await changes.receive()
        assert first.appeared == {PORT, f"{tmp_path}/board"}
        (tmp_path / "board").rename(tmp_path / "other")
        for _ in range(200):
            say("change")
        change = await changes.receive()
        assert change == PortChange(
            frozenset({f"{tmp_path}/other"}), frozenset({f"{tmp_path}/board"}), frozenset({PORT})
        )
        # It goes on to hear.
        await trio.testing.wait_all_tasks_blocked()
        while True:
            with contextlib.suppress(trio.WouldBlock):
                while True:
                    changes.receive_nowait()
            say("remove")
            if (await changes.receive()).vanished == {PORT}:
                break


@kernel
async def test_news_lead_to_a_look_and_silence_does_not() -> None:
    async with watching(EventObserver([PORT], interval=1000, rescan=1000)) as changes:
        assert await changes.receive() == PortChange(appeared=frozenset({PORT}))
        say("change")
        assert await changes.receive() == PortChange(announced=frozenset({PORT}))
        say("remove")
        say("add")
        back = await changes.receive()
        assert back == PortChange(frozenset({PORT}), frozenset({PORT}))


@kernel
async def test_what_was_said_before_the_first_look_is_not_taken_for_news() -> None:
    observer = EventObserver([PORT], rescan=1000)
    say("remove")
    say("add")
    async with watching(observer) as changes:
        assert (await changes.receive()).appeared == {PORT}
        assert await changes.receive() == PortChange(announced=frozenset({PORT}))


@kernel
async def test_an_announced_port_is_tried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the kernel's word to the attempt; the bound on its time belongs into the benchmark."""
    tries, tried = trio.open_memory_channel[float](1000)

    async def refuse(port: str, *, baud_rate: int) -> SerialLink:
        assert port == PORT
        await tries.send(time.monotonic())
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), port)

    async def run(link: Link) -> bool:
        raise AssertionError(link)

    monkeypatch.setattr(SerialLink, "open", refuse)
    monkeypatch.setattr("rt.serialports.ports.MIN_RETRY", 1000)
    monkeypatch.setattr("rt.serialports.ports.MAX_RETRY", 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_ports_open, EventObserver([PORT], rescan=1000).changes(), run)
        delays = []
        with trio.fail_after(20):
            await tried.receive()
            for _ in range(5):
                await trio.sleep(0.05)
                said = time.monotonic()
                say("add")
                delays.append(await tried.receive() - said)
        nursery.cancel_scope.cancel()
    assert min(delays) > 0
    print(f"attempts {max(delays) * 1e3:.1f} ms after the kernel's word at most")  # noqa: T201 - a figure, shown on request


async def test_pseudo_terminals_are_found_though_nobody_announces_them(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    port = tmp_path / "ttyA0"
    try:
        observer = EventObserver([f"{tmp_path}/ttyA*"])
    except UdevUnavailableError as error:
        pytest.skip(str(error))
    async with watching(observer) as changes:
        await trio.sleep(0.1)
        start = trio.current_time()
        port.touch()
        assert await changes.receive() == PortChange(appeared=frozenset({str(port)}))
        assert trio.current_time() - start <= 0.5
        port.unlink()
        assert await changes.receive() == PortChange(vanished=frozenset({str(port)}))


async def test_an_observer_that_hears_nothing_any_more_goes_on_looking(tmp_path: Path) -> None:
    class Deaf(UdevMonitor):
        def __init__(self) -> None:
            self.source = "kernel"
            self._ours, self._theirs = os.pipe()
            os.write(self._theirs, b"x")

        def fileno(self) -> int:
            return self._ours

        def read(self) -> uevents.MonitorEvents:
            raise UdevUnavailableError("nobody speaks")

        def close(self) -> None:
            os.close(self._ours)
            os.close(self._theirs)

    observer = EventObserver([f"{tmp_path}/*"], interval=0.01, monitor=Deaf())
    with capture_logs() as events:
        async with watching(observer) as changes:
            (tmp_path / "a").touch()
            assert (await changes.receive()).appeared == {f"{tmp_path}/a"}
            (tmp_path / "b").touch()
            assert (await changes.receive()).appeared == {f"{tmp_path}/b"}
    assert [event["reason"] for event in events] == ["nobody speaks"]


def test_where_nobody_speaks_ports_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uevents, "LIBRARY", "libabsent.so.1")
    with capture_logs() as events:
        observer = open_observer(PortFilter(["/dev/ttyACM*"]))
    assert type(observer) is PollingObserver
    assert events[0]["observer"] == "PollingObserver"
    assert "libabsent.so.1" in events[0]["reason"]


def test_nothing_but_an_observer_at_work_imports_pyudev_and_no_program_is_started_for_it() -> None:
    code = (
        "import subprocess, sys, rt.cli.main, rt.smartdevice.process\n"
        "from rt.serialports import udev\n"
        "assert 'pyudev' not in sys.modules\n"
        "def refuse(*arguments, **options): raise AssertionError(arguments)\n"
        "subprocess.Popen.__init__ = refuse\n"
        "try: udev.EventObserver([])\n"
        "except udev.UdevUnavailableError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
