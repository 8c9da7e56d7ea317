"""The errors of rt.

Each is named after the state that it reports. It has a message for the user and a context of plain
values for programs, which is logged and sent as the second element of an RPC error.
"""

from collections.abc import Iterator
from typing import Any, ClassVar


class RuntimeBaseException(Exception):  # noqa: N818 - existing robot code catches this name
    """The base class of all errors that rt raises.

    Args:
        message: What is wrong and, if possible, the remedy.
        context: Plain values (JSON types) with details.
    """

    EXIT_CODE: ClassVar[int] = 1

    def __init__(self, message: str, /, **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.context = context

    def __str__(self) -> str:
        return self.message


class ConfigError(RuntimeBaseException):
    """An option, a catalog or another input file is invalid (sysexits EX_CONFIG)."""

    EXIT_CODE = 78


class CatalogError(ConfigError):
    """The device catalog is invalid; no part of it is used."""


class InstanceBusyError(RuntimeBaseException):
    """Another robot uses this instance or one of its addresses (sysexits EX_TEMPFAIL)."""

    EXIT_CODE = 75


class InstanceAbsentError(RuntimeBaseException):
    """No robot of this instance is running."""


class LocalProtocolError(RuntimeBaseException):
    """This process tried to violate the protocol."""


class RemoteProtocolError(RuntimeBaseException):
    """The peer violated the protocol."""


class RemoteCallError(RuntimeBaseException):
    """A remote call failed: with an error of the service, or without an answer."""


class DeviceError(RuntimeBaseException):
    """A Smart Device cannot do what was requested."""


class DeviceBufferError(RuntimeBaseException):
    """A buffer cannot do what was requested."""


class BufferBusyError(DeviceBufferError):
    """Another process holds the lock of a buffer for longer than the caller may wait."""


class ExecutionError(RuntimeBaseException):
    """Team code cannot be run."""


class ProcessStateError(RuntimeBaseException, ValueError):
    """A process is in the wrong state for the call."""


class EmergencyStopException(RuntimeBaseException):
    """The robot must stop at once; a process that raises this exits with code 255."""

    EXIT_CODE = 255

    def __init__(self, message: str = "emergency stop", /, **context: Any) -> None:
        super().__init__(message, **context)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in nested exception groups, or the error itself.

    Each nursery that an error passes wraps it in a group.
    """
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error
