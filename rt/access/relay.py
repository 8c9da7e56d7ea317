"""Bytes carried between an accepted TCP connection and a ZMQ socket's inlet."""

import trio

CHUNK = 1 << 16
"""Bytes that wait in each direction at most."""


async def relay(outer: trio.SocketStream, inner: trio.SocketStream) -> None:
    """Carry bytes both ways until the inner side hangs up or either side breaks; both are closed then.

    Nothing that the ends do raises an error here. A cancel ends it at once.
    """
    async with outer, inner, trio.open_nursery() as nursery:
        nursery.start_soon(_carry, outer, inner, nursery.cancel_scope)
        await _carry(inner, outer, nursery.cancel_scope)
        nursery.cancel_scope.cancel()


async def _carry(
    source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
) -> None:
    """Carry bytes one way, and then the end of them; cancel the other way where the connection is broken."""
    try:
        while data := await source.receive_some(CHUNK):
            await sink.send_all(data)
        await sink.send_eof()  # libzmq hangs up then
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        scope.cancel()
