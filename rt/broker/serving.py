"""The broker's tasks together: router, gamepads in, device updates out, and the methods of the robot itself."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rt.app import Application
from rt.broker.access import Access
from rt.broker.gamepads import GamepadFeed
from rt.broker.handler import Broker
from rt.broker.updates import UpdatePublisher
from rt.buffer import BufferStore
from rt.config import kept
from rt.protocol.control import Stamp
from rt.remote import Gate, Handler, route
from rt.remote.handler import Route


class _Controls(Handler):
    """What the driver's station may call by datagram, which anybody on its network can send: gamepads and nothing else."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    @route(inline=True)
    def update_gamepads(self, update: dict[str, Any], stamp: Stamp | None = None) -> None:
        """Store the state of one or more gamepads: index -> lx, ly, rx, ry (-1 to 1) and btn."""
        self._broker.update_gamepads(update, stamp)

    def routes(self) -> dict[str, Route]:
        """The one method."""
        return {"update_gamepads": super().routes()["update_gamepads"]}


async def serve(
    app: Application,
    store: BufferStore,
    gate: Gate,
    *,
    instance: str,
    directory: Path,
    status: Callable[[], list[dict[str, Any]]],
) -> None:
    """Let the broker serve as tasks of an application, which end with it; returns when calls can come in.

    Args:
        app: Named ``broker``.
        store: Its buffers.
        gate: Through which it listens.
        instance: The name of the robot's instance.
        directory: The instance directory.
        status: Says how the robot's children are, in plain values.

    Raises:
        InstanceBusyError: Another program holds one of its addresses.
    """
    gamepads = GamepadFeed(store)
    app.gate = gate
    access = Access(app.config, gate)
    access.announce()
    handler = Broker(
        app.config,
        gamepads,
        status,
        access.report,
        state=kept.state_directory(instance, os.environ),
        instance_directory=directory,
    )
    await app.make_router()
    await app.make_service(handler)
    access.watch(await app.make_control_service(_Controls(handler)))
    app.nursery.start_soon(gamepads.run)
    app.report_health()
    updates = UpdatePublisher(store, await app.make_update_node(), app.config.update_interval)
    app.nursery.start_soon(updates.run)
