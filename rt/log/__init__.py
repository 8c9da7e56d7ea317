"""Log events: one line each, from any thread, and never a reason to wait.

An event is a short sentence and a context of plain values. A child writes its events as JSON lines
to a pipe of its own, where the root reads them, adds whose they are (`attribution`) and prints them
again; the root prints for a person on a terminal and as JSON elsewhere.

The rules of this room: a line that cannot be written at once is dropped and counted, and the count
is said with the next line that can, since a log that blocks would stop the event loop, and with it
what keeps motors safe; and whatever an event holds, to log it raises nothing.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, TextIO

from rt.log.lean import FilteringBoundLogger, structlog
from rt.log.pretty import pretty, wants_colors
from rt.log.source_throttle import SourceThrottle
from rt.log.stamp import now
from rt.log.writer import LineWriter, dropped_lines, writer_to
from rt.protocol import exception, logevent

LEVELS = logevent.LEVELS
"""The severities, least first, with the numbers that the standard library gives them."""

Logger = FilteringBoundLogger
"""What `get_logger` gives."""
Event = MutableMapping[str, Any]
Renderer = Callable[[Event], str]
Listener = Callable[[Mapping[str, Any]], None]
"""Is given each event, in whatever thread it is logged; it may not wait, raise, log or change the event."""

_listeners: list[Listener] = []
_bound: ContextVar[Mapping[str, Any] | None] = ContextVar("log context", default=None)
_source: ContextVar[str] = ContextVar("log source", default="")
_source_throttle = SourceThrottle()


class _Pipeline:
    """What an event goes through: completed, given to the taps, and written if it is severe enough.

    What comes from other processes takes the same way, but for its own context.

    Args:
        context: What every event of this process carries.
        level: The least severity that is written.
        listener_level: The least severity that taps are given.
        render: Makes lines for a person; None for JSON.
        target: Where lines go.
    """

    def __init__(
        self,
        context: Mapping[str, Any],
        level: int,
        listener_level: int,
        render: Renderer | None,
        target: TextIO | int,
    ) -> None:
        self._context = context
        self._instance = {"instance": context["instance"]} if "instance" in context else {}
        self._level = level
        self._listener_level = listener_level
        self._least = min(level, listener_level)
        self._render = render
        self._writer = writer_to(
            target, lambda count: self._line({**context, **dropped_lines(count)})
        )

    @property
    def descriptor(self) -> int | None:
        """Where lines are written, if that is a descriptor."""
        return self._writer.fd

    def log(self, level: str, fields: Event) -> None:
        """Take an event of this process."""
        severity = LEVELS[level]
        if severity < self._least:
            return
        bound = _bound.get()
        event = {**bound, **self._context, **fields} if bound else {**self._context, **fields}
        event["level"] = level
        event["timestamp"] = now()
        if "exc_info" in event:
            _add_exception(event)
        if _source_throttle.waits:
            _source_throttle.flush()
        if source := _source.get():
            _source_throttle.log(self._spread, source, event, severity)
        else:
            self._spread(event, severity)

    def relay(self, fields: Mapping[str, Any]) -> None:
        """Take an event of another process."""
        event = {**self._instance, **fields}
        if event.get("level") not in LEVELS:
            event["level"] = "info"
        if not logevent.is_stamp(event.get("timestamp")):
            event["timestamp"] = now()
        event["event"] = str(event.get("event", ""))
        if _source_throttle.waits:
            _source_throttle.flush()
        self._spread(event, LEVELS[event["level"]])

    def _spread(self, event: Event, severity: int) -> None:
        if severity >= self._listener_level:
            for listener in _listeners:
                listener(event)
        if severity >= self._level:
            self._writer.write(self._line(event))

    def _line(self, event: Event) -> bytes:
        if self._render is not None:
            try:
                return self._render(dict(event)).encode(errors="replace")
            except Exception:  # noqa: BLE001 - whatever somebody put there that no person can be shown is shown as it is
                return logevent.encode_line(event)
        return logevent.encode_line(event)


class _Sink:
    """Takes the events of structlog's loggers: a method for each level, the event as its keyword arguments."""

    def debug(self, /, **event: Any) -> None:
        _current().log("debug", event)

    def info(self, /, **event: Any) -> None:
        _current().log("info", event)

    def warning(self, /, **event: Any) -> None:
        _current().log("warning", event)

    def error(self, /, **event: Any) -> None:
        _current().log("error", event)

    def critical(self, /, **event: Any) -> None:
        _current().log("critical", event)


