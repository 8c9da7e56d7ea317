"""Log events: one line each, from any thread, and never a reason to wait.

An event is a short sentence and a context of plain values. A child writes its events as JSON lines to stdout, where the root
reads them, adds whose they are and prints them again; the root prints for a person on a terminal and as JSON elsewhere.

The rule of this room: a line that cannot be written at once is dropped and counted, and the count is said with the next line
that can. A log that blocks would stop the event loop, and with it what keeps motors safe.
"""

import json
import math
import os
import reprlib
import select
import socket
import stat
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime
from typing import Any, TextIO

import structlog
from structlog.typing import FilteringBoundLogger

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
"""The severities, least first, with the numbers that the standard library gives them."""

Renderer = Callable[[Any, str, MutableMapping[str, Any]], str]


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

    def msg(self, line: str) -> None:
        """Write a line, or count it as dropped when nobody takes it, the disk is full or the other end has gone."""
        with self._lock:
            if self.dropped:
                note = {"event": "log lines were dropped", "level": "warning", "dropped": self.dropped}
                if not self._put(json.dumps(note).encode()):
                    self.dropped += 1
                    return
                self.dropped = 0
            if not self._put(line.encode(errors="replace")):
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


def get_logger(**context: Any) -> FilteringBoundLogger:
    """A logger whose events carry ``context``; its methods are named by level and return at once."""
    logger: FilteringBoundLogger = structlog.get_logger(**context)
    return logger


def configure(*, level: str = "info", fmt: str = "json", stream: TextIO | None = None, **context: Any) -> None:
    """Set up how this process writes its log events; may be called again.

    Args:
        level: The least severity that is written, one of ``LEVELS``.
        fmt: ``json`` for one JSON object a line, ``pretty`` for a person.
        stream: Where to write; stdout by default.
        context: Values that every event of this process carries, e.g. ``app="device"``.
    """
    target = stream if stream is not None else sys.stdout
    renderer = _pretty(colors=target.isatty()) if fmt == "pretty" else _json
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _process_context(context),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_writer_factory(target),
        cache_logger_on_first_use=False,
    )


def relay(event: Mapping[str, Any]) -> None:
    """Write an event that another process made: its time stamp, level and context are kept."""
    fields = dict(event)
    level = fields.pop("level", "info")
    sentence = str(fields.pop("event", ""))
    log = getattr(get_logger(), level if level in LEVELS else "info")
    log(sentence, **fields)


def _process_context(context: Mapping[str, Any]) -> Callable[..., MutableMapping[str, Any]]:
    def add(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        # An event that was relayed says itself who made it and when.
        for key, value in context.items():
            event.setdefault(key, value)
        stamped = event.pop("at", None)
        if stamped is not None:
            event["timestamp"] = stamped
        return event

    return add


def _json(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> str:
    try:
        return json.dumps(event, default=str, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return json.dumps(_plain(event), ensure_ascii=False)


def _plain(value: Any, depth: int = 4) -> Any:
    """What JSON can carry of a value: NaN and the infinities, which it has no words for, become text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth and isinstance(value, Mapping):
        return {str(key): _plain(each, depth - 1) for key, each in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_plain(each, depth - 1) for each in value]
    return reprlib.repr(value)


_HIDDEN = ("app", "pid", "source", "clock", "process")


def _pretty(*, colors: bool) -> Renderer:
    console = structlog.dev.ConsoleRenderer(
        colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )
    here = f"{os.getcwd()}/"  # noqa: PTH109 - a prefix of text

    def show(value: Any) -> Any:
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        return value.replace(here, "") if isinstance(value, str) and here != "//" else value

    def render(logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
        clock = _local_time(str(event.pop("timestamp", "")))
        if event.get("source") == "print":
            return f"{clock} print | {event.get('event', '')}"
        if event.get("child") in (event.get("app"), "root"):
            event.pop("child", None)
        for key in _HIDDEN:
            event.pop(key, None)
        if event.get("reason") == str(event.get("event", "")).rpartition(" ")[2]:
            del event["reason"]
        return f"{clock} {console(logger, name, {key: show(value) for key, value in event.items()})}"

    return render


def _local_time(stamp: str) -> str:
    try:
        return datetime.fromisoformat(stamp).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except ValueError:  # whatever another program wrote there
        return stamp[11:23]


def _writer_factory(target: TextIO) -> Callable[..., Any]:
    try:
        writer: Any = LineWriter(target.fileno())
    except (OSError, ValueError):  # a stream in memory, as tests use
        writer = structlog.PrintLogger(target)
    return lambda *_args: writer
