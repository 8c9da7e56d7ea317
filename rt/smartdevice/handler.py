"""The remote methods of the device service.

Devices are named by UID or by the names that the team gave them.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Annotated

import msgspec
import trio

from rt.catalog.device_names import not_connected, resolve_uid
from rt.errors import DeviceError
from rt.protocol.message import INTERVAL_MAX
from rt.remote import Bounds, Handler, route
from rt.smartdevice.client import SmartDeviceClient

MAX_DEVICES_PER_CALL = 128
"""The most devices that one call may name."""


class DeviceHandler(Handler):
    """The remote methods, and the devices that are connected.

    Invariant: no call occupies the event loop for more than 1 ms, whatever its arguments; it would
        delay all devices.

    Args:
        names: UIDs by the names that the team gave them.
        is_over: Returns whether a session has ended.

    Attributes:
        devices: The clients of the devices that are connected, by UID.
    """

    bounds = Bounds(message=8192, items=MAX_DEVICES_PER_CALL)

    def __init__(self, names: Mapping[str, int], is_over: Callable[[int], bool]) -> None:
        self.devices: dict[int, SmartDeviceClient] = {}
        # Of every line, also before its device is discovered.
        self._clients: set[SmartDeviceClient] = set()
        self._names = dict(names)
        self._is_over = is_over

    @route(inline=True)
    def list_uids(self) -> list[str]:
        """List the UIDs of the devices that are connected."""
        return [str(uid) for uid in sorted(self.devices)]

    @route(inline=True)
    def ports(self) -> dict[str, str | None]:
        """List the open lines by port or peer address, each with its device's UID or null."""
        ports: dict[str, str | None] = dict.fromkeys(
            sorted(client.link.name for client in self._clients)
        )
        return ports | {client.link.name: str(uid) for uid, client in self.devices.items()}

    @route
    async def ping(self, uids: str | list[str] | None = None) -> None:
        """Ping devices and wait for their answers.

        Args:
            uids: A UID or a name, an array of them, or nothing for every device.
        """
        await for_each(self._select(uids), lambda client: client.ping())

    @route(urgent=True)
    async def disable(self, uids: str | list[str] | None = None) -> None:
        """Disable devices until they are written to again; `uids` as for `ping`."""
        await for_each(self._select(uids), lambda client: client.disable())

    @route
    async def subscribe(
        self,
        uid: str,
        params: list[str] | None = None,
        interval: float | None = None,
        visit: int | None = None,
    ) -> None:
        """Subscribe to parameters of a device.

        Args:
            uid: A UID or a name.
            params: Names of parameters; nothing for those of the catalog.
            interval: Time between two reports in s; nothing for the catalog's. The device limits it
                to 0.04 to 0.25.
            visit: For rt's own commands: the session with which the subscription ends; then the
                previous one is restored.
        """
        client = self._one(uid)
        if visit is not None and self._is_over(visit):
            return  # nothing would end it: the session was over before this call arrived
        try:
            await client.subscribe(params, interval, session=visit)
        except (OverflowError, ValueError):  # ValueError: NaN
            raise DeviceError(
                f"interval must be 0 to {INTERVAL_MAX / 1000:g} s, not {interval:g}",
                interval=interval,
            ) from None

    @route
    async def unsubscribe(
        self, uids: str | list[str] | None = None, visit: int | None = None
    ) -> None:
        """End the reports of devices; `uids` as for `ping`.

        With a session (`visit`), end only what it has subscribed to.
        """

        async def unsubscribe(client: SmartDeviceClient) -> None:
            if visit is None:
                await client.unsubscribe()
            elif client.end_sessions(lambda session: session == visit):
                await client.resubscribe()

        await for_each(self._select(uids), unsubscribe)

    @route(inline=True)
    def read(self, uid: str, params: list[str] | None = None) -> None:
        """Request parameters of a device once (nothing: all); the values come with the updates."""
        self._one(uid).read(params)

    @route
    async def heartbeat(
        self,
        uid: str,
        heartbeat_id: int | None = None,
        timeout: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0,  # noqa: ASYNC109 - public
        block: bool = True,
    ) -> float | None:
        """Send a heartbeat request to a device and return the round-trip time in s.

        Args:
            uid: A UID or a name.
            heartbeat_id: 0 to 255; nothing for the next of a running number.
            timeout: How long to wait in s, at most 10.
            block: Whether to wait; without, nothing is returned.
        """
        client = self._one(uid)
        if block:
            return await client.heartbeat(heartbeat_id, within=timeout)
        client.send_heartbeat(heartbeat_id)
        return None

    def _one(self, uid: str) -> SmartDeviceClient:
        number = resolve_uid(uid, self._names)
        client = self.devices.get(number)
        if client is None:
            raise not_connected(number, self._names, self.devices)
        return client

    def _select(self, uids: str | list[str] | None) -> list[SmartDeviceClient]:
        if uids is None:
            return list(self.devices.values())
        chosen = [
            self._one(uid) for uid in dict.fromkeys([uids] if isinstance(uids, str) else uids)
        ]
        return list(dict.fromkeys(chosen))  # a device may be given by name and by UID


async def for_each(
    clients: Iterable[SmartDeviceClient], do: Callable[[SmartDeviceClient], Awaitable[object]]
) -> None:
    """Call a function with each device, concurrently.

    Raises:
        DeviceError: It failed for some devices; the others are done.
    """
    failures: list[DeviceError] = []

    async def attempt(client: SmartDeviceClient) -> None:
        try:
            await do(client)
        except DeviceError as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(attempt, client)
    if failures:
        raise DeviceError("; ".join(error.message for error in failures), **failures[0].context)
