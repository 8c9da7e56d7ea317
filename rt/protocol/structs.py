"""Messages that are one msgspec struct each, as MessagePack: between processes of one robot, beside RPC."""

from typing import Any, TypeVar

import msgspec

from rt.errors import RemoteProtocolError

_T = TypeVar("_T")


def encode(message: msgspec.Struct) -> bytes:
    """The bytes of a struct. Values of other types become their `repr`, and what UTF-8 cannot hold its escape."""
    try:
        return msgspec.msgpack.encode(message, enc_hook=repr)
    except UnicodeEncodeError:
        return msgspec.msgpack.encode(_escaped(msgspec.to_builtins(message, enc_hook=repr)))


def decode(data: bytes, type: type[_T] | Any) -> _T:  # noqa: A002 - msgspec's name for it
    """The struct that a message carries.

    Raises:
        RemoteProtocolError: It is none of that type, it holds text that is not UTF-8, or it is
            nested too deeply.
    """
    try:
        message: _T = msgspec.msgpack.decode(data, type=type)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteProtocolError(str(error), size=len(data)) from error
    return message


def _escaped(value: Any) -> Any:
    """A builtin value in which each lone surrogate is its escape."""
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {_escaped(key): _escaped(each) for key, each in value.items()}
        case list():
            return [_escaped(each) for each in value]
        case _:
            return value
