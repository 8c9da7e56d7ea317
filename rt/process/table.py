"""The processes of the system as /proc/PID/stat shows them (proc(5)), and the end of some of them.

Invariant: no look at all processes blocks the event loop for longer than it takes to read `STEP` of
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
"""How long killed processes may take to be gone (s)."""
_WAITED_FOR: Final = 128
"""For how many killed processes `kill` waits, each with a descriptor."""
_PASSES: Final = 5
_PROC: Final = "/proc"


class Process(NamedTuple):
    """A process at one moment.

    Attributes:
        parent: The pid of its parent.
        session: The pid of the leader of its session.
        zombie: Whether it has ended and has not been waited for.
        start: When it started, in clock ticks since boot; tells it from a later process with the
            same pid.
    """

    parent: int
    session: int
    zombie: bool
    start: int


def read(pid: int) -> Process | None:
    """One process, or None if there is none of this pid."""
    try:
        with open(f"{_PROC}/{pid}/stat", "rb") as file:  # noqa: PTH123 - read hundreds of times in a row
            # The name of the program is in brackets and may itself contain some.
            fields = file.read().rpartition(b")")[2].split()
        return Process(int(fields[1]), int(fields[3]), fields[0] in (b"Z", b"X"), int(fields[19]))
    except (OSError, IndexError, ValueError):
        return None


def is_same(process: Process | None, start: int) -> bool:
    """Whether a process is there, and the one that started then."""
    return process is not None and process.start == start


async def scan() -> dict[int, Process]:
    """All processes by pid; a checkpoint after each `STEP` of them.

    It includes each process that exists from before the call until its end, also below a parent
    that ends meanwhile.

    Raises:
        OSError: /proc cannot be read.
    """
    found: dict[int, Process] = {}
    for _ in _read_all(found):
        await trio.lowlevel.checkpoint()
    return found


def scan_blocking() -> dict[int, Process]:
    """All processes by pid, without a checkpoint: for the start of a process, before anything depends on its event loop."""
    found: dict[int, Process] = {}
    for _ in _read_all(found):
        pass
    return found


def _read_all(found: dict[int, Process]) -> Iterator[None]:
    """Read all processes into a map, and those again that were made or lost their parent meanwhile."""
    seen: set[int] = set()
    count = 0
    for _ in range(_PASSES):
        pids = [int(name) for name in os.listdir(_PROC) if name.isdecimal()]  # noqa: PTH208 - names are all that is needed
        pids = [
            pid
            for pid in pids
            if pid not in seen or (pid in found and _has_lost_its_parent(found[pid], found))
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


def _has_lost_its_parent(process: Process, found: Mapping[int, Process]) -> bool:
    # The kernel shows 0 as the parent of what has none in our namespace.
    parent = found.get(process.parent)
    return process.parent != 0 and (parent is None or parent.zombie)


async def kill(starts: Mapping[int, int]) -> set[int]:
    """Kill processes, and wait until they have ended, at most `KILL_TIMEOUT`; if they are very many, until the first of them have.

    Args:
        starts: When each of them started, by pid. A pid that belongs to another process by now is
            left alone.

    Returns:
        Those that were killed. The others have ended, or belong to another user.

    Raises:
        OSError: This process has no descriptor left.
    """
    killed: set[int] = set()
    waited_for: list[int] = []
    try:
        for count, (pid, start) in enumerate(starts.items(), 1):
            if count % STEP == 0:
                await trio.lowlevel.checkpoint()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                fd = os.pidfd_open(pid)
                try:
                    # The descriptor is of this very process; only now is it certain that the pid
                    # was not given to another.
                    if is_same(read(pid), start):
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
                        killed.add(pid)
                finally:
                    if pid in killed and len(waited_for) < _WAITED_FOR:
                        waited_for.append(fd)
                    else:
                        os.close(fd)
        with trio.move_on_after(KILL_TIMEOUT):
            for fd in waited_for:
                await trio.lowlevel.wait_readable(fd)
    finally:
        for fd in waited_for:
            os.close(fd)
    return killed
