"""Where the lines of a process go: to a file descriptor that never makes anybody wait, or to a stream in memory."""

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
from rt.protocol.logevent import CUT, MAX_LINE, encode_line

Note = Callable[[int], bytes]
"""Makes the line that says how many lines were dropped."""

_ATOMIC = 4096  # a pipe that polls as writable takes this much at once
_writers: "weakref.WeakSet[LineWriter]" = weakref.WeakSet()


def _unlock_all() -> None:
    for writer in _writers:
        writer.unlock()


os.register_at_fork(after_in_child=_unlock_all)


def dropped_lines(count: int) -> dict[str, Any]:
    """The event that says how many lines were dropped."""
    return {
        "event": "log lines were dropped",
        "level": "warning",
        "dropped": count,
        "timestamp": now(),
    }


def _note(count: int) -> bytes:
    return encode_line(dropped_lines(count))


class LineWriter:
    """Writes whole lines to a file descriptor without ever blocking; the rest of one that is longer than `MAX_LINE` is left out.

    Args:
        fd: Where lines go. A file, a pipe or a terminal is opened anew, so that making it
            non-blocking changes nothing for others that write to the same place, but that what they
            write to a file comes at its end, too. A socket, as the journal of systemd is, cannot
            be: each of its writes is told not to wait.
        note: Makes the line that says how many lines were dropped.

    Attributes:
        dropped: Lines that nobody took, since the last that somebody did.
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
                # Else whoever writes there beside us, as an error of `rt run > FILE 2>&1`, would
                # write over our lines.
                fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            self._fd = os.open(f"/proc/self/fd/{fd}", flags)
        except (
            OSError
        ):  # of another user, or no /proc: asked before each write whether it would wait
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)

    @property
    def fd(self) -> int:
        """Where lines go."""
        return self._fd

    def unlock(self) -> None:
        """Forget who is writing: a process that was forked meanwhile has no such thread."""
        # The thread that holds it may come again: a finalizer that logs runs wherever garbage is
        # looked for.
        self._lock = threading.RLock()

    def write(self, line: bytes) -> None:
        """Write a line, or count it as dropped when nobody takes it, the disk is full or the other end has gone."""
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
            line = line[:MAX_LINE].decode(errors="ignore").encode() + CUT.encode()
        # A line of which only a part was taken is ended first, so that this one is whole.
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
    """Writes lines to a stream in memory, as tests use."""

    fd = None

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: bytes) -> None:
        """Write a line."""
        self._stream.write(line.decode() + "\n")


def writer_to(target: TextIO | int, note: Note) -> LineWriter | StreamWriter:
    """A writer of lines to wherever a stream or a descriptor leads; ``note`` is that of `LineWriter`."""
    if isinstance(target, int):
        return LineWriter(target, note)
    try:
        return LineWriter(target.fileno(), note)
    except (OSError, ValueError):
        return StreamWriter(target)
