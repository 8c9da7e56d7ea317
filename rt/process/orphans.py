"""Orphans: processes that the team's code left behind, whatever session, group and environment they gave themselves.

A process whose parent ends becomes a child of the nearest ancestor that asked for it
(PR_SET_CHILD_SUBREAPER of prctl(2)). The root asks, so that every process below a child becomes its
own in the end, and is killed when that child ends.

An orphan belongs to a child that lives if it is in the session of that child, or carries its mark
in the environment. An orphan that has given itself a session of its own and another environment
belongs to no child, and is killed when any child ends.

Invariant: a child that this process started itself is never taken for an orphan. So rt starts
    processes with `open_process`, which
notes them, and nothing is judged while one is being started. trio keeps the exit statuses of its
own children: others are waited for by number.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio

from rt import log
from rt.instance.stale_files import ENV_DIRECTORY
from rt.process import table
from rt.process.table import STEP, Process, is_same

ENV_CHILD: Final = "RT_CHILD"
"""The variable of the environment that holds the mark of a child, for all that is below it."""
REAP_INTERVAL: Final = 0.5
"""The least time between two looks for orphans that have ended (s)."""

_ROUNDS: Final = 20
"""The children of an orphan that is killed become orphans themselves and are found in the next round."""
_PR_SET_CHILD_SUBREAPER: Final = 36
_INIT: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Own(NamedTuple):
    """A child that this process has started.

    Attributes:
        start: When it started.
        mark: The value of `ENV_CHILD` in its environment, or empty.
    """

    start: int
    mark: str = ""


class _State:
    """What this process knows of its children."""

    adopting = False
    own: dict[int, _Own]
    making = 0
    made = trio.lowlevel.ParkingLot()


_State.own = {}


@contextlib.contextmanager
def subreaper() -> Iterator[None]:
    """Let the descendants of this process that lose their parent become its children, until the end of the block.

    Children that it has already stay what they are. On a kernel that refuses it a warning is
    logged, and orphans stay.
    """
    if not _set_subreaper(True):
        reason = os.strerror(ctypes.get_errno())
        log.get_logger().warning(
            "processes that the team's code leaves behind are not found", reason=reason
        )
        yield
        return
    us = os.getpid()
    _State.own = {
        pid: _Own(each.start) for pid, each in table.scan_blocking().items() if each.parent == us
    }
    _State.adopting = True
    try:
        yield
    finally:
        _State.adopting = False
        _set_subreaper(False)


def _set_subreaper(on: bool, /) -> bool:
    return not _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


async def open_process(command: Sequence[str], **options: Any) -> trio.Process:
    """Start a process that is no orphan; `trio.lowlevel.open_process` otherwise. Inside of `subreaper` it carries a mark."""
    mark = ""
    if _State.adopting:
        mark = os.urandom(8).hex()
        options["env"] = {**(options.get("env") or os.environ), ENV_CHILD: mark}
    _State.making += 1
    try:
        process: trio.Process = await trio.lowlevel.open_process(command, **options)
        if _State.adopting and (found := table.read(process.pid)) is not None:
            _State.own[process.pid] = _Own(found.start, mark)
        return process
    finally:
        _State.making -= 1
        if not _State.making:
            _State.made.unpark_all()


async def kill(leader: int | None = None) -> int:
    """Kill the rest of a child's session, and every orphan and its descendants, but what belongs to other children that live.

    Args:
        leader: A child that has ended and has not been waited for, or None to kill orphans alone.

    Returns:
        How many processes were killed. Outside of `subreaper` there are no orphans.

    Raises:
        OSError: /proc cannot be read, or this process has no descriptor left.
    """
    await trio.lowlevel.checkpoint()
    killed: set[int] = set()
    tried: dict[int, int] = {}
    for _ in range(_ROUNDS if _State.adopting or leader is not None else 0):
        found = await _scan()
        doomed = {
            pid: each.start
            for pid, each in found.items()
            if each.session == leader and not each.zombie
        }
        doomed.pop(leader or 0, None)
        doomed |= await _orphans(found, leader)
        if (
            doomed.items() <= tried.items()
        ):  # the kernel does not let the rest end now, or it belongs to another user
            break
        tried |= doomed
        killed |= await table.kill(doomed)
    return len(killed)


async def reap() -> None:
    """Wait for the exit statuses of orphans that end by themselves, until cancelled."""
    with trio.open_signal_receiver(signal.SIGCHLD) as signals:
        async for _ in signals:
            with contextlib.suppress(
                OSError
            ):  # no descriptor is left: the next orphan that ends tries again
                await _orphans(await _scan(), None)
            await trio.sleep(REAP_INTERVAL)


async def _scan() -> dict[int, Process]:
    """All processes. When it returns, every process that rt has started and that is among them is noted."""
    found = await table.scan()
    while _State.making:
        await _State.made.park()
    return found


async def _orphans(found: Mapping[int, Process], leader: int | None) -> dict[int, int]:
    """The living orphans that belong to no child that lives, and all that is below them, with their start times.

    Orphans that have ended are waited for. Each orphan is judged by a look at this moment, since
    the scan took a while.

    Args:
        found: What `_scan` has just returned.
        leader: A child that counts as ended.
    """
    if not _State.adopting:
        return {}
    _State.own = {
        pid: own for pid, own in _State.own.items() if is_same(table.read(pid), own.start)
    }
    living = {pid for pid in _State.own if pid in found and not found[pid].zombie and pid != leader}
    marks = {_State.own[pid].mark for pid in living}
    below: dict[int, list[int]] = {}
    for pid, each in found.items():
        below.setdefault(each.parent, []).append(pid)
    waiting: list[int] = []
    us = os.getpid()
    for count, pid in enumerate(below.get(us, ()), 1):
        if count % STEP == 0:
            await trio.lowlevel.checkpoint()
        orphan = table.read(pid)
        if (
            orphan is None
            or orphan.start != found[pid].start
            or orphan.parent != us
            or _is_own(pid, orphan)
        ):
            continue
        if orphan.zombie:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - does not wait
        elif orphan.session not in living and not _is_spared(pid, marks):
            waiting.append(pid)
    doomed: dict[int, int] = {}
    while waiting:
        pid = waiting.pop()
        if not found[pid].zombie:
            doomed[pid] = found[pid].start
        waiting += below.get(pid, ())
    return doomed


def _is_own(pid: int, process: Process) -> bool:
    own = _State.own.get(pid)
    return own is not None and own.start == process.start


def _is_spared(pid: int, marks: set[str]) -> bool:
    """Whether a process carries one of these marks, or is an orphan that we have been given as the first process of a container."""
    try:
        variables = dict(
            each.partition(b"=")[::2]
            for each in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        )
    except OSError:
        variables = {}
    mark = variables.get(ENV_CHILD.encode(), b"").decode(errors="replace")
    return (mark != "" and mark in marks) or (
        os.getpid() == _INIT and ENV_DIRECTORY.encode() not in variables
    )
