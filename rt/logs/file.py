"""The file in which a robot keeps its log: lines that are appended, in a few files of bounded size.

The newest lines are in the file itself, older ones in NAME.1, NAME.2 and so on. The rules of this
module: whatever the disk does costs lines and nothing else; a line is in the file whole or is known
to be lost; and the files never take more room than they may. All of it may wait for the disk: it
belongs into a worker thread.

Invariant: only the robot's user and root can read the files, those of earlier versions included.
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
    """Appends lines to a file and starts a new one when it has become too long.

    Args:
        path: The newest file. Its directory is made if need be.
        max_bytes: How long a file becomes.
        count: How many files there are at most, the newest included.

    Attributes:
        error: Why the last write did not write everything, or None.
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
    def max_bytes_in_all(self) -> int:
        """How much room all files together take at most."""
        return self._max_bytes * self._count

    def write(self, lines: Sequence[bytes]) -> int:
        """Append lines, which have no ends; returns how many are in the file, the others are lost and `error` says why."""
        with self._lock:
            self.error = None
            done = 0
            try:
                self._find()
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
        """As many lines as the file has room for, at least one if it is empty, and how many they are."""
        end = start
        size = self._size
        while end < len(lines):
            size += len(lines[end]) + 1
            if self._regular and size > self._max_bytes and (self._size or end > start):
                break
            end += 1
        return b"".join(line + b"\n" for line in lines[start:end]), end - start

    def _append(self, data: bytes) -> int:
        """Append bytes and return how many of them are in the file."""
        written = 0
        if self._torn:  # a line of which only a part was taken is ended first
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

    def _find(self) -> None:
        """Make sure that what is open is the file of that name: somebody may have removed or renamed it."""
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
            _refuse_planted(self.path)  # it may have been made just before it was opened
        except BaseException:
            self._close()
            raise
        _close_to_others(self._fd)
        info = os.fstat(self._fd)
        self._regular = stat.S_ISREG(info.st_mode)
        self._size = info.st_size if self._regular else 0
        # The end of a robot whose power was cut.
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
        """Remove the files that an earlier, larger count has left."""
        number = self._count
        while (path := numbered(self.path, number)).exists():
            path.unlink()
            number += 1

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _refuse_planted(path: Path) -> None:
    """Refuse a file that another user has placed where the log is to be, as in /tmp: that user could read the log, or redirect it.

    Raises:
        PermissionError: It belongs to another user; says to whom.
    """
    uid = planted_by(path)
    if uid is not None:
        raise PermissionError(
            errno.EACCES, f"it belongs to {user(uid)}; choose another log_file", str(path)
        )


def _make_directory(path: Path) -> None:
    """Make a directory and its parents; other users may not enter those that are made."""
    with contextlib.suppress(FileExistsError):
        if not path.parent.exists():
            _make_directory(path.parent)
        path.mkdir(mode=DIRECTORY_MODE)


def _close_file_to_others(path: Path) -> None:
    """Take the rights of other users from an older file, if it is there."""
    # Another user could put a link or a FIFO in its place, where the directory lets them.
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            _close_to_others(fd)
        finally:
            os.close(fd)


def _close_to_others(fd: int) -> None:
    """Take the rights of other users from a file of this user; devices and files of other users stay as they are."""
    info = os.fstat(fd)
    if (
        stat.S_ISREG(info.st_mode)
        and info.st_uid == os.geteuid()
        and stat.S_IMODE(info.st_mode) & ~FILE_MODE
    ):
        with contextlib.suppress(OSError):  # a file system may know no modes
            os.fchmod(fd, FILE_MODE)


def numbered(path: Path, number: int) -> Path:
    """The path of an older file; 0 is the newest."""
    return path.with_name(f"{path.name}.{number}") if number else path
