"""The event observer: real events of the kernel, an overflow, and none at all."""

import contextlib
import errno
import fcntl
import functools
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


def trigger(action: str) -> None:
    """Let the kernel send an event about the first serial port, which is not affected."""
    UEVENT.write_text(action)


def unavailable() -> str:
    """Return why the kernel cannot be made to send events here, or an empty string."""
    if not os.access(UEVENT, os.W_OK) or not Path(PORT).exists():
        return f"only root can trigger events of the kernel, and only about {PORT}"
    try:
        UdevMonitor().close()
    except UdevUnavailableError as error:
        return str(error)
    return ""


kernel = pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "events are available")


@pytest.fixture(autouse=True)
def use_kernel_events(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # On a loaded machine udevd repeats the events of a test much later.
    monkeypatch.setattr(uevents, "UDEVD", Path("/nonexistent"))
    if unavailable():
        yield
    else:
        with UEVENT.open() as held:  # every process receives it: one test at a time
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
    """Run an observer, with its changes in a channel."""
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
    """Let the kernel buffer only two or three events."""
    try:
        monitor._monitor.set_receive_buffer_size(1)
    except OSError as error:
        pytest.skip(f"the buffer size cannot be set here: {error}")


@kernel
def test_event_of_kernel_is_received(monitor: UdevMonitor) -> None:
    before = last_sequence_number()
    trigger("change")
    (events, lost) = monitor.read()
    assert not lost
    assert [(each.action, each.device) for each in events] == [("change", PORT)]
    assert events[0].number > before
    assert monitor.read() == ([], False)


@kernel
def test_one_call_returns_a_bounded_number_of_events(monitor: UdevMonitor) -> None:
    for _ in range(MAX_EVENTS + 1):
        trigger("change")
    assert [len(monitor.read().events), len(monitor.read().events)] == [MAX_EVENTS, 1]


@kernel
def test_overflow_is_reported_once(monitor: UdevMonitor) -> None:
    make_small(monitor)
    for _ in range(100):
        trigger("change")
    assert monitor.read().lost
    assert monitor.read() == ([], False)
    trigger("add")
    assert [each.action for each in monitor.read().events] == ["add"]


@kernel
async def test_overflow_causes_a_scan_of_all_ports(tmp_path: Path, monitor: UdevMonitor) -> None:
    make_small(monitor)
    (tmp_path / "board").touch()
    # The glob of a link is polled every 0.5 s, so the intervals are made too long to help.
    observer = EventObserver([PORT, f"{tmp_path}/*"], interval=1000, rescan=1000, monitor=monitor)
    async with watching(observer) as changes:
        first = await changes.receive()
        assert first.appeared == {PORT, f"{tmp_path}/board"}
        (tmp_path / "board").rename(tmp_path / "other")
        for _ in range(200):
            trigger("change")
        change = await changes.receive()
        assert change == PortChange(
            frozenset({f"{tmp_path}/other"}), frozenset({f"{tmp_path}/board"}), frozenset({PORT})
        )
        # It continues to receive events.
        await trio.testing.wait_all_tasks_blocked()
        while True:
            with contextlib.suppress(trio.WouldBlock):
                while True:
                    changes.receive_nowait()
            trigger("remove")
            if (await changes.receive()).vanished == {PORT}:
                break


@kernel
async def test_events_cause_scans() -> None:
    async with watching(EventObserver([PORT], interval=1000, rescan=1000)) as changes:
        assert await changes.receive() == PortChange(appeared=frozenset({PORT}))
        trigger("change")
        assert await changes.receive() == PortChange(announced=frozenset({PORT}))
        trigger("remove")
        trigger("add")
        back = await changes.receive()
        assert back == PortChange(frozenset({PORT}), frozenset({PORT}))


@kernel
async def test_events_before_first_scan_do_not_count() -> None:
    observer = EventObserver([PORT], rescan=1000)
    trigger("remove")
    trigger("add")
    async with watching(observer) as changes:
        assert (await changes.receive()).appeared == {PORT}
        assert await changes.receive() == PortChange(announced=frozenset({PORT}))


@kernel
async def test_announced_port_is_tried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time from event to attempt is measured; its bound belongs in the benchmark."""
    tries, tried = trio.open_memory_channel[float](1000)

    async def refuse(port: str, *, baud_rate: int) -> SerialLink:
        assert port == PORT
        await tries.send(time.monotonic())
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), port)

    async def run(link: Link) -> bool:
        raise AssertionError(link)

    monkeypatch.setattr(SerialLink, "open", refuse)
    observer = EventObserver([PORT], rescan=1000)
    keep_open = functools.partial(keep_ports_open, min_retry=1000, max_retry=1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_open, observer.changes(), run)
        delays = []
        with trio.fail_after(20):
            await tried.receive()
            for _ in range(5):
                await trio.sleep(0.05)
                triggered = time.monotonic()
                trigger("add")
                delays.append(await tried.receive() - triggered)
        nursery.cancel_scope.cancel()
    assert min(delays) > 0
    print(f"attempts at most {max(delays) * 1e3:.1f} ms after the event")  # noqa: T201 - a figure


async def test_unannounced_pseudo_terminals_are_found(
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


async def test_observer_polls_after_its_monitor_fails(tmp_path: Path) -> None:
    class FailingMonitor(UdevMonitor):
        def __init__(self) -> None:
            self.source = "kernel"
            self._ours, self._theirs = os.pipe()
            os.write(self._theirs, b"x")

        def fileno(self) -> int:
            return self._ours

        def read(self) -> uevents.MonitorEvents:
            raise UdevUnavailableError("no events")

        def close(self) -> None:
            os.close(self._ours)
            os.close(self._theirs)

    observer = EventObserver([f"{tmp_path}/*"], interval=0.01, monitor=FailingMonitor())
    with capture_logs() as events:
        async with watching(observer) as changes:
            (tmp_path / "a").touch()
            assert (await changes.receive()).appeared == {f"{tmp_path}/a"}
            (tmp_path / "b").touch()
            assert (await changes.receive()).appeared == {f"{tmp_path}/b"}
    assert [event["reason"] for event in events] == ["no events"]


def test_ports_are_polled_without_libudev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uevents, "LIBRARY", "libabsent.so.1")
    with capture_logs() as events:
        observer = open_observer(PortFilter(["/dev/ttyACM*"]))
    assert type(observer) is PollingObserver
    assert events[0]["observer"] == "PollingObserver"
    assert "libabsent.so.1" in events[0]["reason"]


def test_pyudev_is_imported_late_and_starts_no_program() -> None:
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
