"""The log files of a robot: appended lines in a few files of bounded size.

The newest lines are in the file itself, older ones in NAME.1, NAME.2 and so on. All functions may
block on the disk; call them in a worker thread.

Invariant: a disk error costs lines and nothing else. A line is completely in a file or known to be
lost. The files never exceed their maximum size. Only the robot's user and root can read them,
including those of earlier versions.
"""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from rt.ownership import planted_by, user

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


class LogFile:
    """Appends lines to a file, and rotates it when it is full.

    Args:
        path: The newest file; its directory is created if it is missing.
        max_bytes: Maximum size of a file.
        count: Maximum number of files, including the newest.

    Attributes:
        error: Why the last write was incomplete, or None.
    """

    def __init__(self, path: Path, max_bytes: int, count: int) -> None:
        self.path = path
        self.error: OSError | None = None
        self._max_bytes = max_bytes
        self._count = count
        self._fd = -1
        self._size = 0
        self._torn = False
        self._regular = True
        self._lock = threading.Lock()

    @property
    def total_max_bytes(self) -> int:
        """Maximum size of all files together."""
        return self._max_bytes * self._count

    def write(self, lines: Sequence[bytes]) -> int:
        """Append lines without line ends.

        Returns:
            The number of lines written; the others are lost, and `error` has the reason.
        """
        with self._lock:
            self.error = None
            done = 0
            try:
                self._ensure_open()
                while done < len(lines):
                    data, taken = self._fitting(lines, done)
                    if not taken:
                        self._rotate()
                        continue
                    written = self._append(data)
                    done += taken if written == len(data) else data[:written].count(b"\n")
                    if self.error is not None:
                        break
            except OSError as error:
                self.error = error
            return done

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        with self._lock:
            self._close()

    def _fitting(self, lines: Sequence[bytes], start: int) -> tuple[bytes, int]:
        """Return the lines that fit into the file (one if it is empty), and their number."""
        end = start
        size = self._size
        while end < len(lines):
            size += len(lines[end]) + 1
            if self._regular and size > self._max_bytes and (self._size or end > start):
                break
            end += 1
        return b"".join(line + b"\n" for line in lines[start:end]), end - start

    def _append(self, data: bytes) -> int:
        """Append bytes and return how many of them were written."""
        written = 0
        if self._torn:  # end a partly written line first
            self._size += os.write(self._fd, b"\n")
            self._torn = False
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as error:
            self.error = error
        self._size += written
        self._torn = written > 0 and data[written - 1 : written] != b"\n"
        return written

    def _ensure_open(self) -> None:
        """Open the file, again if it was removed or renamed."""
        if self._fd >= 0:
            try:
                if os.path.samestat(os.fstat(self._fd), self.path.stat()):
                    return
            except FileNotFoundError:
                pass
            self._close()
        self._open()

    def _open(self) -> None:
        _refuse_planted(self.path)
        _make_directory(self.path.parent)
        self._fd = os.open(
            self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, FILE_MODE
        )
        try:
            _refuse_planted(self.path)  # it may have been planted just before it was opened
        except BaseException:
            self._close()
            raise
        _close_to_others(self._fd)
        info = os.fstat(self._fd)
        self._regular = stat.S_ISREG(info.st_mode)
        self._size = info.st_size if self._regular else 0
        # The last line is incomplete after a power cut.
        self._torn = self._size > 0 and os.pread(self._fd, 1, self._size - 1) != b"\n"
        if self._regular:
            self._remove_surplus()
            for number in range(1, self._count):
                _close_file_to_others(numbered(self.path, number))

    def _rotate(self) -> None:
        self._close()
        for number in range(self._count - 1, 0, -1):
            older, newer = numbered(self.path, number), numbered(self.path, number - 1)
            if newer.exists():
                newer.replace(older)
        if self._count == 1:
            self.path.unlink()
        self._open()

    def _remove_surplus(self) -> None:
        """Remove files left by an earlier, larger count."""
        number = self._count
        while (path := numbered(self.path, number)).exists():
            path.unlink()
            number += 1

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _refuse_planted(path: Path) -> None:
    """Refuse a file that another user has placed at the path of the log, for example in /tmp.

    That user could read or redirect the log.

    Raises:
        PermissionError: The file belongs to another user.
    """
    uid = planted_by(path)
    if uid is not None:
        raise PermissionError(
            errno.EACCES, f"it belongs to {user(uid)}; choose another log_file", str(path)
        )


def _make_directory(path: Path) -> None:
    """Create a directory and its parents, accessible to this user only."""
    with contextlib.suppress(FileExistsError):
        if not path.parent.exists():
            _make_directory(path.parent)
        path.mkdir(mode=DIRECTORY_MODE)


def _close_file_to_others(path: Path) -> None:
    """Remove the permissions of other users from a rotated file, if it exists."""
    # In a shared directory another user could replace it by a link or a FIFO.
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            _close_to_others(fd)
        finally:
            os.close(fd)


def _close_to_others(fd: int) -> None:
    """Remove the permissions of other users from a regular file of this user."""
    info = os.fstat(fd)
    if (
        stat.S_ISREG(info.st_mode)
        and info.st_uid == os.geteuid()
        and stat.S_IMODE(info.st_mode) & ~FILE_MODE
    ):
        with contextlib.suppress(OSError):  # some file systems have no modes
            os.fchmod(fd, FILE_MODE)


def numbered(path: Path, number: int) -> Path:
    """Return the path of a rotated file; 0 is the newest."""
    return path.with_name(f"{path.name}.{number}") if number else path
