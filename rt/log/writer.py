"""Writers of log lines: to a file descriptor without blocking, or to a stream in memory."""

import fcntl
import os
import select
import socket
import stat
import threading
import weakref
from collections.abc import Callable
from typing import Any, TextIO

from rt.log.stamp import now
from rt.protocol.logevent import CUT_MARKER, MAX_LINE, encode_line

Note = Callable[[int], bytes]
"""Returns the line that reports a number of dropped lines."""

_ATOMIC = 4096  # a pipe that polls as writable accepts this many bytes
_writers: "weakref.WeakSet[LineWriter]" = weakref.WeakSet()


def _unlock_all() -> None:
    for writer in _writers:
        writer.unlock()


os.register_at_fork(after_in_child=_unlock_all)


def dropped_lines(count: int) -> dict[str, Any]:
    """Return the event that reports a number of dropped lines."""
    return {"event": "log lines dropped", "level": "warning", "dropped": count, "timestamp": now()}


def _note(count: int) -> bytes:
    return encode_line(dropped_lines(count))


class LineWriter:
    """Writes whole lines to a file descriptor without blocking; cuts lines at `MAX_LINE` bytes.

    Args:
        fd: File descriptor. A file, a pipe or a terminal is opened again, so that non-blocking mode
            does not affect other writers; a file is set to append mode for all of them. A socket,
            such as that of the systemd journal, cannot be opened again, so each write to it is
            non-blocking.
        note: Returns the line that reports a number of dropped lines.

    Attributes:
        dropped: Lines dropped since the last line that was written.
    """

    def __init__(self, fd: int, note: Note = _note) -> None:
        self.dropped = 0
        self._fd = fd
        self._note = note
        self.unlock()
        self._torn = False
        self._socket: socket.socket | None = None
        self._poll: select.poll | None = None
        _writers.add(self)
        try:
            kind = os.fstat(fd).st_mode
            if stat.S_ISSOCK(kind):
                self._socket = socket.socket(fileno=os.dup(fd))
                return
            if stat.S_ISREG(kind):
                # Otherwise other writers, such as stderr in `rt run > FILE 2>&1`, would overwrite
                # our lines.
                fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            self._fd = os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:
            # A file of another user, or no /proc: poll before each write.
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)

    @property
    def fd(self) -> int:
        """The file descriptor that lines are written to."""
        return self._fd

    def unlock(self) -> None:
        """Replace the lock; in a forked process its owner may not exist."""
        # Reentrant, because a finalizer that logs can run at any allocation.
        self._lock = threading.RLock()

    def write(self, line: bytes) -> None:
        """Write a line, or count it as dropped if the write would block or fails."""
        with self._lock:
            if self.dropped:
                if not self._put(self._note(self.dropped)):
                    self.dropped += 1
                    return
                self.dropped = 0
            if not self._put(line):
                self.dropped += 1

    def _put(self, line: bytes) -> bool:
        if len(line) > MAX_LINE:
            line = line[:MAX_LINE].decode(errors="ignore").encode() + CUT_MARKER.encode()
        # End a partly written line first, so that this one is whole.
        data = b"\n%b\n" % line if self._torn else line + b"\n"
        written = self._write(data)
        if written:
            self._torn = written < len(data)
        return written == len(data)

    def _write(self, data: bytes) -> int:
        written = 0
        try:
            while written < len(data):
                if self._socket is not None:
                    written += self._socket.send(
                        data[written:], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
                    )
                elif self._poll is None:
                    written += os.write(self._fd, data[written:])
                elif self._poll.poll(0):
                    written += os.write(self._fd, data[written : written + _ATOMIC])
                else:
                    break
        except OSError:
            pass
        return written


class StreamWriter:
    """Writes lines to a stream in memory, for tests."""

    fd = None

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: bytes) -> None:
        """Write a line."""
        self._stream.write(line.decode() + "\n")


def writer_to(target: TextIO | int, note: Note) -> LineWriter | StreamWriter:
    """Return a writer for a stream or a file descriptor; see `LineWriter` for ``note``."""
    if isinstance(target, int):
        return LineWriter(target, note)
    try:
        return LineWriter(target.fileno(), note)
    except (OSError, ValueError):
        return StreamWriter(target)
