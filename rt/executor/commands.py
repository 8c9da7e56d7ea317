"""What the root and an executor process say to each other about one mode: messages of the executor's channel.

The root asks a process to prepare a mode, the process loads the team's code and answers, the root
lets it go, and in the end the process says how the mode went. A process runs one mode and no other.

Format: one SOCK_SEQPACKET message each, MessagePack of one of the structs below, tagged by its name
in ``type``. Team code runs in the process, so the root checks whatever comes from there.
"""

from typing import Annotated, Any, TypeAlias

import msgspec

from rt.errors import RemoteProtocolError
from rt.protocol import structs
from rt.protocol.logevent import plain

MAX_MESSAGE = 1 << 17
"""The longest message in bytes."""
DEFAULT_TIMEOUT = 1.0
"""Time limit of a function (s) where neither its request nor the options say one."""
_MAX_ERROR = 2000


class RequestSpec(msgspec.Struct, forbid_unknown_fields=True):
    """A request to execute a function of the team's code, as it travels."""

    func: Annotated[str, msgspec.Meta(max_length=128)]
    args: Annotated[list[Any], msgspec.Meta(max_length=64)] = []
    timeout: Annotated[float, msgspec.Meta(gt=0, le=3600)] | None = None
    periodic: bool = False


Requests: TypeAlias = Annotated[list[RequestSpec], msgspec.Meta(max_length=64)]
"""What one call may ask to be executed."""


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """Load the team's code and find what is to be executed; answered by `Loaded` or `Refused`.

    Attributes:
        mode: The number of the mode (`rt.team.api.Mode`).
        requests: What is to be executed, in order.
        gamepads: Whether gamepads can be read.
        partial: Whether it is enough if one of the functions is there, as with a setup and a main.
    """

    mode: int
    requests: list[RequestSpec]
    gamepads: bool
    partial: bool


class Go(msgspec.Struct, frozen=True, tag=True):
    """Execute what was prepared; answered by `Over` in the end."""


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The code is loaded and has what is asked for.

    Attributes:
        path: The file.
    """

    path: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The code cannot be loaded, or has not what is asked for.

    Attributes:
        message: What is wrong and where, in a sentence.
        context: Plain values that name the place.
    """

    message: str
    context: dict[str, Any] = {}


class Over(msgspec.Struct, frozen=True, tag=True):
    """The mode has ended by itself.

    Attributes:
        error: What ended it, in a sentence; empty if all requests were executed.
        context: Plain values that name the place.
    """

    error: str = ""
    context: dict[str, Any] = {}


Answer = Loaded | Refused | Over


def encode(message: Prepare | Go | Answer) -> bytes:
    """The bytes of a message; of an error that is too long, its beginning. What MessagePack cannot hold of a context becomes text.

    Raises:
        RemoteProtocolError: The requests of a `Prepare` are too long.
    """
    if isinstance(message, Refused | Over):
        message = msgspec.structs.replace(message, context=_sendable(message.context))
    data = structs.encode(message)
    if len(data) <= MAX_MESSAGE:
        return data
    match message:
        case Refused(text, _):
            return structs.encode(Refused(text[:_MAX_ERROR]))
        case Over(text, _):
            return structs.encode(Over(text[:_MAX_ERROR]))
        case _:
            raise RemoteProtocolError(
                f"the requests take {len(data)} bytes, more than {MAX_MESSAGE}", size=len(data)
            )


def _sendable(context: Any) -> dict[str, Any]:
    """The context of an error, which team code can set to anything."""
    try:
        return dict(plain(dict(context)))
    except Exception:  # noqa: BLE001 - an object of the team's code fails when it is looked at
        return {}


def decode_command(data: bytes) -> Prepare | Go:
    """A message of the root.

    Raises:
        RemoteProtocolError: It is none.
    """
    command: Prepare | Go = structs.decode(data, Prepare | Go)
    return command


def decode_answer(data: bytes) -> Answer:
    """A message of an executor process.

    Raises:
        RemoteProtocolError: It is none.
    """
    answer: Answer = structs.decode(data, Answer)
    return answer
