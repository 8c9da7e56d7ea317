"""What a child writes to its log pipe, stdout and stderr: cut into lines, handed on, and its end kept.

The rules of this module: output is read as it comes, so that a child never waits for its log, but
no faster than `READ_RATE`; a flood of it gives the event loop back every few lines; and what is
kept is bounded. Only what comes on the log pipe is an event of the child's own log; a line of
stdout or stderr is text, whatever it looks like.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import trio

from rt import log
from rt.log import attribution
from rt.log.budget import Budget, Rate
from rt.log.throttle import Bucket, Throttle
from rt.protocol.dump import DumpReader, Frame
from rt.protocol.logevent import CUT, decode_line

MAX_LINE = 65536
"""The longest line in bytes; of a longer one the rest is left out and the cut is marked."""

TAIL = 16384
"""How much of the end is kept, in bytes, stdout and stderr together in the order in which they were read."""

LOG = "log"
"""The name of the stream on which a child writes its own log events."""

READ_BURST: Final = 1 << 21
READ_RATE: Final = 4e6
"""How much of one stream is read at once and in each second after that, in bytes; a line counts as `LINE_COST` more. A process that
writes more waits, and does not take the processor from this one.
"""
LINE_COST: Final = 200

TEXT_LINES: Final = Rate(1000, 500)
TEXT_BYTES: Final = Rate(1 << 20, 256e3)
"""How much text of one process is logged at once and in each second after that."""
EVENT_LINES: Final = Rate(2000, 200)
EVENT_BYTES: Final = Rate(1 << 20, 256e3)
"""The same for the events of its own log."""
DUMP_TIME: Final = 0.1
"""How long the lines of a traceback dump may take to come, in s."""
TELL_INTERVAL: Final = 1.0
"""Least time between two events that count what was suppressed, in s."""

_INSTALLED: Final = (f"{Path(__file__).parents[1]}{os.sep}", f"{Path(os.__file__).parent}{os.sep}")
_LIBRARIES: Final = ("/site-packages/", "/dist-packages/")
_MOST_OTHERS: Final = 3
_CHUNK = 8192
_BREATH = 32
"""After so many lines others may run."""

OnLine = Callable[[str, str, str], None]
"""Called with the child's name, ``log``, ``stdout`` or ``stderr``, and a line without its end."""


