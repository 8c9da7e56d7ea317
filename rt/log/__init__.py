"""The log of a process: events, one line each, from any thread.

An event is a short text and a context of plain values. A child writes its events as JSON lines to
its log pipe. The root reads them, adds their origin (`attribution`) and writes them with its own:
readable text on a terminal, JSON elsewhere.

Invariant: logging never blocks and never raises, whatever an event contains. A line that cannot be
written at once is dropped and counted, and the next line reports the count. A log that blocks would
stop the event loop, and with it what keeps motors safe.
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
"""The levels in ascending order, with the numbers of the standard library."""

Logger = FilteringBoundLogger
"""The type that `get_logger` returns."""
Event = MutableMapping[str, Any]
Renderer = Callable[[Event], str]
Listener = Callable[[Mapping[str, Any]], None]
"""Receives each event in its thread; must not block, raise, log or change the event."""

_listeners: list[Listener] = []
_bound: ContextVar[Mapping[str, Any] | None] = ContextVar("log context", default=None)
_source: ContextVar[str] = ContextVar("log source", default="")
_source_throttle = SourceThrottle()


class _Pipeline:
    """Completes events, passes them to the listeners, and writes those of a sufficient level.

    Args:
        context: Fields that every event of this process carries.
        level: Lowest level that is written.
        listener_level: Lowest level that listeners receive.
        render: Formats an event as text; None for JSON.
        target: Where lines are written.
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
        """The file descriptor that lines are written to, or None for a stream in memory."""
        return self._writer.fd

    def log(self, level: str, fields: Event) -> None:
        """Handle an event of this process."""
        severity = LEVELS[level]
        if severity < self._least:
            return
        bound = _bound.get()
        event = {**bound, **self._context, **fields} if bound else {**self._context, **fields}
        event["level"] = level
        event["timestamp"] = now()
        if "exc_info" in event:
            _add_exception(event)
        if _source_throttle.has_suppressed:
            _source_throttle.flush()
        if source := _source.get():
            _source_throttle.log(self._emit, source, event, severity)
        else:
            self._emit(event, severity)

    def relay(self, fields: Mapping[str, Any]) -> None:
        """Handle an event of another process."""
        event = {**self._instance, **fields}
        if event.get("level") not in LEVELS:
            event["level"] = "info"
        if not logevent.is_timestamp(event.get("timestamp")):
            event["timestamp"] = now()
        event["event"] = str(event.get("event", ""))
        if _source_throttle.has_suppressed:
            _source_throttle.flush()
        self._emit(event, LEVELS[event["level"]])

    def _emit(self, event: Event, severity: int) -> None:
        if severity >= self._listener_level:
            for listener in _listeners:
                listener(event)
        if severity >= self._level:
            self._writer.write(self._line(event))

    def _line(self, event: Event) -> bytes:
        if self._render is not None:
            try:
                return self._render(dict(event)).encode(errors="replace")
            except Exception:  # noqa: BLE001 - logging never raises; JSON accepts every value
                return logevent.encode_line(event)
        return logevent.encode_line(event)


class _Sink:
    """Receives events from structlog loggers, as keyword arguments of a method per level."""

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


def get_logger(min_level: str = "debug", /, **context: Any) -> Logger:
    """Return a logger whose events carry ``context``; its methods are named by level.

    Args:
        min_level: Lowest level that the logger passes on, in addition to the level of the log.
        context: Plain values.
    """
    logger: Logger = structlog.get_logger(**context)
    if min_level != "debug":
        filtering = structlog.make_filtering_bound_logger(LEVELS[min_level])
        logger = structlog.wrap_logger(None, wrapper_class=filtering, **context)
    # Binding now halves the cost of a call. Before the log is configured, each call must look the
    # configuration up.
    return logger.bind() if structlog.is_configured() else logger


@contextlib.contextmanager
def bound(**context: Any) -> Iterator[None]:
    """Add ``context`` to the events that this task and tasks it starts log within the block."""
    token = _bound.set({**(_bound.get() or {}), **context})
    try:
        yield
    finally:
        _bound.reset(token)


def bind_source(source: str) -> None:
    """Limit the rate of the events that this task and tasks it starts log from now on.

    All events of one source share the limits of `rt.log.source_throttle`.

    Args:
        source: Name of the caller that causes the events; "" for the robot itself, which has no
            limit.
    """
    if _source.get() != source:
        _source.set(source)


def flush() -> None:
    """Log the newest suppressed event of each class; call this at the end of a process."""
    _source_throttle.flush(always=True)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Pass the events of this process to a function within the block.

    It receives the events of ``listener_level`` (see `configure`) and above.
    """
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
    """Configure the log of this process; may be called again.

    Args:
        level: Lowest level that is written, one of ``LEVELS``.
        fmt: ``json`` for one JSON object per line, ``pretty`` for readable text.
        stream: A stream, or the file descriptor of a pipe; by default stdout.
        listener_level: Lowest level that listeners receive; by default ``level``.
        context: Values that every event of this process carries, such as ``app="device"``.
    """
    global _pipeline  # noqa: PLW0603 - a process has one log, as in structlog
    target = stream if stream is not None else sys.stdout
    render = (
        pretty(colors=not isinstance(target, int) and wants_colors(target))
        if fmt == "pretty"
        else None
    )
    _pipeline = _Pipeline(context, LEVELS[level], LEVELS[listener_level or level], render, target)
    # The pipeline checks levels, so that a new level applies to existing loggers too.
    structlog.configure(
        processors=[],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=lambda *_args: _sink,
        cache_logger_on_first_use=False,
    )


def descriptor() -> int | None:
    """Return the file descriptor of this process's log, or None for a stream in memory."""
    return _current().descriptor


def relay(event: Mapping[str, Any]) -> None:
    """Log an event of another process with its time stamp, level and context.

    Args:
        event: At least ``event`` and ``level``; an unknown level becomes info.
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