_sink = _Sink()
_pipeline: _Pipeline | None = None


def _current() -> _Pipeline:
    if _pipeline is None:
        configure()
    assert _pipeline is not None
    return _pipeline


def get_logger(least: str = "debug", /, **context: Any) -> Logger:
    """A logger whose events carry ``context``; its methods are named by level and return at once.

    Args:
        least: The least severity that it takes, whatever the log is set up for.
        context: Plain values.
    """
    logger: Logger = structlog.get_logger(**context)
    if least != "debug":
        filtering = structlog.make_filtering_bound_logger(LEVELS[least])
        logger = structlog.wrap_logger(None, wrapper_class=filtering, **context)
    # Bound once and for all where the log is set up, which halves what a call takes; else each call
    # looks for what is set up.
    return logger.bind() if structlog.is_configured() else logger


@contextlib.contextmanager
def bound(**context: Any) -> Iterator[None]:
    """Let every event that this task, and what it starts meanwhile, logs within the block carry ``context``."""
    token = _bound.set({**(_bound.get() or {}), **context})
    try:
        yield
    finally:
        _bound.reset(token)


def bind_source(source: str) -> None:
    """Charge every event that this task, and what it starts, logs from now on to ``source``, whose events are bounded in rate.

    Args:
        source: Who causes the events; empty for the robot itself, which is not bounded.
    """
    if _source.get() != source:
        _source.set(source)


def flush() -> None:
    """Log the newest event of each class whose events were suppressed, as at the end of a process."""
    _source_throttle.flush(always=True)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let a function see every event of this process within the block, those of ``configure``'s ``listener_level`` and above."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def configure(
    *,
    level: str = "info",
    fmt: str = "json",
    stream: TextIO | int | None = None,
    listener_level: str | None = None,
    **context: Any,
) -> None:
    """Set up how this process writes its log events; may be called again.

    Args:
        level: The least severity that is written, one of ``LEVELS``.
        fmt: ``json`` for one JSON object a line, ``pretty`` for a person.
        stream: Where to write, a stream or the descriptor of a pipe; stdout by default.
        listener_level: The least severity that taps are given; what is written by default.
        context: Values that every event of this process carries, e.g. ``app="device"``.
    """
    global _pipeline  # noqa: PLW0603 - as structlog itself, there is one log in a process
    target = stream if stream is not None else sys.stdout
    render = (
        pretty(colors=not isinstance(target, int) and wants_colors(target))
        if fmt == "pretty"
        else None
    )
    _pipeline = _Pipeline(context, LEVELS[level], LEVELS[listener_level or level], render, target)
    # Levels are looked at in the pipeline, so that loggers which are there already heed a new one.
    structlog.configure(
        processors=[],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=lambda *_args: _sink,
        cache_logger_on_first_use=False,
    )


def descriptor() -> int | None:
    """The file descriptor that this process's log is written to; None if it is written to a stream in memory."""
    return _current().descriptor


def relay(event: Mapping[str, Any]) -> None:
    """Write an event that another process made: its time stamp, level and context are kept.

    Args:
        event: At least ``event`` and ``level``; an unknown level is taken for info.
    """
    _current().relay(event)


def _add_exception(event: Event) -> None:
    raised = event.pop("exc_info")
    if isinstance(raised, tuple):
        raised = raised[1]
    elif raised and not isinstance(raised, BaseException):
        raised = sys.exception()
    if isinstance(raised, BaseException):
        event["exception"] = exception.data(raised)


__all__ = [
    "LEVELS",
    "LineWriter",
    "Listener",
    "Logger",
    "bind_source",
    "bound",
    "configure",
    "descriptor",
    "flush",
    "get_logger",
    "listening",
    "pretty",
    "relay",
    "wants_colors",
]
