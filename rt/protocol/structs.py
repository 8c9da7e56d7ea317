"""MessagePack encoding of single structs, for messages between processes of one robot."""

from typing import Any, TypeVar

import msgspec

from rt.errors import RemoteProtocolError

_T = TypeVar("_T")


def encode(message: msgspec.Struct) -> bytes:
    """Return the bytes of a struct.

    Values of unsupported types become their `repr`, and lone surrogates become escapes.
    """
    try:
        return msgspec.msgpack.encode(message, enc_hook=repr)
    except UnicodeEncodeError:
        return msgspec.msgpack.encode(_escaped(msgspec.to_builtins(message, enc_hook=repr)))


def decode(data: bytes, type: type[_T] | Any) -> _T:  # noqa: A002 - as in msgspec
    """Return the struct in a message.

    Raises:
        RemoteProtocolError: The message is not of that type, contains text that is not UTF-8, or is
            nested too deeply.
    """
    try:
        message: _T = msgspec.msgpack.decode(data, type=type)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteProtocolError(str(error), size=len(data)) from error
    return message


def _escaped(value: Any) -> Any:
    """Return a builtin value with lone surrogates escaped."""
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {_escaped(key): _escaped(each) for key, each in value.items()}
        case list():
            return [_escaped(each) for each in value]
        case _:
            return value
