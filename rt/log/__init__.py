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
from typing import Any, NamedTuple, TextIO

from rt.log.caller_throttle import CallerThrottle
from rt.log.pretty import pretty, wants_colors
from rt.log.stamp import now
from rt.log.structlog_import import FilteringBoundLogger, structlog
from rt.log.writer import LineWriter, StreamWriter, dropped_lines, writer_to
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
_source: ContextVar[str] = ContextVar("log source", default="")
_caller_throttle = CallerThrottle()


class _Settings(NamedTuple):
    """The settings of `configure`."""

    context: Mapping[str, Any]
    level: int
    listener_level: int
    render: Renderer | None
    writer: LineWriter | StreamWriter


class _Output:
    """The logger that structlog wraps: it calls the method of the event's level."""

    def emit(self, /, **event: Any) -> None:
        """Pass a complete event to the listeners, and write it."""
        _emit(event)

    debug = info = warning = error = critical = emit


_output = _Output()
_current: _Settings | None = None


def _settings() -> _Settings:
    if _current is None:
        configure()
    assert _current is not None
    return _current


def _complete(_logger: object, level: str, event: Event) -> Event:
    """Add the context of the process, the level, the time, and the exception."""
    event = {**_settings().context, **event}
    event["level"] = level
    event["timestamp"] = now()
    if "exc_info" in event:
        _add_exception(event)
    return event


def _limit_source(_logger: object, _level: str, event: Event) -> Event:
    """Limit the rate of the events of a source; those of the robot itself have no limit."""
    _caller_throttle.flush()
    if source := _source.get():
        _caller_throttle.log(_emit, source, event)
        raise structlog.DropEvent
    return event


def _emit(event: Event) -> None:
    settings = _settings()
    severity = LEVELS[event["level"]]
    if severity >= settings.listener_level:
        for listener in _listeners:
            listener(event)
    if severity >= settings.level:
        settings.writer.write(_line(event, settings.render))


def _line(event: Event, render: Renderer | None) -> bytes:
    if render is not None:
        # Logging never raises, and JSON accepts every value.
        with contextlib.suppress(Exception):
            return render(dict(event)).encode(errors="replace")
    return logevent.encode_line(event)


def get_logger(min_level: str = "debug", /, **context: Any) -> Logger:
    """Return a logger whose events carry ``context``; its methods are named by level.

    Args:
        min_level: Lowest level that the logger passes on, in addition to the level of the log.
        context: Plain values.
    """
    logger: Logger = structlog.get_logger(**context)
    if min_level != "debug":
        settings = _settings()
        least = max(LEVELS[min_level], min(settings.level, settings.listener_level))
        filtering = structlog.make_filtering_bound_logger(least)
        logger = structlog.wrap_logger(None, wrapper_class=filtering, **context)
    # Binding now halves the cost of a call. Before the log is configured, each call must look the
    # configuration up.
    return logger.bind() if structlog.is_configured() else logger


def bound(**context: Any) -> contextlib.AbstractContextManager[None]:
    """Add ``context`` to the events that this task and tasks it starts log within the block."""
    return structlog.contextvars.bound_contextvars(**context)


def bind_source(source: str) -> None:
    """Limit the rate of the events that this task and tasks it starts log from now on.

    All events of one source share the limits of `rt.log.caller_throttle`.

    Args:
        source: Name of the caller that causes the events; "" for the robot itself, which has no
            limit.
    """
    if _source.get() != source:
        _source.set(source)


def flush() -> None:
    """Log the newest suppressed event of each class; call this at the end of a process."""
    _caller_throttle.flush(always=True)


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
    """Configure the log of this process.

    May be called again; loggers that exist keep their lowest level.

    Args:
        level: Lowest level that is written, one of ``LEVELS``.
        fmt: ``json`` for one JSON object per line, ``pretty`` for readable text.
        stream: A stream, or the file descriptor of a pipe; by default stdout.
        listener_level: Lowest level that listeners receive; by default ``level``.
        context: Values that every event of this process carries, such as ``app="device"``.
    """
    global _current  # noqa: PLW0603 - a process has one log, as in structlog
    target = stream if stream is not None else sys.stdout
    render = (
        pretty(colors=not isinstance(target, int) and wants_colors(target))
        if fmt == "pretty"
        else None
    )
    writer = writer_to(target, lambda count: _line({**context, **dropped_lines(count)}, render))
    _current = _Settings(context, LEVELS[level], LEVELS[listener_level or level], render, writer)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _complete, _limit_source],
        wrapper_class=structlog.make_filtering_bound_logger(
            min(_current.level, _current.listener_level)
        ),
        logger_factory=lambda *_args: _output,
    )


def descriptor() -> int | None:
    """Return the file descriptor of this process's log, or None for a stream in memory."""
    return _settings().writer.fd


def relay(event: Mapping[str, Any]) -> None:
    """Log an event of another process with its time stamp, level and context.

    Args:
        event: At least ``event`` and ``level``; an unknown level becomes info.
    """
    context = _settings().context
    instance = {"instance": context["instance"]} if "instance" in context else {}
    complete = {**instance, **event, "event": str(event.get("event", ""))}
    if complete.get("level") not in LEVELS:
        complete["level"] = "info"
    if not logevent.is_timestamp(complete.get("timestamp")):
        complete["timestamp"] = now()
    _caller_throttle.flush()
    _emit(complete)


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