class LineSplitter:
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
        on_line: Called for each line, in the event loop: it may not block. `log_line` is replaced
            by a `ChildLog` of its own.
        pid: The process, if known.
        app: The part of the robot that it is; the child's name by default.
    """

    def __init__(self, child: str, on_line: OnLine, pid: int | None = None, app: str = "") -> None:
        self._child = child
        self._log = ChildLog(child, pid, app) if on_line is log_line else None
        self._on_line = on_line if self._log is None else self._log.line
        self._tail = bytearray()

    @property
    def tail(self) -> str:
        """The last of what was written, at most `TAIL` bytes."""
        return self._tail.decode("utf-8", "replace")

    async def drain(self, stream: trio.abc.ReceiveStream, name: str) -> None:
        """Read one stream to its end, or until cancelled; a begun line is then handed on as it is. Closes the stream."""
        cutter = LineSplitter()
        pace = Bucket(READ_BURST, 1 / READ_RATE, trio.current_time())
        try:
            async with stream:
                while chunk := await self._receive(stream):
                    self._keep(chunk)
                    count = 0
                    for count, line in enumerate(cutter.feed(chunk), 1):
                        self._on_line(self._child, name, line)
                        if count % _BREATH == 0:
                            await trio.lowlevel.checkpoint()
                    pace.refill(trio.current_time())
                    pace.tokens -= len(chunk) + LINE_COST * count
                    if pace.tokens < 0:
                        await trio.sleep(-pace.tokens / READ_RATE)
        finally:
            if (last := cutter.finish()) is not None:
                self._on_line(self._child, name, last)
            if self._log is not None:
                self._log.tell(always=True)

    async def _receive(self, stream: trio.abc.ReceiveStream) -> bytes | bytearray:
        """The next piece of a stream; meanwhile what was suppressed, or dumped, is told when it is time."""
        while self._log is not None and self._log.waits:
            with trio.move_on_after(self._log.pause):
                return await stream.receive_some(_CHUNK)
            self._log.tell()
        return await stream.receive_some(_CHUNK)

    def _keep(self, chunk: bytes | bytearray) -> None:
        self._tail += chunk
        if len(self._tail) > TAIL:
            del self._tail[:-TAIL]


class ChildLog:
    """Hands the lines of one process on to our own log, within a budget.

    Args:
        child: The child's name.
        pid: Its process, if known.
        app: The part of the robot that it is; the child's name by default.
    """

    def __init__(self, child: str, pid: int | None = None, app: str = "") -> None:
        now = time.monotonic()
        self._app = app
        self._child = child
        self._pid = pid
        self._text = Budget(TEXT_LINES, TEXT_BYTES, now)
        self._events = Budget(EVENT_LINES, EVENT_BYTES, now)
        self._told = now - TELL_INTERVAL
        self._dump = DumpReader()
        self._dumped = now
        self._throttle = Throttle()
        self._log = log.get_logger(child=child)

    @property
    def waits(self) -> bool:
        """Whether there is something to `tell` when it is time."""
        return self.pause < math.inf

    @property
    def pause(self) -> float:
        """How long it takes until there is something to `tell`, in s; infinite if there is nothing."""
        if self._dump.active:
            return DUMP_TIME
        if self._text.suppressed + self._events.suppressed:
            return TELL_INTERVAL
        return max(self._throttle.due - time.monotonic(), DUMP_TIME)

    def line(self, _child: str, stream: str, line: str) -> None:
        """Hand a line on, or count it."""
        if stream == LOG and not line.startswith("{") and self._dump.feed(line):
            self._dumped = time.monotonic()
            return
        event = _event_of(self._child, stream, line, self._pid, self._app)
        if event is None:
            return
        budget = (
            self._events
            if stream == LOG and event.get("source") != attribution.PRINT
            else self._text
        )
        if budget.take(len(line), time.monotonic()):
            log.relay(event)
        self.tell()

    def tell(self, *, always: bool = False) -> None:
        """Log what was dumped or throttled, and how many lines were suppressed, if it is time, or always."""
        now = time.monotonic()
        if self._dump.active and (always or now - self._dumped >= DUMP_TIME):
            self._tell_stall(self._dump.finish())
        self._throttle.flush(always=always)
        count = self._text.suppressed + self._events.suppressed
        if count and (always or now - self._told >= TELL_INTERVAL):
            self._told = now
            self._text.suppressed = self._events.suppressed = 0
            self._log.warning(
                "log lines of a process were suppressed: it writes too many", suppressed=count
            )

    def _tell_stall(self, threads: list[list[Frame]]) -> None:
        """Log which function keeps the event loop of the process from running; nothing if none of the team does."""
        found = [
            (thread[0], frame)
            for thread in reversed(threads)
            if (frame := _innermost(thread)) is not None
        ]
        # Who waits for the interpreter in a library is not who holds it.
        found.sort(key=lambda one: one[0] is not one[1])
        frames = [frame for _, frame in found]
        if not frames:
            return
        first, *others = frames
        also = [f"{frame.file}:{frame.line} in {frame.func}" for frame in others[:_MOST_OTHERS]]
        fields: dict[str, object] = {
            "event": f"team code holds the interpreter: {first.func} does not return, and the event loop cannot run",
            "level": "error",
            "func": first.func,
            "file": first.file,
            "line": first.line,
            **({"also": also} if also else {}),
        }

        def write(event: str, **context: object) -> None:
            log.relay(
                attribution.from_child(
                    {**fields, "event": event, **context}, self._child, self._pid, self._app
                )
            )

        self._throttle.log(write, str(fields["event"]), "stall")


def _innermost(thread: list[Frame]) -> Frame | None:
    """The innermost frame of code that is not installed, which is the team's."""
    for frame in thread:
        is_installed = any(part in frame.file for part in _LIBRARIES) or frame.file.startswith(
            _INSTALLED
        )
        if frame.file.startswith("/") and not is_installed:
            return frame
    return None


def log_line(child: str, stream: str, line: str) -> None:
    """Hand a line on to our own log.

    A JSON object on the stream `LOG` that carries ``event`` and ``level`` is an event of the
    child's own log; any other line becomes an event with the line as its sentence. Whose the event
    is, is set here (`rt.log.attribution`). Empty lines are left out.
    """
    event = _event_of(child, stream, line)
    if event is not None:
        log.relay(event)


def _event_of(
    child: str, stream: str, line: str, pid: int | None = None, app: str = ""
) -> dict[str, object] | None:
    if stream == LOG and (event := decode_line(line)) is not None:
        return attribution.from_child(event, child, pid, app)
    return attribution.from_stream(line, child, stream, pid, app) if line.strip() else None
