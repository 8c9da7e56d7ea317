"""The relay of bytes: complete, in order, and without errors when an end closes."""

import socket
import struct
from collections.abc import Callable

import pytest
import trio
import trio.testing

from rt.access.inlet import relay


async def pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return both ends of a TCP connection."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.testing.open_stream_to_socket_listener(listener)
        return near, await listener.accept()


def unix_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    near, far = trio.socket.socketpair()
    return trio.SocketStream(near), trio.SocketStream(far)


async def test_bytes_pass_both_ways_until_the_end(nursery: trio.Nursery) -> None:
    client, outer = await pair()
    inner, server = unix_pair()
    nursery.start_soon(relay, outer, inner)
    big = bytes(range(256)) * 8192
    with trio.fail_after(30):
        async with client, server:
            nursery.start_soon(client.send_all, big)
            received = b""
            while len(received) < len(big):
                received += bytes(await server.receive_some())
            assert received == big
            await server.send_all(b"answer")
            assert await client.receive_some() == b"answer"
            await client.send_eof()
            assert await server.receive_some() == b""
            await server.send_all(b"last")
            await server.send_eof()
            assert await client.receive_some() == b"last"
            assert await client.receive_some() == b""


def reset(stream: trio.SocketStream) -> None:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@pytest.mark.parametrize(
    "end", [reset, lambda stream: stream.socket.close()], ids=["reset", "close"]
)
@pytest.mark.parametrize("who", ["client", "server", "both"])
async def test_closing_an_end_raises_no_error(
    end: Callable[[trio.SocketStream], None], who: str
) -> None:
    with trio.fail_after(30):
        for _ in range(20):
            client, outer = await pair()
            inner, server = unix_pair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay, outer, inner)
                # Neither end reads, so both directions have pending bytes when an end closes.
                for stream in (client, server):
                    with trio.move_on_after(0.01):
                        await stream.send_all(bytes(1 << 22))
                for stream in {"client": [client], "server": [server], "both": [client, server]}[
                    who
                ]:
                    end(stream)
                for stream in (client, server):
                    await trio.aclose_forcefully(stream)
