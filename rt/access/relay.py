"""A relay of bytes between an accepted TCP connection and a ZMQ socket's inlet."""

import trio

CHUNK = 1 << 16
"""Maximum number of buffered bytes in each direction."""


async def relay(outer: trio.SocketStream, inner: trio.SocketStream) -> None:
    """Relay bytes both ways until the inner end closes or either end breaks; then close both.

    Errors of the connections are not raised. Cancelling closes both ends.
    """
    async with outer, inner, trio.open_nursery() as nursery:
        nursery.start_soon(_relay_one_way, outer, inner, nursery.cancel_scope)
        await _relay_one_way(inner, outer, nursery.cancel_scope)
        nursery.cancel_scope.cancel()


async def _relay_one_way(
    source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
) -> None:
    """Relay bytes and end of file; cancel both directions if a connection is broken."""
    try:
        while data := await source.receive_some(CHUNK):
            await sink.send_all(data)
        await sink.send_eof()  # libzmq then closes its end
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        scope.cancel()
