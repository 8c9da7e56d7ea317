"""What a child writes to stdout and stderr: cut into lines, handed on, and its end kept.

The rules of this module: output is read as it comes, so that a child never waits for its log; a flood of it gives the event
loop back every few lines; and what is kept is bounded.
"""

from collections.abc import Callable, Iterator

import trio

from rt import log
from rt.protocol.logevent import CUT, decode_line

MAX_LINE = 65536
"""The longest line in bytes; of a longer one the rest is left out and the cut is marked."""

TAIL = 16384
"""How much of the end is kept, in bytes, stdout and stderr together in the order in which they were read."""

_CHUNK = 8192
_BREATH = 32
"""After so many lines others may run."""

OnLine = Callable[[str, str, str], None]
"""Called with the child's name, ``stdout`` or ``stderr``, and a line without its end."""


class LineCutter:
    """Cuts a stream of bytes into lines of text; invalid UTF-8 is replaced.

    Args:
        most: The longest line in bytes.
    """

    def __init__(self, most: int = MAX_LINE) -> None:
        self._most = most
        self._line = bytearray()
        self._overlong = False

    def feed(self, data: bytes | bytearray) -> Iterator[str]:
        """Take some bytes and give the lines that they complete."""
        *complete, rest = data.split(b"\n")
        for part in complete:
            self._append(part)
            yield self._take()
        self._append(rest)

    def finish(self) -> str | None:
        """The last line, if the stream did not end with a line break."""
        return self._take() if self._line else None

    def _append(self, part: bytes | bytearray) -> None:
        room = self._most - len(self._line)
        self._line += part[:room]
        self._overlong |= len(part) > room

    def _take(self) -> str:
        text = self._line.decode("utf-8", "replace").removesuffix("\r")
        if self._overlong:
            text += CUT
        self._line.clear()
        self._overlong = False
        return text


class Output:
    """Reads the streams of one process to their end.

    Args:
        child: The child's name.
        on_line: Called for each line, in the event loop: it may not block.
    """

    def __init__(self, child: str, on_line: OnLine) -> None:
        self._child = child
        self._on_line = on_line
        self._tail = bytearray()

    @property
    def tail(self) -> str:
        """The last of what was written, at most `TAIL` bytes."""
        return self._tail.decode("utf-8", "replace")

    async def drain(self, stream: trio.abc.ReceiveStream, name: str) -> None:
        """Read one stream to its end, or until cancelled; a begun line is then handed on as it is. Closes the stream."""
        cutter = LineCutter()
        try:
            async with stream:
                while chunk := await stream.receive_some(_CHUNK):
                    self._keep(chunk)
                    for count, line in enumerate(cutter.feed(chunk), 1):
                        self._on_line(self._child, name, line)
                        if count % _BREATH == 0:
                            await trio.lowlevel.checkpoint()
        finally:
            if (last := cutter.finish()) is not None:
                self._on_line(self._child, name, last)

    def _keep(self, chunk: bytes | bytearray) -> None:
        self._tail += chunk
        if len(self._tail) > TAIL:
            del self._tail[:-TAIL]


def log_line(child: str, stream: str, line: str) -> None:
    """Hand a line on to our own log.

    A JSON object that carries ``event`` and ``level`` is an event of the child's own log, and keeps its fields; any other line
    becomes an event with the line as its sentence. Empty lines are left out.
    """
    event = decode_line(line) if line.lstrip()[:1] == "{" else None
    if event is not None:
        event.setdefault("app", child)
        event["child"] = child
        log.relay(event)
    elif line.strip():
        log.relay({"event": line, "level": "info", "app": child, "child": child, "stream": stream})
