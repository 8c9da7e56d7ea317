"""The envelope of every remote call, log event and control datagram: MessagePack-RPC.

A request is `[0, id, method, params]`, a response `[1, id, error or nil, result]`, a notification
`[2, method, params]`; params is an array, an error is `[message, context]`. One message fills one
ZMQ frame or one datagram.

Methods whose names begin with `$` belong to the protocol itself. They travel as notifications,
nobody has to send them, and whoever does not know one ignores it:

- `[2, "$cancel", [id]]`, from a caller to a service: nobody waits for the answer to request `id`
  any more. The service stops the method, unless that was marked as urgent, and answers the request
  with an error if it had no answer yet.
- `[2, "$hello", [name, ...]]`, from any peer to its router, addressed with the empty identity: the
  peer understands these notifications and wants them (`$gone` is the only one). It is a hello too:
  a router answers it, like an empty payload, with an empty payload. A router sends nothing unasked
  to a peer that has not said so over its present connection.
- `[2, "$gone", [identity, ...]]`, from a router (whose identity is empty): these peers have gone,
  and with them whoever waited for answers, or should have given them. A router tells its services
  of every peer, and other peers of services. What was said in the name of another peer is ignored.

The rule of this module: what is not exactly one of the three is refused whole with
`RemoteProtocolError`, whatever the bytes are, so that a receiver has one thing to catch, count and
go on from.
"""

from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, TypeAlias

import msgspec

from rt.errors import LocalProtocolError, RemoteProtocolError

MAX_MESSAGE = 1 << 20
"""The longest message in bytes, both ways (1 MiB)."""

ID_MAX = 0xFFFF_FFFF
"""Identifiers are unsigned 32-bit integers and wrap around."""

METHOD_MAX = 128
"""The longest name of a method in characters."""

HEAD_MAX = 4 * METHOD_MAX + 32
"""All that comes before the arguments of a call lies within so many bytes."""

CallId: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=ID_MAX)]
Method: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=METHOD_MAX)]
ErrorValue: TypeAlias = tuple[str, dict[str, Any]]
"""What went wrong in one sentence, and plain values that name the place."""


class Request(msgspec.Struct, array_like=True, tag=0, frozen=True, forbid_unknown_fields=True):
    """A call that wants an answer.

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
    """The answer to the request of the same `id`.

    Attributes:
        id: Of the request.
        error: None when the call succeeded, else `(message, context)`.
        result: What the method returned; of no meaning beside an error.
    """

    id: CallId
    error: ErrorValue | None
    result: Any


class Notification(msgspec.Struct, array_like=True, tag=2, frozen=True, forbid_unknown_fields=True):
    """A call that wants no answer.

    Attributes:
        method: Name of the method, 1 to 128 characters.
        params: Positional arguments, as in `Request`.
    """

    method: Method
    params: list[Any]


PARAMS_MAX = 1024
"""The most arguments of a call that `decode_raw` reads."""

RawParams: TypeAlias = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=PARAMS_MAX)]

Envelope: TypeAlias = Request | Response | Notification

CANCEL = "$cancel"
"""Says that nobody waits for the answer to a request any more; its one argument is the id."""

GONE = "$gone"
"""Says which peers of a router have gone; its arguments are their identities (bin)."""


HELLO = "$hello"
"""Says which notifications of the protocol a peer understands; its arguments are their names."""


def _refuse_extension(code: int, _data: memoryview) -> NoReturn:
    raise ValueError(f"extension type {code} is not used here")


class _RawRequest(msgspec.Struct, array_like=True, tag=0, frozen=True, forbid_unknown_fields=True):
    id: CallId
    method: Method
    params: RawParams


class _RawNotification(
    msgspec.Struct, array_like=True, tag=2, frozen=True, forbid_unknown_fields=True
):
    method: Method
    params: RawParams


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Envelope] = msgspec.msgpack.Decoder(
    Envelope, ext_hook=_refuse_extension
)


_raw_decoder: msgspec.msgpack.Decoder[_RawRequest | _RawNotification] = msgspec.msgpack.Decoder(
    _RawRequest | _RawNotification
)


def encode(message: Envelope) -> bytes:
    """Turn a message to bytes.

    Raises:
        LocalProtocolError: A value has no form on the wire (an object, an integer beyond 64 bits, a
            structure that contains itself), or the message is longer than `MAX_MESSAGE`.
    """
    try:
        data = _encoder.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise LocalProtocolError(f"a value cannot be sent: {error}", reason="value") from error
    if len(data) > MAX_MESSAGE:
        raise LocalProtocolError(
            f"a message of {len(data)} bytes is longer than the {MAX_MESSAGE} that a call may carry; send it in parts",
            reason="size",
            size=len(data),
        )
    return data


HELLO_MESSAGE = encode(Notification(HELLO, [GONE]))
"""The hello of rt's own clients and services."""


def parse_hello(data: bytes) -> list[Any] | None:
    """Return the names in the hello of a peer, which are empty in an empty payload, or None if it is no hello."""
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
    """Return a request or notification without its arguments, or None for anything else; the cost does not depend on them.

    It serves to refuse a message that is too long to be decoded, and tells nothing of the bytes
    behind the method's name.
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
    """Turn the bytes of a call to a value whose arguments are `msgspec.Raw`, to be decoded as the types that they have to be.

    Nothing is built of the arguments, so that the cost is small whatever they are.

    Raises:
        RemoteProtocolError: It is no call, or one of more than `PARAMS_MAX` arguments.
    """
    try:
        raw = _raw_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteProtocolError(f"no call: {error}", reason="bytes") from error
    # A part of a larger buffer, which it would keep.
    params: list[Any] = [each.copy() for each in raw.params]
    if isinstance(raw, _RawRequest):
        return Request(raw.id, raw.method, params)
    return Notification(raw.method, params)


def decode_argument(data: msgspec.Raw, annotation: Any) -> Any:
    """Turn one argument of `decode_raw` to a value of a type.

    Raises:
        msgspec.ValidationError: It is of another type.
        RemoteProtocolError: The bytes are no MessagePack.
    """
    try:
        return msgspec.msgpack.decode(data, type=annotation, ext_hook=_refuse_extension)
    except msgspec.ValidationError:
        raise
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteProtocolError(f"no MessagePack: {error}", reason="bytes") from error


def decode(data: bytes | bytearray | memoryview) -> Envelope:
    """Turn the bytes of one message to a value.

    Maps may have keys of any hashable type, arrays as keys become tuples; every other array becomes
    a list.

    Raises:
        RemoteProtocolError: Anything else than one whole message of at most `MAX_MESSAGE` bytes;
            the context has a `reason`: `size`, `envelope` (MessagePack, but none of the three) or
            `bytes` (no MessagePack).
    """
    if len(data) > MAX_MESSAGE:
        raise RemoteProtocolError(
            f"a message of {len(data)} bytes came, {MAX_MESSAGE} are allowed",
            reason="size",
            size=len(data),
        )
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(
            f"no message of the call protocol: {error}", reason="envelope"
        ) from error
    # Depth ends in RecursionError, bad text in UnicodeDecodeError, an extension in the hook's
    # ValueError.
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteProtocolError(f"no MessagePack: {error}", reason="bytes") from error
