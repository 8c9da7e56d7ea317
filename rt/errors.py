"""The few errors of rt.

Each is named by the state that it reports, carries one sentence for a person, and a context of
plain values for a program: what is logged, and what travels as the second element of an error over
RPC.
"""

from collections.abc import Iterator
from typing import Any, ClassVar


class RuntimeBaseException(Exception):  # noqa: N818 - the name that existing robot code catches
    """The base of every error that rt raises on purpose.

    Args:
        message: One sentence that says what is wrong and, where there is one, the remedy.
        context: Plain values (JSON types) that name the place.
    """

    EXIT_CODE: ClassVar[int] = 1

    def __init__(self, message: str, /, **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.context = context

    def __str__(self) -> str:
        return self.message


class ConfigError(RuntimeBaseException):
    """An option, a catalog or a file that rt was given is wrong (sysexits EX_CONFIG)."""

    EXIT_CODE = 78


class CatalogError(ConfigError):
    """The device catalog is wrong; it is refused whole."""


class InstanceBusyError(RuntimeBaseException):
    """Another robot holds this instance or one of its addresses (sysexits EX_TEMPFAIL)."""

    EXIT_CODE = 75


class InstanceAbsentError(RuntimeBaseException):
    """No robot of this instance runs."""


class LocalProtocolError(RuntimeBaseException):
    """We tried to say what the protocol does not allow."""


class RemoteProtocolError(RuntimeBaseException):
    """The peer said what the protocol does not allow."""


class RemoteCallError(RuntimeBaseException):
    """A remote call failed: the service's own message and context, or that nobody answered."""


class DeviceError(RuntimeBaseException):
    """A Smart Device cannot do what was asked of it."""


class DeviceBufferError(RuntimeBaseException):
    """A buffer cannot do what was asked of it."""


class BufferBusyError(DeviceBufferError):
    """Another process holds a buffer's lock for longer than the caller may wait."""


class ExecutionError(RuntimeBaseException):
    """The team's code cannot be run."""


class ProcessStateError(RuntimeBaseException, ValueError):
    """A process was asked for what it cannot do yet, or no more."""


class EmergencyStopException(RuntimeBaseException):
    """The robot has to stop at once; the exit code of a process that raises it is 255."""

    EXIT_CODE = 255

    def __init__(self, message: str = "emergency stop", /, **context: Any) -> None:
        super().__init__(message, **context)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors that an error is made of: those within groups, however deep they are, or itself.

    Nurseries wrap what their tasks raise in groups, one for each nursery that it passes.
    """
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error
