"""The end of a process by an error: what the log says of it, and the exit code.

The rule of this module: whatever ends a process is one event of its log, with everything that went
wrong in it; the groups that nurseries make hide neither an emergency stop nor the one sentence that
a person is to read.
"""

import sys
from typing import Self

import trio

from rt import log
from rt.errors import EmergencyStopException, RuntimeBaseException, leaves

_TAKEN = ("event", "exc_info")  # what an error's context may not put into the event


def exit_code(error: BaseException, sentence: str) -> int:
    """Say in the log by what this process ends, and give its exit code; never fails.

    Args:
        error: What nobody has caught.
        sentence: What the log says where the error has no sentence of its own; the traceback comes
            with it.

    Returns:
        255 for an emergency stop, also one among other errors, that of rt's own errors, and 1 for
        any other. For `SystemExit` it is the code that was asked for if it is from 0 to 255, else
        1; that is no failure and not logged.
    """
    causes = list(leaves(error))
    emergency = next((cause for cause in causes if isinstance(cause, EmergencyStopException)), None)
    cause = emergency or causes[0]
    alone = len(causes) == 1
    if isinstance(cause, SystemExit) and alone:
        return _asked_for(cause)
    if isinstance(cause, RuntimeBaseException) and (emergency or alone):
        context = {key: value for key, value in cause.context.items() if key not in _TAKEN}
        log.get_logger().critical(
            cause.message, **context, **({} if alone else {"exc_info": error})
        )
        return cause.EXIT_CODE
    log.get_logger().critical(sentence, exc_info=error)
    return 1


class FailureLog:
    """Says in the log by what a block fails, and lets the error go on to its owner; a cancel is no failure.

    A context manager that may be entered again within itself: the innermost block that fails is
    told of, while most of the log is still there, and the others are not.

    Args:
        sentence: As for `exit_code`.
    """

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence
        self._said = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if (
            error is None
            or self._said
            or all(isinstance(cause, trio.Cancelled) for cause in leaves(error))
        ):
            return
        self._said = True
        exit_code(error, self._sentence)


def _asked_for(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        code = stop.code or 0
        # The kernel would keep the last eight bits: of -1 an emergency stop, of 256 a success.
        return code if 0 <= code < 256 else 1
    sys.stderr.write(f"{stop.code}\n")
    return 1
