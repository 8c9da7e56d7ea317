"""Real children for the tests of the supervisor: short programs, and somebody who watches them."""

import contextlib
import gc
import os
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import trio

from rt.supervisor.child import Child
from rt.supervisor.spec import ChildSpec, ChildStatus
from rt.supervisor.state import Kill, State

PRELUDE = """
import os, signal, socket, subprocess, sys, time
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
def sleeper(**options):
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"], **options)
"""

WELL_BEHAVED = "say('READY=1'); time.sleep(1000)"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say('READY=1'); print('deaf', flush=True); time.sleep(1000)"


def program(body: str, *arguments: str) -> tuple[str, ...]:
    """The command of a Python program that begins with the prelude."""
    return (sys.executable, "-I", "-S", "-c", PRELUDE + textwrap.dedent(body), *arguments)


class Watcher:
    """Remembers what children say and do, and waits for it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []
        self.statuses: list[ChildStatus] = []
        self._news = trio.Event()

    def on_line(self, child: str, stream: str, line: str) -> None:
        self.lines.append((child, stream, line))
        self._wake()

    def on_change(self, status: ChildStatus) -> None:
        self.statuses.append(status)
        self._wake()

    def states(self, child: str) -> list[State]:
        """The states of a child in their order, each change once."""
        states: list[State] = []
        for status in self.statuses:
            if status.name == child and states[-1:] != [status.state]:
                states.append(status.state)
        return states

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until something is true of what was seen, and give it."""
        while not (value := condition()):
            await self._news.wait()
        return value

    async def number(self, prefix: str, count: int = 1) -> int:
        """The number in the latest line that begins with ``prefix``, once there are ``count`` of them."""

        def found() -> list[str]:
            values = [
                line.removeprefix(prefix) for _, _, line in self.lines if line.startswith(prefix)
            ]
            return values if len(values) >= count else []

        return int((await self.until(found))[-1])

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A directory with a path that is short enough for sockets; nothing may be left in it."""
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as name:
        yield Path(name)
        assert not list(Path(name).iterdir()), "sockets were left behind"


@contextlib.asynccontextmanager
async def keeping(spec: ChildSpec, watcher: Watcher) -> AsyncIterator[Child]:
    """Run one child; in the end it is killed, and neither processes nor descriptors may be left."""
    with place() as directory:
        before = open_fds()
        child = Child(
            spec,
            directory,
            on_line=watcher.on_line,
            on_change=watcher.on_change,
            jitter=lambda: 0.0,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run)
            try:
                yield child
            finally:
                with trio.fail_after(30, shield=True):
                    child.feed(Kill("the test is over", final=True))
                    await child.finished.wait()
        left = open_fds() - before
        assert not left, f"descriptors are left open: {left}"
        assert_no_children()


def open_fds() -> set[tuple[str, str]]:
    """The descriptors that this process has open, and what they are; those that only garbage holds are closed first."""
    gc.collect()
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the directory itself is closed again
            found.add((path.name, str(path.readlink())))
    return found


def assert_no_children() -> None:
    """Every process that we started has been reaped."""
    try:
        pid, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    raise AssertionError(f"a process was left: {pid or 'it still runs'}")


def is_state(state: State) -> Callable[[ChildStatus], bool]:
    return lambda status: status.state is state


async def gone(pid: int) -> None:
    """Wait until a process has ended; it need not be ours."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        trio.lowlevel.notify_closing(fd)
        os.close(fd)
