"""Real children for tests of the supervisor: short programs, and a recorder of their output."""

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
def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
def sleeper(**options):
    command = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"]
    return subprocess.Popen(command, **options)
"""

WELL_BEHAVED = "notify('READY=1'); time.sleep(1000)"
STUBBORN = (
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); notify('READY=1'); "
    "print('ignoring', flush=True); time.sleep(1000)"
)


def program(body: str, *arguments: str) -> tuple[str, ...]:
    """Return the command of a Python program that starts with the prelude."""
    return (sys.executable, "-I", "-S", "-c", PRELUDE + textwrap.dedent(body), *arguments)


class Watcher:
    """Records the lines and statuses of children, and waits for them."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []
        self.statuses: list[ChildStatus] = []
        self._changed = trio.Event()

    def on_line(self, child: str, stream: str, line: str) -> None:
        self.lines.append((child, stream, line))
        self._wake()

    def on_change(self, status: ChildStatus) -> None:
        self.statuses.append(status)
        self._wake()

    def states(self, child: str) -> list[State]:
        """Return the states of a child in order, each change once."""
        states: list[State] = []
        for status in self.statuses:
            if status.name == child and states[-1:] != [status.state]:
                states.append(status.state)
        return states

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition is true, and return its value."""
        while not (value := condition()):
            await self._changed.wait()
        return value

    async def number(self, prefix: str, count: int = 1) -> int:
        """Wait for ``count`` lines with ``prefix``; return the number in the last one."""

        def found() -> list[str]:
            values = [
                line.removeprefix(prefix) for _, _, line in self.lines if line.startswith(prefix)
            ]
            return values if len(values) >= count else []

        return int((await self.until(found))[-1])

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """Create a directory whose path is short enough for sockets; it must be empty in the end."""
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as name:
        yield Path(name)
        assert not list(Path(name).iterdir()), "sockets remain"


@contextlib.asynccontextmanager
async def running_child(spec: ChildSpec, watcher: Watcher) -> AsyncIterator[Child]:
    """Run one child and kill it in the end; no process and no descriptor may remain."""
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
        remaining = open_fds() - before
        assert not remaining, f"open descriptors: {remaining}"
        assert_no_children()


def open_fds() -> set[tuple[str, str]]:
    """Return the open descriptors of this process and their targets, after a garbage collection."""
    gc.collect()
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of the directory is closed again
            found.add((path.name, str(path.readlink())))
    return found


def assert_no_children() -> None:
    """Assert that this process has no children."""
    try:
        pid, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    raise AssertionError(f"a child remains: {pid or 'still running'}")


def is_state(state: State) -> Callable[[ChildStatus], bool]:
    return lambda status: status.state is state


async def wait_until_exited(pid: int) -> None:
    """Wait until a process has exited; it need not be a child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        trio.lowlevel.notify_closing(fd)
        os.close(fd)
