"""What a killed robot leaves behind: processes, files, unpacked code.

The rule of this module: only what is certainly of that robot and of our user is touched; and its
processes first get the time to end by themselves, since one of them may be disabling devices.
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
"""The variable by which the processes of a robot are known: its directory, in the environment of each of them."""

EXIT_TIMEOUT = 1.0
"""Seconds for which the processes of a killed robot may still end by themselves."""

OWN_EXIT_TIMEOUT = 0.1
"""The same at the end of our own robot, whose children had their time already."""

ROUNDS = 5
"""How often it is looked for processes again."""


def empty(directory: Path, keep: str) -> list[str]:
    """Remove everything in a directory but the file ``keep``; gives the names of what was removed."""
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
    """Whether a directory is what a PyInstaller executable of ours unpacked, and not what we run from."""
    # It is removed on the word of a file, so nothing but what PyInstaller makes, where it makes it,
    # may pass.
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
    """Wait until the processes that carry the mark of a robot have ended, and kill those that do not.

    We and our ancestors are spared: a robot may be started from within another one. A process that
    is killed may have started another one just before, so it is looked again until there is none,
    at most ``ROUNDS`` times. Only the first round waits for processes to end by themselves; each
    takes at most ``timeout`` (s) more.

    Returns:
        The processes that were there.
    """
    spared = _ancestors()
    mark = os.fsencode(f"{ENV_DIRECTORY}={directory}")
    ended: set[int] = set()
    patience = timeout
    for _ in range(ROUNDS):
        with contextlib.ExitStack() as stack:
            fds = _open_marked(mark, spared, stack)
            if not fds:
                break
            ended.update(fds.values())
            for fd in _wait_gone(fds, patience):
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            _wait_gone(fds, timeout)
        patience = 0.0
    return sorted(ended)


def _open_marked(mark: bytes, spared: set[int], stack: contextlib.ExitStack) -> dict[int, int]:
    """The processes that carry a mark, by descriptors that the stack closes."""
    fds: dict[int, int] = {}
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        if pid in spared or not _is_marked(pid, mark):
            continue
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(pid)
            stack.callback(os.close, fd)
            # Looked at again: the descriptor is of this process, while the number might be of
            # another by now.
            if _is_marked(pid, mark):
                fds[fd] = pid
    return fds


def _is_marked(pid: int, mark: bytes) -> bool:
    try:
        # Empty for a zombie.
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _wait_gone(fds: Mapping[int, int], seconds: float) -> list[int]:
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
