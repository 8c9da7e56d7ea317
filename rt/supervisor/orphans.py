"""Orphans: processes that the team's code left behind, whatever session, group and environment they gave themselves.

A process whose parent ends becomes a child of the nearest ancestor that asked for it (PR_SET_CHILD_SUBREAPER of prctl(2)). The root asks,
so that every process below a child becomes its own in the end, and is killed when a child of the root ends.

Invariant: a child that this process started itself is never taken for an orphan. So rt starts processes with `open_process`, which
notes them, and nothing is judged while one is being started. trio keeps the exit statuses of its own children: others are waited for by
number.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio

from rt import log
from rt.instance import ENV_DIRECTORY

KILL_TIMEOUT: Final = 1.0
"""How long killed orphans may take to be gone (s)."""
REAP_INTERVAL: Final = 0.5
"""The least time between two looks for orphans that have ended (s)."""

_ROUNDS: Final = 20
"""The children of an orphan that is killed become orphans themselves and are found in the next round."""
_AT_ONCE: Final = 32
"""Processes of the system that are looked at between two checkpoints."""
_PR_SET_CHILD_SUBREAPER: Final = 36
_INIT: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Process(NamedTuple):
    """A line of /proc/PID/stat (proc(5))."""

    parent: int
    zombie: bool
    start: int


class _State:
    """What this process knows of its children."""

    adopting = False
    own: dict[int, int]
    making = 0
    made = trio.lowlevel.ParkingLot()


_State.own = {}


@contextlib.contextmanager
def adopted() -> Iterator[None]:
    """Let the descendants of this process that lose their parent become its children, until the end of the block.

    Children that it has already stay what they are. On a kernel that refuses it a warning is logged, and orphans stay.
    """
    if not _set_subreaper(True):
        reason = os.strerror(ctypes.get_errno())
        log.get_logger().warning("processes that the team's code leaves behind are not found", reason=reason)
        yield
        return
    _State.own = {pid: each.start for pid, each in _processes().items() if each.parent == os.getpid()}
    _State.adopting = True
    try:
        yield
    finally:
        _State.adopting = False
        _set_subreaper(False)


def _set_subreaper(on: bool, /) -> bool:
    return not _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


async def open_process(command: Sequence[str], **options: Any) -> trio.Process:
    """Start a process that is no orphan; `trio.lowlevel.open_process` otherwise."""
    _State.making += 1
    try:
        process: trio.Process = await trio.lowlevel.open_process(command, **options)
        if _State.adopting and (found := _process(process.pid)) is not None:
            _State.own[process.pid] = found.start
        return process
    finally:
        _State.making -= 1
        if not _State.making:
            _State.made.unpark_all()


async def kill() -> int:
    """Kill all orphans and their descendants; how many there were. Does nothing outside of `adopted`. A checkpoint."""
    await trio.lowlevel.checkpoint()
    killed: set[int] = set()
    for _ in range(_ROUNDS if _State.adopting else 0):
        found = await _find()
        if not found:
            break
        killed.update(found)
        await _kill(found)
    return len(killed)


async def reap() -> None:
    """Wait for the exit statuses of orphans that end by themselves, until cancelled."""
    with trio.open_signal_receiver(signal.SIGCHLD) as signals:
        async for _ in signals:
            await _find()
            await trio.sleep(REAP_INTERVAL)


async def _find() -> dict[int, int]:
    """The living orphans and all that is below them, with their start times; those that have ended are waited for."""
    if not _State.adopting:
        return {}
    while True:
        while _State.making:
            await _State.made.park()
        processes = await _looked_through()
        if not _State.making:
            return _judged(processes)


def _judged(processes: dict[int, _Process]) -> dict[int, int]:
    us = os.getpid()
    # A process that was started meanwhile need not be among those that were found.
    own = _State.own = {
        pid: start for pid, start in _State.own.items() if _is(processes.get(pid) or _process(pid), start)
    }
    below: dict[int, list[int]] = {}
    for pid, each in processes.items():
        below.setdefault(each.parent, []).append(pid)
    waiting = [pid for pid in below.get(us, ()) if pid not in own]
    found: dict[int, int] = {}
    for pid in waiting:
        if processes[pid].zombie:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    # The first process of a container is given the orphans of everything in it.
    waiting = [pid for pid in waiting if not processes[pid].zombie and (us != _INIT or _is_marked(pid))]
    while waiting:
        pid = waiting.pop()
        if not processes[pid].zombie:
            found[pid] = processes[pid].start
        waiting += below.get(pid, ())
    return found


async def _kill(found: dict[int, int]) -> None:
    with contextlib.ExitStack() as stack:
        fds = []
        for pid, start in found.items():
            # A process that ends meanwhile is what we want; one of another user cannot be killed.
            with contextlib.suppress(OSError):
                fd = os.pidfd_open(pid)
                stack.callback(os.close, fd)
                # The descriptor is of this very process; only now is it certain that the number was not given to another.
                if _is(_process(pid), start):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    fds.append(fd)
        with trio.move_on_after(KILL_TIMEOUT):
            for fd in fds:
                await trio.lowlevel.wait_readable(fd)


def _is(process: _Process | None, start: int) -> bool:
    return process is not None and process.start == start


def _processes() -> dict[int, _Process]:
    found = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed
        if entry.isdecimal() and (process := _process(int(entry))) is not None:
            found[int(entry)] = process
    return found


async def _looked_through() -> dict[int, _Process]:
    """As `_processes`, with a checkpoint after every few: other users may have any number of processes."""
    found = {}
    for index, entry in enumerate(os.listdir("/proc")):  # noqa: PTH208 - names are all that is needed
        if entry.isdecimal() and (process := _process(int(entry))) is not None:
            found[int(entry)] = process
        if index % _AT_ONCE == _AT_ONCE - 1:
            await trio.lowlevel.checkpoint()
    return found


def _process(pid: int) -> _Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - read hundreds of times in a row
            # The name of the program stands in brackets and may itself contain some.
            fields = file.read().rpartition(b")")[2].split()
        return _Process(int(fields[1]), fields[0] in (b"Z", b"X"), int(fields[19]))
    except (OSError, IndexError, ValueError):
        return None


def _is_marked(pid: int) -> bool:
    try:
        return f"{ENV_DIRECTORY}=".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
