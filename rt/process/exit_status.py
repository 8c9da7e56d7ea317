"""The log event and the exit code of a process that an error ends.

Invariant: an error that ends a process is one log event that contains everything that went wrong.
The exception groups of nurseries hide neither an emergency stop nor the message for the user.
"""

import sys
from typing import Self

import trio

from rt import log
from rt.errors import EmergencyStopException, RuntimeBaseException, leaves

_RESERVED = ("event", "exc_info")
"""Keys that the context of an error may not set in its log event."""


def exit_code(error: BaseException, event: str) -> int:
    """Log the error that ends this process, and return its exit code; never raises.

    Args:
        error: The uncaught error.
        event: The log event of an error other than rt's own; it carries the traceback.

    Returns:
        255 for an emergency stop, even among other errors; the exit code of one of rt's own errors;
        1 for any other error. `SystemExit` is not logged; its code is returned if it is between
        0 and 255, else 1.
    """
    causes = list(leaves(error))
    emergency = next((cause for cause in causes if isinstance(cause, EmergencyStopException)), None)
    cause = emergency or causes[0]
    alone = len(causes) == 1
    if isinstance(cause, SystemExit) and alone:
        return _requested_code(cause)
    if isinstance(cause, RuntimeBaseException) and (emergency or alone):
        context = {key: value for key, value in cause.context.items() if key not in _RESERVED}
        log.get_logger().critical(
            cause.message, **context, **({} if alone else {"exc_info": error})
        )
        return cause.EXIT_CODE
    log.get_logger().critical(event, exc_info=error)
    return 1


class FailureLog:
    """A context manager that logs the error that leaves its block, and lets it propagate.

    A cancel is not logged. The block may contain further blocks of the same object: only the
    innermost one that fails logs the error, while most of the log is still open.

    Args:
        event: As for `exit_code`.
    """

    def __init__(self, event: str) -> None:
        self._event = event
        self._is_logged = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if (
            error is None
            or self._is_logged
            or all(isinstance(cause, trio.Cancelled) for cause in leaves(error))
        ):
            return
        self._is_logged = True
        exit_code(error, self._event)


def _requested_code(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        code = stop.code or 0
        # The kernel keeps the last eight bits: -1 would become an emergency stop, 256 a success.
        return code if 0 <= code < 256 else 1
    sys.stderr.write(f"{stop.code}\n")
    return 1
