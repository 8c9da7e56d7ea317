"""The process table of the system from /proc/PID/stat (proc(5)), and how to kill processes by it.

Invariant: a scan of all processes blocks the event loop no longer than it takes to read `STEP` of
them.
"""

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import trio

STEP: Final = 32
"""How many processes are read between two checkpoints."""
KILL_TIMEOUT: Final = 1.0
"""How long killed processes may take to exit (s)."""
_MAX_PIDFDS: Final = 128
"""How many killed processes `kill` waits for, each with a descriptor."""
_PASSES: Final = 5
_PROC: Final = "/proc"


class Process(NamedTuple):
    """A process at one moment.

    Attributes:
        parent: The pid of its parent.
        session: The pid of the leader of its session.
        zombie: Whether it has exited and is not reaped.
        start: When it started (clock ticks since boot); distinguishes it from a later process with
            the same pid.
    """

    parent: int
    session: int
    zombie: bool
    start: int


def read(pid: int) -> Process | None:
    """Return one process, or None if no process has this pid."""
    try:
        with open(f"{_PROC}/{pid}/stat", "rb") as file:  # noqa: PTH123 - faster, for many reads
            # The program name is in brackets and may contain brackets.
            fields = file.read().rpartition(b")")[2].split()
        return Process(int(fields[1]), int(fields[3]), fields[0] in (b"Z", b"X"), int(fields[19]))
    except (OSError, IndexError, ValueError):
        return None


def is_same(process: Process | None, start: int) -> bool:
    """Return whether a process exists and started at this time."""
    return process is not None and process.start == start


async def scan() -> dict[int, Process]:
    """Return all processes by pid, with a checkpoint after each `STEP` of them.

    The result contains every process that exists during the whole call, even if its parent exits in
    the meantime.

    Raises:
        OSError: /proc cannot be read.
    """
    found: dict[int, Process] = {}
    for _ in _read_all(found):
        await trio.lowlevel.checkpoint()
    return found


def scan_blocking() -> dict[int, Process]:
    """Return all processes by pid without a checkpoint, for use at the start of a process."""
    found: dict[int, Process] = {}
    for _ in _read_all(found):
        pass
    return found


def _read_all(found: dict[int, Process]) -> Iterator[None]:
    """Read all processes into a map, and again those that started or lost their parent since."""
    seen: set[int] = set()
    count = 0
    for _ in range(_PASSES):
        names = os.listdir(_PROC)  # noqa: PTH208 - only names are needed
        pids = [
            pid
            for pid in map(int, filter(str.isdecimal, names))
            if pid not in seen or (pid in found and _has_lost_parent(found[pid], found))
        ]
        if not pids:
            return
        seen.update(pids)
        for pid in pids:
            process = read(pid)
            if process is None:
                found.pop(pid, None)
            else:
                found[pid] = process
            count += 1
            if count % STEP == 0:
                yield


def _has_lost_parent(process: Process, found: Mapping[int, Process]) -> bool:
    # Parent 0 means that the process has no parent in this PID namespace.
    parent = found.get(process.parent)
    return process.parent != 0 and (parent is None or parent.zombie)


async def kill(starts: Mapping[int, int]) -> set[int]:
    """Kill processes, and wait at most `KILL_TIMEOUT` until they have exited.

    Of very many processes, only the first ones are waited for.

    Args:
        starts: The start time of each process by pid. A pid that belongs to another process by now
            is skipped.

    Returns:
        The pids that were killed. The other processes have exited or belong to another user.

    Raises:
        OSError: No file descriptor is available.
    """
    killed: set[int] = set()
    pidfds: list[int] = []
    try:
        for count, (pid, start) in enumerate(starts.items(), 1):
            if count % STEP == 0:
                await trio.lowlevel.checkpoint()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                fd = os.pidfd_open(pid)
                try:
                    # The pidfd refers to one process; if the start time matches now, it is the
                    # intended one.
                    if is_same(read(pid), start):
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
                        killed.add(pid)
                finally:
                    if pid in killed and len(pidfds) < _MAX_PIDFDS:
                        pidfds.append(fd)
                    else:
                        os.close(fd)
        with trio.move_on_after(KILL_TIMEOUT):
            for fd in pidfds:
                await trio.lowlevel.wait_readable(fd)
    finally:
        for fd in pidfds:
            os.close(fd)
    return killed
