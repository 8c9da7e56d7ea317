"""Orphans: processes that team code left behind in any session, group or environment.

A process whose parent exits becomes a child of the nearest subreaper (PR_SET_CHILD_SUBREAPER of
prctl(2)). The root is a subreaper, so every descendant of a child becomes its own child in the end,
and is killed when that child exits.

An orphan belongs to a running child if it is in the child's session or has the child's tag in its
environment. An orphan with neither is killed when any child exits.

Invariant: a child that this process started is never treated as an orphan. Therefore rt starts
processes with `open_process`, which records them, and no orphan is identified while one is being
started. Only orphans are reaped here, by pid, because trio reaps its own children.
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
"""The environment variable with the tag of a child, which all of its descendants inherit."""
REAP_INTERVAL: Final = 0.5
"""The shortest time between two scans for orphans that have exited (s)."""

_ROUNDS: Final = 20
"""The children of a killed orphan become orphans, and are found in the next round."""
_PR_SET_CHILD_SUBREAPER: Final = 36
_INIT: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Child(NamedTuple):
    """A child that this process started.

    Attributes:
        start: When it started (clock ticks since boot).
        tag: The value of `ENV_CHILD` in its environment, or empty.
    """

    start: int
    tag: str = ""


class _State:
    """The state of this process as a subreaper.

    Attributes:
        is_subreaper: Whether orphans become children of this process.
        children: The children that this process started, by pid.
        starting: How many processes are being started.
        started: Wakes the tasks that wait until ``starting`` is 0.
    """

    is_subreaper = False
    children: dict[int, _Child]
    starting = 0
    started = trio.lowlevel.ParkingLot()


_State.children = {}


@contextlib.contextmanager
def subreaper() -> Iterator[None]:
    """Make this process the subreaper of its descendants until the end of the block.

    Children from before the block do not count as orphans. If the kernel refuses, a warning is
    logged, and orphans are not killed.
    """
    if not _set_subreaper(True):
        reason = os.strerror(ctypes.get_errno())
        log.get_logger().warning(
            "cannot find processes that team code leaves behind", reason=reason
        )
        yield
        return
    us = os.getpid()
    _State.children = {
        pid: _Child(each.start) for pid, each in table.scan_blocking().items() if each.parent == us
    }
    _State.is_subreaper = True
    try:
        yield
    finally:
        _State.is_subreaper = False
        _set_subreaper(False)


def _set_subreaper(on: bool, /) -> bool:
    return not _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


async def open_process(command: Sequence[str], **options: Any) -> trio.Process:
    """Start a process as `trio.lowlevel.open_process` does, and record it as a child.

    Inside of `subreaper`, its environment contains a new tag.
    """
    tag = ""
    if _State.is_subreaper:
        tag = os.urandom(8).hex()
        options["env"] = {**(options.get("env") or os.environ), ENV_CHILD: tag}
    _State.starting += 1
    try:
        process: trio.Process = await trio.lowlevel.open_process(command, **options)
        if _State.is_subreaper and (found := table.read(process.pid)) is not None:
            _State.children[process.pid] = _Child(found.start, tag)
        return process
    finally:
        _State.starting -= 1
        if not _State.starting:
            _State.started.unpark_all()


async def kill(leader: int | None = None) -> int:
    """Kill the rest of a child's session, and all orphans that belong to no running child.

    The descendants of the orphans are killed too. Outside of `subreaper` this finds no orphans.

    Args:
        leader: A child that has exited and is not reaped, or None to kill orphans only.

    Returns:
        How many processes were killed.

    Raises:
        OSError: /proc cannot be read, or no file descriptor is available.
    """
    await trio.lowlevel.checkpoint()
    killed: set[int] = set()
    tried: dict[int, int] = {}
    for _ in range(_ROUNDS if _State.is_subreaper or leader is not None else 0):
        found = await _scan()
        targets = {
            pid: each.start
            for pid, each in found.items()
            if each.session == leader and not each.zombie
        }
        targets.pop(leader or 0, None)
        targets |= await _find_orphans(found, leader)
        if targets.items() <= tried.items():
            # The rest cannot exit now (the kernel is busy with it) or belongs to another user.
            break
        tried |= targets
        killed |= await table.kill(targets)
    return len(killed)


async def reap() -> None:
    """Reap orphans that exit by themselves, until cancelled."""
    with trio.open_signal_receiver(signal.SIGCHLD) as signals:
        async for _ in signals:
            with contextlib.suppress(OSError):  # no free descriptor: tried at the next SIGCHLD
                await _find_orphans(await _scan(), None)
            await trio.sleep(REAP_INTERVAL)


async def _scan() -> dict[int, Process]:
    """Return all processes, once each process that rt is starting has been recorded."""
    found = await table.scan()
    while _State.starting:
        await _State.started.park()
    return found


async def _find_orphans(found: Mapping[int, Process], leader: int | None) -> dict[int, int]:
    """Return the running orphans that belong to no running child, with their descendants.

    Orphans that have exited are reaped. Each orphan is read again, because the scan took time.

    Args:
        found: The processes that `_scan` has just returned.
        leader: A child that counts as exited.

    Returns:
        Their start times by pid.
    """
    if not _State.is_subreaper:
        return {}
    _State.children = {
        pid: child
        for pid, child in _State.children.items()
        if is_same(table.read(pid), child.start)
    }
    running = {
        pid for pid in _State.children if pid in found and not found[pid].zombie and pid != leader
    }
    tags = {_State.children[pid].tag for pid in running}
    children_of: dict[int, list[int]] = {}
    for pid, each in found.items():
        children_of.setdefault(each.parent, []).append(pid)
    pending: list[int] = []
    us = os.getpid()
    for count, pid in enumerate(children_of.get(us, ()), 1):
        if count % STEP == 0:
            await trio.lowlevel.checkpoint()
        orphan = table.read(pid)
        if (
            orphan is None
            or orphan.start != found[pid].start
            or orphan.parent != us
            or _is_child(pid, orphan)
        ):
            continue
        if orphan.zombie:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - does not wait
        elif orphan.session not in running and not _is_spared(pid, tags):
            pending.append(pid)
    orphans: dict[int, int] = {}
    while pending:
        pid = pending.pop()
        if not found[pid].zombie:
            orphans[pid] = found[pid].start
        pending += children_of.get(pid, ())
    return orphans


def _is_child(pid: int, process: Process) -> bool:
    child = _State.children.get(pid)
    return child is not None and child.start == process.start


def _is_spared(pid: int, tags: set[str]) -> bool:
    """Return whether a process has one of these tags, or does not stem from a robot.

    The latter happens in a container, where this process is the init process.
    """
    try:
        variables = dict(
            each.partition(b"=")[::2]
            for each in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        )
    except OSError:
        variables = {}
    tag = variables.get(ENV_CHILD.encode(), b"").decode(errors="replace")
    return (tag != "" and tag in tags) or (
        os.getpid() == _INIT and ENV_DIRECTORY.encode() not in variables
    )
