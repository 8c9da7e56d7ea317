"""The MessagePack-RPC envelope of remote calls, log events and control datagrams.

A request is `[0, id, method, params]`, a response `[1, id, error or nil, result]`, a notification
`[2, method, params]`; params is an array, an error is `[message, context]`. One message fills one
ZMQ frame or one datagram.

Methods whose names begin with `$` belong to the protocol itself. They are optional notifications,
and a peer ignores those that it does not know:

- `[2, "$cancel", [id]]`, from a caller to a service: the caller does not wait for the answer to
  request `id`. The service cancels the method, unless it is urgent, and answers with an error if it
  has not answered yet.
- `[2, "$hello", [name, ...]]`, from a peer to its router, addressed with the empty identity: the
  peer wants these notifications (`$gone` is the only one). The router answers, as it does to an
  empty payload, with an empty payload. It sends these notifications only to peers that have sent a
  hello over their present connection.
- `[2, "$gone", [identity, ...]]`, from a router (whose identity is empty): these peers have
  disconnected, and neither wait for answers nor send any. Services learn of every peer, and other
  peers of services. A `$gone` from another peer is ignored.

Invariant: bytes that are not exactly one of the three messages are refused with
    `RemoteProtocolError`, so that a receiver has one error to handle.
"""

from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, TypeAlias

import msgspec

from rt.errors import LocalProtocolError, RemoteProtocolError

MAX_MESSAGE = 1 << 20
"""The longest message in either direction (bytes), 1 MiB."""

ID_MAX = 0xFFFF_FFFF
"""The largest id of a request; ids are unsigned 32-bit integers and wrap around."""

METHOD_MAX = 128
"""The longest name of a method (characters)."""

HEAD_MAX = 4 * METHOD_MAX + 32
"""The maximum length (bytes) of a call up to its arguments."""

CallId: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=ID_MAX)]
Method: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=METHOD_MAX)]
ErrorValue: TypeAlias = tuple[str, dict[str, Any]]
"""A message of one sentence, and a context of plain values."""


class Request(msgspec.Struct, array_like=True, tag=0, frozen=True, forbid_unknown_fields=True):
    """A call with an answer.

    Attributes:
        id: Chosen by the caller, unique among its open calls, 0 to 2**32 - 1.
        method: Name of the method, 1 to 128 characters.
        params: Positional arguments: nil, bool, int (64 bits), float, str, bin, arrays and maps.
            UIDs are decimal strings.
    """

    id: CallId
    method: Method
    params: list[Any]


class Response(msgspec.Struct, array_like=True, tag=1, frozen=True, forbid_unknown_fields=True):
    """The answer to a request.

    Attributes:
        id: The id of the request.
        error: None if the call succeeded, else `(message, context)`.
        result: What the method returned; meaningless if there is an error.
    """

    id: CallId
    error: ErrorValue | None
    result: Any


class Notification(msgspec.Struct, array_like=True, tag=2, frozen=True, forbid_unknown_fields=True):
    """A call without an answer.

    Attributes:
        method: Name of the method, 1 to 128 characters.
        params: Positional arguments, as in `Request`.
    """

    method: Method
    params: list[Any]


PARAMS_MAX = 1024
"""The maximum number of arguments that `decode_raw` accepts."""

RawParams: TypeAlias = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=PARAMS_MAX)]

Envelope: TypeAlias = Request | Response | Notification

CANCEL = "$cancel"
"""Cancels a request; its argument is the id."""

GONE = "$gone"
"""Reports peers of a router that have disconnected; its arguments are their identities (bin)."""

HELLO = "$hello"
"""Requests notifications of the protocol; its arguments are their names."""


def _refuse_extension(code: int, _data: memoryview) -> NoReturn:
    raise ValueError(f"extension type {code} is not allowed")


class _RawRequest(Request, tag=0, frozen=True):
    params: RawParams


class _RawNotification(Notification, tag=2, frozen=True):
    params: RawParams


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Envelope] = msgspec.msgpack.Decoder(
    Envelope, ext_hook=_refuse_extension
)


_raw_decoder: msgspec.msgpack.Decoder[_RawRequest | _RawNotification] = msgspec.msgpack.Decoder(
    _RawRequest | _RawNotification
)


def encode(message: Envelope) -> bytes:
    """Encode a message.

    Raises:
        LocalProtocolError: A value cannot be encoded (an object, an integer beyond 64 bits, a
            structure that contains itself), or the message is longer than `MAX_MESSAGE`.
    """
    try:
        data = _encoder.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise LocalProtocolError(f"a value cannot be sent: {error}", reason="value") from error
    if len(data) > MAX_MESSAGE:
        raise LocalProtocolError(
            f"message too long: {len(data)} bytes, at most {MAX_MESSAGE} are allowed; "
            "send it in parts",
            reason="size",
            size=len(data),
        )
    return data


