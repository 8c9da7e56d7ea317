"""The protocol between the root and an executor process.

The root asks the process to prepare a mode. The process loads the team code and answers `Loaded` or
`Refused`. The root sends `Go`; the process answers `Over` when the mode has ended. A process runs
only one mode.

Format: SOCK_SEQPACKET messages, each the MessagePack of one struct below, tagged by its name in
``type``. Team code runs in the process, so the root validates every message from it.
"""

from typing import Annotated, Any, TypeAlias

import msgspec

from rt.errors import RemoteProtocolError
from rt.protocol import structs
from rt.protocol.logevent import plain

MAX_MESSAGE = 1 << 17
"""Maximum length of a message, in bytes."""
DEFAULT_TIMEOUT = 1.0
"""Time limit of a function, in s, if neither its request nor the options set one."""
_MAX_ERROR = 2000


class RequestSpec(msgspec.Struct, forbid_unknown_fields=True):
    """A request to execute a function of team code."""

    func: Annotated[str, msgspec.Meta(max_length=128)]
    args: Annotated[list[Any], msgspec.Meta(max_length=64)] = []
    timeout: Annotated[float, msgspec.Meta(gt=0, le=3600)] | None = None
    periodic: bool = False


Requests: TypeAlias = Annotated[list[RequestSpec], msgspec.Meta(max_length=64)]
"""The requests of one call."""


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """Load the team code and find the functions; answered by `Loaded` or `Refused`.

    Attributes:
        mode: The number of the mode (`rt.team.api.Mode`).
        requests: What to execute, in order.
        gamepads: Whether gamepads can be read.
        partial: Whether one existing function is enough, as with a setup and a main.
    """

    mode: int
    requests: list[RequestSpec]
    gamepads: bool
    partial: bool


class Go(msgspec.Struct, frozen=True, tag=True):
    """Execute what was prepared; answered by `Over` when the mode has ended."""


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The code is loaded and defines the requested functions.

    Attributes:
        path: The file.
    """

    path: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The code cannot be loaded, or lacks a requested function.

    Attributes:
        message: What is wrong and where.
        context: Plain values that name the place.
    """

    message: str
    context: dict[str, Any] = {}


class Over(msgspec.Struct, frozen=True, tag=True):
    """The mode has ended by itself.

    Attributes:
        error: Why; empty if all requests were executed.
        context: Plain values that name the place.
    """

    error: str = ""
    context: dict[str, Any] = {}


Command = Prepare | Go
Answer = Loaded | Refused | Over


def encode(message: Command | Answer) -> bytes:
    """Encode a message, which `rt.protocol.structs.decode` decodes.

    A context value that MessagePack does not support becomes text. An error that is too long is
    cut.

    Raises:
        RemoteProtocolError: The requests of a `Prepare` are too long.
    """
    if isinstance(message, Refused | Over):
        message = msgspec.structs.replace(message, context=_sendable(message.context))
    data = structs.encode(message)
    if len(data) <= MAX_MESSAGE:
        return data
    match message:
        case Refused(text) | Over(text):
            return structs.encode(type(message)(text[:_MAX_ERROR]))
        case _:
            raise RemoteProtocolError(
                f"requests too long: {len(data)} bytes, at most {MAX_MESSAGE}", size=len(data)
            )


def _sendable(context: Any) -> dict[str, Any]:
    """Convert the context of an error, which team code can set to anything."""
    try:
        return dict(plain(dict(context)))
    except Exception:  # noqa: BLE001 - the context may hold objects that raise when they are read
        return {}
