"""Messages of untrusted peers: hand-written ZMTP handshakes and hypothesis strategies."""

import contextlib
import socket
import struct
from typing import Any

import msgspec
from hypothesis import strategies as st

from rt.protocol import rpc

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
"""A ZMTP 3.0 greeting without security. libzmq must have read it before more is sent."""


def introduce(stream: socket.socket, identity: bytes, *frames: bytes) -> None:
    """Read the peer's greeting, then send a READY with an identity, and frames.

    The caller has sent `GREETING` before.
    """
    received = b""
    while len(received) < len(GREETING):
        data = stream.recv(len(GREETING) - len(received))
        if not data:
            raise ConnectionError("the peer closed the connection")
        received += data
    ready = b"\x05READY" + b"".join(
        bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
        for name, value in ((b"Socket-Type", b"DEALER"), (b"Identity", identity))
    )
    stream.sendall(bytes([0x04, len(ready)]) + ready + b"".join(frames))


def frames_of(*frames: bytes) -> bytes:
    """Encode a message of short frames in ZMTP."""
    last = len(frames) - 1
    return b"".join(
        bytes([0x01 if at < last else 0x00, len(frame)]) + frame for at, frame in enumerate(frames)
    )


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=50)
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.dictionaries(st.text(max_size=8) | st.integers(0, 9), inner, max_size=8)
    ),
    max_leaves=30,
)


def nested(opener: bytes, depth: int) -> bytes:
    """Encode a notification with an argument of the given depth."""
    return b"\x93\x02\xa1m\x91" + opener * depth + b"\xc0"


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """Generate payloads: valid calls, damaged calls and random bytes."""
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind == 1:
        return msgspec.msgpack.encode(draw(values))
    if kind == 2:
        depth = draw(st.sampled_from([1, 100, 1000, 100_000]))
        return nested(
            draw(st.sampled_from([b"\x91", b"\x81\xa1k", b"\x81\x91", b"\xdd\0\0\0\1"])), depth
        )
    if kind == 3:
        # Declared lengths that exceed the payload.
        size = draw(st.sampled_from([0x10, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF]))
        return (
            b"\x93\x02\xa1m"
            + draw(st.sampled_from([b"\xdd", b"\xdf", b"\xdb", b"\xc6"]))
            + struct.pack(">I", size)
        )
    wire = [
        0,
        draw(st.integers(0, rpc.ID_MAX)),
        draw(st.sampled_from(["echo", "fail", "add", "", "$cancel", "x"])),
        [],
    ]
    wire[3] = draw(st.lists(values, max_size=3))
    if draw(st.booleans()):
        wire[:2] = [2]
    raw = bytearray(msgspec.msgpack.encode(wire))
    if kind == 5:
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw)


def pipelined(payload: bytes) -> bytes:
    """Encode a greeting, a READY and one message to a service, to be sent without reading."""
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
    return GREETING + bytes([0x04, len(ready)]) + ready + frames_of(b"greeter-service", payload)


def call(port: int, payload: bytes) -> None:
    """Send a message to a router over TCP; print "admitted" if it sends a READY, else "closed"."""
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.settimeout(30)
        with contextlib.suppress(ConnectionError):
            stream.sendall(GREETING)
            introduce(
                stream, b"stranger", frames_of(b"greeter-service", bytes.fromhex(payload.decode()))
            )
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := stream.recv(4096):
                received += data
                if b"READY" in received:
                    break
    print("admitted" if b"READY" in received else "closed")  # noqa: T201 - the result


def subscribe(stream: socket.socket) -> None:
    """Subscribe to all topics of a PUB, without security."""
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 3) + b"SUB"
    with contextlib.suppress(ConnectionError):
        stream.sendall(GREETING + bytes([0x04, len(ready)]) + ready + frames_of(b"\x01"))