HELLO_MESSAGE = encode(Notification(HELLO, [GONE]))
"""The hello of rt's clients and services."""


def parse_hello(data: bytes) -> list[Any] | None:
    """Return the names in a hello (none in an empty payload), or None if it is not a hello."""
    if not data:
        return []
    head = peek(data)
    if not isinstance(head, Notification) or head.method != HELLO:
        return None
    if len(data) > HEAD_MAX:
        return []
    try:
        message = decode(data)
    except RemoteProtocolError:
        return None
    return message.params if isinstance(message, Notification) else None


def peek(data: bytes) -> Request | Notification | None:
    """Return a request or notification without its arguments, or None for anything else.

    The cost does not depend on the arguments, so a message can be refused before it is decoded. The
    bytes after the method's name are not checked.
    """
    head = data[:HEAD_MAX]
    try:
        length, at = _read_length(head, 0, 0x90, 0x0F, _ARRAYS)
        kind, at = _read_uint(head, at)
        if (kind, length) not in {(0, 4), (2, 3)}:
            return None
        call_id = 0
        if kind == 0:
            call_id, at = _read_uint(head, at)
        size, at = _read_length(head, at, 0xA0, 0x1F, _TEXTS)
        method = head[at : at + size].decode() if len(head) >= at + size else ""
    except (IndexError, KeyError, ValueError):
        return None
    if not 1 <= len(method) <= METHOD_MAX or call_id > ID_MAX:
        return None
    return Request(call_id, method, []) if kind == 0 else Notification(method, [])


_UINTS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}


def _read_uint(head: bytes, at: int) -> tuple[int, int]:
    first = head[at]
    return (first, at + 1) if first < 0x80 else _read_sized(head, at + 1, _UINTS[first])


def _read_length(
    head: bytes, at: int, fixed: int, mask: int, sizes: Mapping[int, int]
) -> tuple[int, int]:
    first = head[at]
    return (
        (first & mask, at + 1)
        if first & ~mask == fixed
        else _read_sized(head, at + 1, sizes[first])
    )


def _read_sized(head: bytes, at: int, width: int) -> tuple[int, int]:
    raw = head[at : at + width]
    if len(raw) < width:
        raise IndexError
    return int.from_bytes(raw, "big"), at + width


def decode_raw(data: bytes) -> Request | Notification:
    """Decode a call, and leave its arguments as `msgspec.Raw` for `decode_argument`.

    No objects are created from the arguments, so the cost is small whatever they are.

    Raises:
        RemoteProtocolError: It is not a call, or has more than `PARAMS_MAX` arguments.
    """
    try:
        raw = _raw_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteProtocolError(f"not a call: {error}", reason="bytes") from error
    # A copy, because each is a view that keeps the whole buffer alive.
    params: list[Any] = [each.copy() for each in raw.params]
    if isinstance(raw, _RawRequest):
        return Request(raw.id, raw.method, params)
    return Notification(raw.method, params)


def decode_argument(data: msgspec.Raw, annotation: Any) -> Any:
    """Decode one argument of `decode_raw` as a type.

    Raises:
        msgspec.ValidationError: The argument has another type.
        RemoteProtocolError: The bytes are not MessagePack.
    """
    try:
        return msgspec.msgpack.decode(data, type=annotation, ext_hook=_refuse_extension)
    except msgspec.ValidationError:
        raise
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteProtocolError(f"not MessagePack: {error}", reason="bytes") from error


def decode(data: bytes | bytearray | memoryview) -> Envelope:
    """Decode one message.

    Keys of maps may have any hashable type. Arrays become lists, and tuples where they are keys.

    Raises:
        RemoteProtocolError: The bytes are not exactly one message of at most `MAX_MESSAGE` bytes.
            The context has a `reason`: `size`, `envelope` (MessagePack, but not one of the three
            messages) or `bytes` (not MessagePack).
    """
    if len(data) > MAX_MESSAGE:
        raise RemoteProtocolError(
            f"message too long: {len(data)} bytes, at most {MAX_MESSAGE} are allowed",
            reason="size",
            size=len(data),
        )
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(
            f"not a message of the RPC protocol: {error}", reason="envelope"
        ) from error
    # Excessive depth raises RecursionError, invalid text UnicodeDecodeError, and the hook for
    # extensions ValueError.
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteProtocolError(f"not MessagePack: {error}", reason="bytes") from error
