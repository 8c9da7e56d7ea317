"""A router, a service and a client in one event loop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import zmq

from rt.remote import Client, Handler, Router, Service, SocketNode
from rt.remote.quota import Quota

ADDRESS = "device-service"


@asynccontextmanager
async def robot(
    tmp_path: Path, handler: Handler, *, quota: Quota | None = None, **options: Any
) -> AsyncIterator[tuple[Client, Service]]:
    front, back = f"ipc://{tmp_path}/f", f"ipc://{tmp_path}/b"
    router = Router([front], [back])
    if quota is not None:
        router._quota = quota
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(router.run)
            serving = Service(
                SocketNode(zmq.DEALER, ADDRESS, connections=[back]), handler, **options
            )
            await nursery.start(serving.run)
            node = SocketNode(zmq.DEALER, "test-client", connections=[front])
            async with Client(node, address=ADDRESS, timeout=15.0) as client:
                yield client, serving
            nursery.cancel_scope.cancel()
