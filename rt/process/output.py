"""The output of a child: lines from its log pipe, stdout and stderr, and the tail of both.

Invariant: output is read as it arrives, but no faster than `READ_RATE`, with a checkpoint every few
lines, and the memory for it is bounded. Only lines on the log pipe can be log events of the child;
lines on stdout and stderr are text.
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
from rt.log.budget import REPORT_INTERVAL, Budget, Rate
from rt.log.throttle import Bucket, Throttle
from rt.process.logpipe import LOG
from rt.protocol.dump import DumpReader, Frame
from rt.protocol.logevent import CUT_MARKER, decode_line

MAX_LINE = 65536
"""The longest line (bytes). The rest of a longer one is dropped, and a mark is appended."""

TAIL = 16384
"""How much of the end of the output is kept (bytes), all streams together in reading order."""

READ_BURST: Final = 1 << 21
READ_RATE: Final = 4e6
"""How much of one stream is read at once, and per second after that (bytes).

A line counts as `LINE_COST` bytes more. A process that writes more has to wait.
"""
LINE_COST: Final = 200

TEXT_LINES: Final = Rate(1000, 500)
TEXT_BYTES: Final = Rate(1 << 20, 256e3)
"""How much text of one process is logged at once, and per second after that."""
EVENT_LINES: Final = Rate(2000, 200)
EVENT_BYTES: Final = Rate(1 << 20, 256e3)
"""The same for the log events of one process."""
DUMP_TIME: Final = 0.1
"""How long the lines of a traceback dump may take to arrive (s)."""

_INSTALLED: Final = (f"{Path(__file__).parents[1]}{os.sep}", f"{Path(os.__file__).parent}{os.sep}")
_LIBRARIES: Final = ("/site-packages/", "/dist-packages/")
_MAX_OTHERS: Final = 3
_CHUNK = 8192
_YIELD_EVERY = 32
"""How many lines are handled between two checkpoints."""

OnLine = Callable[[str, str, str], None]
"""Called with the child's name, ``log``, ``stdout`` or ``stderr``, and a line."""


class LineSplitter:
    """Splits a stream of bytes into lines of text; invalid UTF-8 is replaced.

    Args:
        max_line: The longest line (bytes).
    """

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._line = bytearray()
        self._overlong = False

    def feed(self, data: bytes | bytearray) -> Iterator[str]:
        """Add bytes, and yield the lines that they complete."""
        *complete, rest = data.split(b"\n")
        for part in complete:
            self._append(part)
            yield self._take()
        self._append(rest)

    def finish(self) -> str | None:
        """Return the last line, if the stream did not end with a line break."""
        return self._take() if self._line else None

    def _append(self, part: bytes | bytearray) -> None:
        free = self._max_line - len(self._line)
        self._line += part[:free]
        self._overlong |= len(part) > free

    def _take(self) -> str:
        text = self._line.decode("utf-8", "replace").removesuffix("\r")
        if self._overlong:
            text += CUT_MARKER
        self._line.clear()
        self._overlong = False
        return text


class Output:
    """Reads the streams of one process to their end.

    Args:
        child: The child's name.
        on_line: Called for each line in the event loop; may not block. `log_line` is replaced by a
            `ChildLog`, which limits the rate.
        pid: The process ID, if known.
        app: The part of the robot; by default the child's name.
    """

    def __init__(self, child: str, on_line: OnLine, pid: int | None = None, app: str = "") -> None:
        self._child = child
        self._log = ChildLog(child, pid, app) if on_line is log_line else None
        self._on_line = on_line if self._log is None else self._log.line
        self._tail = bytearray()
        self._unlimited = trio.Event()

    @property
    def tail(self) -> str:
        """The end of the output, at most `TAIL` bytes."""
        return self._tail.decode("utf-8", "replace")

    def lift_limit(self) -> None:
        """Read without `READ_RATE` from now on.

        After a process has exited, little is left in its pipes, and little time to read it.
        """
        self._unlimited.set()

    async def drain(self, stream: trio.abc.ReceiveStream, name: str) -> None:
        """Read one stream to its end, and close it.

        A cancel closes the stream too; an incomplete last line is delivered in any case.
        """
        splitter = LineSplitter()
        budget = Bucket(READ_BURST, 1 / READ_RATE, trio.current_time())
        try:
            async with stream:
                while chunk := await self._receive(stream):
                    self._append_to_tail(chunk)
                    count = 0
                    for count, line in enumerate(splitter.feed(chunk), 1):
                        self._on_line(self._child, name, line)
                        if count % _YIELD_EVERY == 0:
                            await trio.lowlevel.checkpoint()
                    budget.refill(trio.current_time())
                    budget.tokens -= len(chunk) + LINE_COST * count
                    if budget.tokens < 0:
                        with trio.move_on_after(-budget.tokens / READ_RATE):
                            await self._unlimited.wait()
        finally:
            if (last := splitter.finish()) is not None:
                self._on_line(self._child, name, last)
            if self._log is not None:
                self._log.flush(always=True)

    async def _receive(self, stream: trio.abc.ReceiveStream) -> bytes | bytearray:
        """Return the next chunk of a stream; flush the log when that is due in the meantime."""
        while self._log is not None and (delay := self._log.flush_delay) < math.inf:
            with trio.move_on_after(delay):
                return await stream.receive_some(_CHUNK)
            self._log.flush()
        return await stream.receive_some(_CHUNK)

    def _append_to_tail(self, chunk: bytes | bytearray) -> None:
        self._tail += chunk
        if len(self._tail) > TAIL:
            del self._tail[:-TAIL]


