"""Log events: one line each, from any thread, and never a reason to wait.

An event is a short sentence and a context of plain values. A child writes its events as JSON lines to stdout, where the root
reads them, adds whose they are and prints them again; the root prints for a person on a terminal and as JSON elsewhere.

The rule of this room: a line that cannot be written at once is dropped and counted, and the count is said with the next line
that can. A log that blocks would stop the event loop, and with it what keeps motors safe.
"""

import contextlib
import os
import select
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from structlog.typing import FilteringBoundLogger

from rt.protocol import exception, logevent

LEVELS = logevent.LEVELS
"""The severities, least first, with the numbers that the standard library gives them."""

Event = MutableMapping[str, Any]
Renderer = Callable[[Event], str | bytes]
Tap = Callable[[Mapping[str, Any]], None]
"""Is given each event, in whatever thread it is logged; it may not wait, raise, log or change the event."""

MAX_LINE = 32768
"""The longest line in bytes; of a longer one the rest is left out and the cut is marked."""

_CUT = b" [line cut here]"
_ATOMIC = 4096  # a pipe that polls as writable takes this much at once


class LineWriter:
    """Writes whole lines to a file descriptor without ever blocking.

    Args:
        fd: Where lines go. A file, a pipe or a terminal is opened anew, so that making it non-blocking changes nothing for others
            that write to the same place. A socket, as the journal of systemd is, cannot be: each of its writes is told not
            to wait.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._torn = False
        self._socket: socket.socket | None = None
        self._poll: select.poll | None = None
        self.dropped = 0
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                self._socket = socket.socket(fileno=os.dup(fd))
                return
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            self._fd = os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:  # of another user, or no /proc: asked before each write whether it would wait
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)

    def msg(self, line: str | bytes) -> None:
        """Write a line, or count it as dropped when nobody takes it, the disk is full or the other end has gone."""
        with self._lock:
            if self.dropped:
                note = {"event": "log lines were dropped", "level": "warning", "dropped": self.dropped}
                if not self._put(logevent.encode_line({**note, "timestamp": _now()})):
                    self.dropped += 1
                    return
                self.dropped = 0
            if not self._put(line if isinstance(line, bytes) else line.encode(errors="replace")):
                self.dropped += 1

    log = debug = info = warning = error = critical = fatal = exception = msg

    def _put(self, line: bytes) -> bool:
        if len(line) > MAX_LINE:
            line = line[:MAX_LINE].decode(errors="ignore").encode() + _CUT
        # A line of which only a part was taken is ended first, so that this one is whole.
        data = b"\n" * self._torn + line + b"\n"
        written = self._write(data)
        if written:
            self._torn = written < len(data)
        return written == len(data)

    def _write(self, data: bytes) -> int:
        written = 0
        try:
            while written < len(data):
                if self._socket is not None:
                    written += self._socket.send(data[written:], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                elif self._poll is None:
                    written += os.write(self._fd, data[written:])
                elif self._poll.poll(0):
                    written += os.write(self._fd, data[written : written + _ATOMIC])
                else:
                    break
        except OSError:
            pass
        return written


class _StreamWriter:
    """Writes lines to a stream in memory, as tests use."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str | bytes) -> None:
        self._stream.write((line.decode() if isinstance(line, bytes) else line) + "\n")

    log = debug = info = warning = error = critical = fatal = exception = msg


_taps: list[Tap] = []
_bound: ContextVar[Mapping[str, Any] | None] = ContextVar("log context", default=None)
_LEVEL_OF = {"warn": "warning", "exception": "error", "fatal": "critical"}


class _Pipeline:
    """What an event goes through: completed, given to the taps, and written if it is severe enough.

    It is the one processor of structlog, and what comes from other processes takes the same way without structlog: the root
    relays thousands of lines a second.
    """

    def __init__(self, context: Mapping[str, Any], level: int, tap_level: int, render: Renderer, writer: Any) -> None:
        self._context = context
        self._level = level
        self._tap_level = tap_level
        self._render = render
        self._writer = writer

    def __call__(self, _logger: Any, name: str, event: Event) -> str | bytes:
        level = event["level"] = _LEVEL_OF.get(name, name)
        event["timestamp"] = _now()
        for context in (self._context, _bound.get()):
            if context:
                for key, value in context.items():
                    event.setdefault(key, value)
        raised = event.pop("exc_info", None)
        if raised:
            _add_exception(event, raised)
        severity = LEVELS[level]
        if severity >= self._tap_level:
            for tap in _taps:
                tap(event)
        if severity < self._level:
            raise structlog.DropEvent
        return self._render(event)

    def relay(self, event: Event) -> None:
        if "instance" in self._context:
            event.setdefault("instance", self._context["instance"])
        severity = LEVELS[event["level"]]
        if severity >= self._tap_level:
            for tap in _taps:
                tap(event)
        if severity >= self._level:
            self._writer.msg(self._render(event))


