"""An independent MessagePack-RPC client over ZMQ, written from the specification.

It uses neither rt nor msgspec, so tests call rt as a program in another language would.
"""

import struct
from collections.abc import Iterator
from typing import Any, Self

import zmq

TIMEOUT_MS = 20_000


def pack(value: Any) -> bytes:  # noqa: PLR0911 - one return for each kind of value
    """Encode None, bool, int, float, str, bytes, lists and dicts as MessagePack."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return _pack_int(value)
        case float():
            return struct.pack(">Bd", 0xCB, value)
        case str():
            raw = value.encode()
            return (
                bytes([0xA0 | len(raw)]) if len(raw) < 32 else struct.pack(">BI", 0xDB, len(raw))
            ) + raw
        case bytes():
            return struct.pack(">BI", 0xC6, len(value)) + value
        case list():
            head = (
                bytes([0x90 | len(value)])
                if len(value) < 16
                else struct.pack(">BI", 0xDD, len(value))
            )
            return head + b"".join(map(pack, value))
        case dict():
            head = (
                bytes([0x80 | len(value)])
                if len(value) < 16
                else struct.pack(">BI", 0xDF, len(value))
            )
            return head + b"".join(pack(key) + pack(each) for key, each in value.items())
    raise TypeError(value)


def _pack_int(value: int) -> bytes:
    if 0 <= value < 0x80:
        return bytes([value])
    if -0x20 <= value < 0:
        return bytes([value & 0xFF])
    return struct.pack(">BQ", 0xCF, value) if value > 0 else struct.pack(">Bq", 0xD3, value)


def unpack(data: bytes) -> Any:
    """Decode exactly one value."""
    value, end = _unpack(data, 0)
    assert end == len(data), "trailing bytes"
    return value


_FIXED = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
_FIXED |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_SIZED = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_SIZED |= {0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}
_SIMPLE = {0xC0: None, 0xC2: False, 0xC3: True}


def _unpack(data: bytes, at: int) -> tuple[Any, int]:
    kind = data[at]
    at += 1
    if kind < 0x80 or kind >= 0xE0:
        return (kind if kind < 0x80 else kind - 0x100), at
    if kind in _SIMPLE:
        return _SIMPLE[kind], at
    if kind in _FIXED:
        return struct.unpack_from(_FIXED[kind], data, at)[0], at + struct.calcsize(_FIXED[kind])
    if kind in _SIZED:
        (size,) = struct.unpack_from(_SIZED[kind], data, at)
        at += struct.calcsize(_SIZED[kind])
    else:
        size = kind & 0x1F if kind >= 0xA0 else kind & 0x0F
    if kind < 0x90 or kind in {0xDE, 0xDF}:
        flat, at = _many(data, at, 2 * size)
        return dict(zip(flat[::2], flat[1::2], strict=True)), at
    if kind < 0xA0 or kind in {0xDC, 0xDD}:
        return _many(data, at, size)
    raw = data[at : at + size]
    return (raw if kind in {0xC4, 0xC5, 0xC6} else raw.decode()), at + size


def _many(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    found = []
    for _ in range(count):
        value, at = _unpack(data, at)
        found.append(value)
    return found, at


class TinyClient:
    """A blocking client, for use in a worker thread.

    Args:
        address: Address of a router's frontend.
    """

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, TIMEOUT_MS)
        self._socket.connect(address)
        self._numbers: Iterator[int] = iter(range(1, 1 << 32))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()

    def call(self, service: str, method: str, *params: Any) -> tuple[Any, Any]:
        """Call a method; return its error and its result."""
        number = next(self._numbers)
        self._socket.send_multipart([service.encode(), pack([0, number, method, list(params)])])
        sender, payload = self._socket.recv_multipart()
        kind, answered, error, result = unpack(payload)
        assert (sender.decode(), kind, answered) == (service, 1, number)
        return error, result

    def notify(self, service: str, method: str, *params: Any) -> None:
        """Send a notification."""
        self._socket.send_multipart([service.encode(), pack([2, method, list(params)])])

    def hello(self) -> list[bytes]:
        """Send a hello to the router; return its answer."""
        self._socket.send_multipart([b"", b""])
        return self._socket.recv_multipart()