class ChildLog:
    """Logs the lines of one process at a limited rate.

    Args:
        child: The child's name.
        pid: The process ID, if known.
        app: The part of the robot; by default the child's name.
    """

    def __init__(self, child: str, pid: int | None = None, app: str = "") -> None:
        now = time.monotonic()
        self._app = app
        self._child = child
        self._pid = pid
        self._text = Budget(TEXT_LINES, TEXT_BYTES, now)
        self._events = Budget(EVENT_LINES, EVENT_BYTES, now)
        self._dump = DumpReader()
        self._dumped_at = now
        self._throttle = Throttle()
        self._log = log.get_logger(child=child)

    @property
    def flush_delay(self) -> float:
        """When `flush` is to be called next (s from now); infinite if nothing is pending."""
        if self._dump.active:
            return DUMP_TIME
        if self._text.suppressed + self._events.suppressed:
            return REPORT_INTERVAL
        return max(self._throttle.due - time.monotonic(), DUMP_TIME)

    def line(self, _child: str, stream: str, line: str) -> None:
        """Log a line, or count it as suppressed."""
        if stream == LOG and not line.startswith("{") and self._dump.feed(line):
            self._dumped_at = time.monotonic()
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
        self.flush()

    def flush(self, *, always: bool = False) -> None:
        """Log a complete dump, throttled events and the number of suppressed lines, where due.

        Args:
            always: Whether to log them even if they are not due.
        """
        now = time.monotonic()
        if self._dump.active and (always or now - self._dumped_at >= DUMP_TIME):
            self._log_stall(self._dump.finish())
        self._throttle.flush(always=always)
        budgets = (self._text, self._events)
        if count := sum(budget.report(now, always=always) for budget in budgets):
            self._log.warning("log lines of a process suppressed", suppressed=count)

    def _log_stall(self, threads: list[list[Frame]]) -> None:
        """Log which team function blocks the event loop of the process, if one does."""
        found = [
            (thread[0], frame)
            for thread in reversed(threads)
            if (frame := _innermost(thread)) is not None
        ]
        # A thread whose innermost frame is in a library probably waits for the GIL.
        found.sort(key=lambda one: one[0] is not one[1])
        frames = [frame for _, frame in found]
        if not frames:
            return
        first, *others = frames
        also = [f"{frame.file}:{frame.line} in {frame.func}" for frame in others[:_MAX_OTHERS]]
        fields: dict[str, object] = {
            "event": f"team code holds the GIL: {first.func} blocks the event loop",
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
    """Return the innermost frame of team code, which is code that is not installed."""
    for frame in thread:
        is_installed = any(part in frame.file for part in _LIBRARIES) or frame.file.startswith(
            _INSTALLED
        )
        if frame.file.startswith("/") and not is_installed:
            return frame
    return None


def log_line(child: str, stream: str, line: str) -> None:
    """Log a line of a child.

    A JSON object with ``event`` and ``level`` on the stream `LOG` is a log event of the child. Any
    other line becomes an event with the line as its text. The fields for the origin of the event
    are set here (`rt.log.attribution`). Empty lines are skipped.
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