_pipeline: _Pipeline | None = None


def get_logger(**context: Any) -> FilteringBoundLogger:
    """A logger whose events carry ``context``; its methods are named by level and return at once."""
    logger: FilteringBoundLogger = structlog.get_logger(**context)
    return logger


@contextlib.contextmanager
def bound(**context: Any) -> Iterator[None]:
    """Let every event that this task, and what it starts meanwhile, logs within the block carry ``context``."""
    token = _bound.set({**(_bound.get() or {}), **context})
    try:
        yield
    finally:
        _bound.reset(token)


@contextlib.contextmanager
def tapped(tap: Tap) -> Iterator[None]:
    """Let a function see every event of this process within the block, those of ``configure``'s ``tap_level`` and above."""
    _taps.append(tap)
    try:
        yield
    finally:
        _taps.remove(tap)


def configure(
    *,
    level: str = "info",
    fmt: str = "json",
    stream: TextIO | None = None,
    tap_level: str | None = None,
    **context: Any,
) -> None:
    """Set up how this process writes its log events; may be called again.

    Args:
        level: The least severity that is written, one of ``LEVELS``.
        fmt: ``json`` for one JSON object a line, ``pretty`` for a person.
        stream: Where to write; stdout by default.
        tap_level: The least severity that taps are given; what is written by default.
        context: Values that every event of this process carries, e.g. ``app="device"``.
    """
    global _pipeline  # noqa: PLW0603 - as structlog itself, there is one log in a process
    target = stream if stream is not None else sys.stdout
    writer = _writer(target)
    render = pretty(colors=target.isatty()) if fmt == "pretty" else logevent.encode_line
    severity, tapped_from = LEVELS[level], LEVELS[tap_level or level]
    _pipeline = _Pipeline(context, severity, tapped_from, render, writer)
    structlog.configure(
        processors=[_pipeline],
        wrapper_class=structlog.make_filtering_bound_logger(min(severity, tapped_from)),
        logger_factory=lambda *_args: writer,
        cache_logger_on_first_use=False,
    )


def relay(event: Mapping[str, Any]) -> None:
    """Write an event that another process made: its time stamp, level and context are kept.

    Args:
        event: At least ``event`` and ``level``; an unknown level is taken for info.
    """
    fields = dict(event)
    if fields.get("level") not in LEVELS:
        fields["level"] = "info"
    if not logevent.is_stamp(fields.get("timestamp")):
        fields["timestamp"] = _now()
    fields["event"] = str(fields.get("event", ""))
    if _pipeline is None:
        configure()
    assert _pipeline is not None
    _pipeline.relay(fields)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _add_exception(event: Event, raised: Any) -> None:
    if isinstance(raised, tuple):
        raised = raised[1]
    elif not isinstance(raised, BaseException):
        raised = sys.exception()
    if raised is not None:
        event["exception"] = exception.data(raised)


_HIDDEN = ("app", "pid", "instance", "source", "mode", "clock", "process")


def pretty(*, colors: bool) -> Callable[[Event], str]:
    """A function that makes one or more lines for a person of an event, which it uses up."""
    console = structlog.dev.ConsoleRenderer(
        colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )
    here = f"{os.getcwd()}/"  # noqa: PTH109 - a prefix of text

    def show(value: Any) -> Any:
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        return value.replace(here, "") if isinstance(value, str) and here != "//" else value

    def render(event: Event) -> str:
        clock = _local_time(str(event.pop("timestamp", "")))
        if event.get("source") == "print":
            mode, since = event.get("mode"), event.get("clock")
            when = f"{mode} {since:.2f} s | " if mode and isinstance(since, int | float) else ""
            return f"{clock} print | {when}{event.get('event', '')}"
        if event.get("child") in (event.get("app"), "root"):
            event.pop("child", None)
        for key in _HIDDEN:
            event.pop(key, None)
        if event.get("reason") == str(event.get("event", "")).rpartition(" ")[2]:
            del event["reason"]
        if "exception" in event:
            event["exception"] = exception.text(event["exception"])
        return f"{clock} {console(None, '', {key: show(value) for key, value in event.items()})}".lstrip()

    return render


def _local_time(stamp: str) -> str:
    try:
        return datetime.fromisoformat(stamp).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except ValueError:  # whatever another program wrote there
        return stamp[11:23]


def _writer(target: TextIO) -> LineWriter | _StreamWriter:
    try:
        return LineWriter(target.fileno())
    except (OSError, ValueError):
        return _StreamWriter(target)
