"""Removal of what a killed robot leaves: processes, files and unpacked code.

Invariant: only what certainly belongs to that robot and to this user is touched. Its processes
first get time to exit by themselves, because one of them may be disabling devices.
"""

import contextlib
import os
import re
import select
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ENV_DIRECTORY = "RT_INSTANCE_DIR"
"""Environment variable with the instance directory, which identifies the processes of a robot."""

EXIT_TIMEOUT = 1.0
"""Time (s) that the processes of a killed robot get to exit by themselves."""

OWN_EXIT_TIMEOUT = 0.1
"""The same at the end of this robot, whose children have had their time before."""

ROUNDS = 5
"""Maximum number of searches for processes."""


def empty(directory: Path, keep: str) -> list[str]:
    """Remove everything in a directory except the file ``keep``; return the removed names."""
    removed: list[str] = []
    try:
        paths = sorted(directory.iterdir())
    except FileNotFoundError:
        return []
    for path in paths:
        if path.name == keep:
            continue
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed.append(path.name)
    return removed


def is_stale_unpacked(path: Path) -> bool:
    """Whether another PyInstaller executable of this user unpacked a directory."""
    # A file names the directory to remove, so accept only names and places that PyInstaller uses.
    try:
        info = path.lstat()
    except OSError:
        return False
    ours = stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()
    named = re.fullmatch(r"_MEI[A-Za-z0-9]+", path.name) and path.parent == Path(
        tempfile.gettempdir()
    )
    return bool(ours and named) and str(path) != getattr(sys, "_MEIPASS", None)


def end_processes(directory: Path, timeout: float = EXIT_TIMEOUT) -> list[int]:
    """Wait until the processes of a robot have exited, and kill those that have not.

    This process and its ancestors are excluded, because a robot may be started from another one. A
    killed process may have started another one just before, so the search is repeated until none
    is left, at most ``ROUNDS`` times. Only the first round waits for processes to exit by
    themselves.

    Args:
        directory: The instance directory.
        timeout: Time that processes get to exit, and maximum time of each round after a kill (s).

    Returns:
        The process ids that were found.
    """
    excluded = _ancestors()
    entry = os.fsencode(f"{ENV_DIRECTORY}={directory}")
    ended: set[int] = set()
    patience = timeout
    for _ in range(ROUNDS):
        with contextlib.ExitStack() as stack:
            fds = _open_processes(entry, excluded, stack)
            if not fds:
                break
            ended.update(fds.values())
            for fd in _wait_exited(fds, patience):
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            _wait_exited(fds, timeout)
        patience = 0.0
    return sorted(ended)


def _open_processes(
    entry: bytes, excluded: set[int], stack: contextlib.ExitStack
) -> dict[int, int]:
    """Return the processes with an environment entry, by pidfds that the stack closes."""
    fds: dict[int, int] = {}
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        if pid in excluded or not _has_entry(pid, entry):
            continue
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(pid)
            stack.callback(os.close, fd)
            # Check again, because the number may have been reused before the pidfd was opened.
            if _has_entry(pid, entry):
                fds[fd] = pid
    return fds


def _has_entry(pid: int, entry: bytes) -> bool:
    try:
        # Empty for a zombie.
        return entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _wait_exited(fds: Mapping[int, int], seconds: float) -> list[int]:
    left = list(fds)
    deadline = time.monotonic() + seconds
    while left and (remaining := deadline - time.monotonic()) > 0:
        poll = select.poll()
        for fd in left:
            poll.register(fd, select.POLLIN)
        gone = {fd for fd, _ in poll.poll(remaining * 1000)}
        left = [fd for fd in left if fd not in gone]
    return left


def _ancestors() -> set[int]:
    pids: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in pids:
        pids.add(pid)
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            break
        pid = int(fields[1])
    return pids
