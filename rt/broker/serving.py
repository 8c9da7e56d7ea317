"""The tasks of the broker: router, methods of the robot, gamepads in, device updates out."""

import math
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from rt.access.authenticator import Authenticator
from rt.app import Application
from rt.broker.access import Access
from rt.broker.commander import Refusal
from rt.broker.driving import ControlRefusedError, Driving
from rt.broker.gamepads import GamepadFeed
from rt.broker.handler import UPDATE_BOUNDS, Broker
from rt.broker.updates import UpdatePublisher
from rt.buffer import BufferStore
from rt.config import overrides
from rt.log.throttle import Bucket
from rt.protocol.datagrams import Refused, Stamp
from rt.remote import Handler, Node, route
from rt.remote.caller import caller
from rt.remote.handler import Route
from rt.remote.signed_node import VerifyingNode

NOTICE_INTERVAL = 1.0
"""Minimum time (s) between two refusal notices to one source."""
NOTICES_PER_SECOND = 64
"""Maximum number of refusal notices to all sources, which forged source addresses could draw."""
_SOURCES_MAX = 256


class Controls(Handler):
    """The methods for datagrams, which anybody on the network can send: gamepad updates only.

    Invariant: a datagram draws at most one datagram, which is not longer. A source draws at most
    one per second, and all sources together at most `NOTICES_PER_SECOND`.

    Args:
        broker: Handles the updates.
    """

    bounds = UPDATE_BOUNDS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._node: VerifyingNode | None = None
        self._notified: OrderedDict[bytes, float] = OrderedDict()
        self._bucket = Bucket(NOTICES_PER_SECOND, 1 / NOTICES_PER_SECOND, 0.0)

    def answer_through(self, node: Node) -> None:
        """Send refusal notices through the node of this handler's service."""
        self._node = node if isinstance(node, VerifyingNode) else None

    @route(inline=True)
    def update_gamepads(self, update: dict[str, Any], stamp: Stamp | None = None) -> None:
        """Store the state of one or more gamepads: index -> lx, ly, rx, ry (-1 to 1) and btn."""
        try:
            self._broker.update_gamepads(update, stamp)
        except ControlRefusedError as error:
            self._notify(caller().peer, error.refusal)

    def routes(self) -> dict[str, Route]:
        """Return the only route."""
        return {"update_gamepads": super().routes()["update_gamepads"]}

    def _notify(self, source: bytes, refusal: Refusal) -> None:
        now = trio.current_time()
        if self._node is None or now < self._notified.get(source, -math.inf) + NOTICE_INTERVAL:
            return
        if self._bucket.refill(now) < 1:
            return
        self._bucket.tokens -= 1
        self._notified[source] = now
        self._notified.move_to_end(source)
        if len(self._notified) > _SOURCES_MAX:
            self._notified.popitem(last=False)
        self._node.send_refusal_notice(source, Refused(refusal.by, refusal.you))


async def serve(
    app: Application,
    store: BufferStore,
    authenticator: Authenticator,
    *,
    instance: str,
    directory: Path,
    status: Callable[[], list[dict[str, Any]]],
    driving: Driving | None = None,
) -> None:
    """Start the broker's tasks in an application; return when calls can be received.

    Args:
        app: The application, named ``broker``.
        store: Buffers of the application.
        authenticator: Binds the listening sockets.
        instance: Name of the robot's instance.
        directory: The instance directory.
        status: Returns the state of the robot's children, in plain values.
        driving: The driver; by default a new one.

    Raises:
        InstanceBusyError: Another program holds one of the addresses.
    """
    gamepads = GamepadFeed(store, driving)
    gamepads.driving.is_revoked = lambda station: station not in authenticator.keyring.stations
    app.authenticator = authenticator
    access = Access(app.config, authenticator)
    access.announce()
    handler = Broker(
        app.config,
        gamepads,
        status,
        access.report,
        state=overrides.state_directory(instance, os.environ),
        instance_directory=directory,
    )
    await app.make_router()
    await app.make_service(handler)
    controls = Controls(handler)
    control_service = await app.make_control_service(controls)
    controls.answer_through(control_service.node)
    access.watch(control_service)
    app.nursery.start_soon(gamepads.run)
    app.report_health()
    updates = UpdatePublisher(store, await app.make_update_node(), app.config.update_interval)
    app.nursery.start_soon(updates.run)
