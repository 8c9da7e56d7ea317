"""The Smart Devices of a running robot, found by UID, name or type.

Names and catalog are the robot's own, so a command works in any directory.
"""

import contextlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec
import trio

from rt.buffer import BufferStore, DeviceBuffer
from rt.catalog import Catalog, Peripheral, unknown_parameter
from rt.catalog.device_names import RESTART_HINT, name_of, not_connected, resolve_uid
from rt.client.connection import Connection
from rt.client.option_flags import catalog_and_names
from rt.config.load import FILE_NAME
from rt.errors import (
    BufferBusyError,
    DeviceBufferError,
    DeviceError,
    InstanceAbsentError,
    RemoteCallError,
)
from rt.protocol.uid import DeviceUID
from rt.terminal.output import jsonable
from rt.textformat.value import shorten

ASK_TIMEOUT = 2.0
"""Time limit for calls that involve no device (s)."""
LOCK_TIMEOUT = 0.01
"""Time limit for a buffer's lock (s). A command's event loop may block for it."""
SERVICE = "device-service"

UID_HELP = (
    "UID is a UID, a name in dev_name of the running robot, or a type such as polar-bear, if one"
    " device of the type is connected."
)
"""The explanation of UID in the help of commands."""


class Device(NamedTuple):
    """A connected Smart Device.

    Attributes:
        uid: The UID.
        name: The name in dev_name, or the UID.
        buffer: The buffer of its values.
    """

    uid: int
    name: str
    buffer: DeviceBuffer

    @property
    def peripheral(self) -> Peripheral:
        """The type of the device in the catalog."""
        return self.buffer.peripheral

    def readable(self, params: Sequence[str]) -> list[str]:
        """Check names of parameters to read, and return them without duplicates.

        Args:
            params: Names of parameters; all readable ones if empty.

        Raises:
            DeviceError: A parameter does not exist or is not readable.
        """
        known = {param.name: param.readable for param in self.peripheral.params}
        for name in params:
            if name not in known:
                raise unknown_parameter(self.peripheral, name)
            if not known[name]:
                raise DeviceError(f"{self.name}.{name} is write-only", device=self.name, param=name)
        chosen = list(dict.fromkeys(params)) or [name for name in known if known[name]]
        if not chosen:
            raise DeviceError(f"{self.name} has no readable parameter", device=self.name)
        return chosen

    def values(self, params: Iterable[str]) -> dict[str, Any]:
        """Return a consistent snapshot of parameters; empty if another process holds the lock.

        Raises:
            DeviceError: The device disconnected.
        """
        try:
            values = self.buffer.snapshot()
        except BufferBusyError:
            return {}
        except DeviceBufferError:
            self.raise_disconnected()
        return {name: shorten(values[name]) for name in params}

    async def wait_for_values(self, params: Iterable[str]) -> dict[str, Any]:
        """Return `values`, waiting until no other process holds the lock."""
        names = list(params)
        while not (values := self.values(names)):  # noqa: ASYNC110 - locks signal no event
            await trio.sleep(LOCK_TIMEOUT)
        return values

    def raise_disconnected(self) -> NoReturn:
        """Raise the error of a disconnected device."""
        raise DeviceError(f"device {self.name} was disconnected", uid=str(self.uid))

    def row(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return values with their time and device, ready for JSON."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.buffer.last_update))
        return {
            "time": f"{stamp}.{int(self.buffer.last_update % 1 * 1000):03}Z",
            "uid": str(self.uid),
            "name": "" if self.name == str(self.uid) else self.name,
            "type": self.peripheral.name,
            "values": jsonable(values),
        }


class Devices:
    """The Smart Devices of a running robot.

    Args:
        robot: The connection.
        store: The buffers of the robot, with its catalog.
        names: Its UIDs by the names in dev_name.
    """

    def __init__(self, robot: Connection, store: BufferStore, names: dict[str, int]) -> None:
        self.names = names
        self.store = store
        self._robot = robot
        self._holder = robot.instance.holder()

    @classmethod
    async def of(cls, robot: Connection) -> "Devices":
        """Return the devices of a robot, with the robot's own names and catalog."""
        known, names = await robot_catalog(robot)
        store = robot.app.make_buffer_manager(known, lock_timeout=LOCK_TIMEOUT)
        return cls(robot, store, names)

    async def call(
        self,
        method: str,
        *args: Any,
        timeout: float = ASK_TIMEOUT,  # noqa: ASYNC109 - passed on
    ) -> Any:
        """Call a method of the device service; raises like `rt.remote.Client.issue_call`."""
        return await self._robot.client.issue_call(method, *args, address=SERVICE, timeout=timeout)

    def require(self) -> None:
        """Check that the same robot still runs. A restarted robot has other shared memory.

        Raises:
            InstanceAbsentError: The robot has ended.
        """
        holder = self._robot.instance.holder()
        if holder is None or holder != self._holder:
            raise InstanceAbsentError(f"robot {self._robot.instance.name!r} has ended")

    @property
    def is_outdated(self) -> bool:
        """Whether rt.toml changed after the start of the robot, which reads it only then."""
        return self._holder is not None and self._holder.options_changed_since_start(FILE_NAME)

    def resolve(self, text: str) -> int:
        """Return the UID for a number or a name.

        Raises:
            DeviceError: The text is neither. The error names the nearest name, and the remedy if
                rt.toml is newer than the robot.
        """
        types = [each.name for each in self.store.catalog.values() if each.device_id is not None]
        try:
            return resolve_uid(text, self.names, types)
        except DeviceError as error:
            if not self.is_outdated:
                raise
            raise DeviceError(f"{error.message} ({RESTART_HINT})", **error.context) from None

    def of_type(self, text: str, uids: Iterable[int]) -> list[int] | None:
        """Return the devices of a type.

        Args:
            text: The type.
            uids: The devices to choose from.

        Returns:
            The UIDs, or None if the text is not a type, or also a name in dev_name.

        Raises:
            DeviceError: No device is of the type.
        """
        peripheral = None if text in self.names else self.store.catalog.get(text)
        if peripheral is None or peripheral.device_id is None:
            return None
        found = [uid for uid in uids if DeviceUID.from_int(uid).device_id == peripheral.device_id]
        if not found:
            raise DeviceError(
                f"no device of type {text} is connected; `rt devices` lists the connected devices",
                uid=text,
            )
        return found

    async def find(self, texts: Sequence[str]) -> list[Device]:
        """Return the connected devices for UIDs, names or types; all of them if none is given.

        Raises:
            DeviceError: A name is unknown, or a device is not connected. The error names the
                nearest name, or the connected devices.
        """
        connected = [int(uid) for uid in await self.call("list_uids")]
        wanted = list(dict.fromkeys(self._resolve(text, connected) for text in texts))
        for uid in wanted:
            if uid not in connected:
                raise not_connected(uid, self.names, connected)
        if not connected:
            raise DeviceError("no device is connected; plug one in, or run `rt emulate-dev`")
        return [self._device(uid) for uid in wanted or connected]

    async def find_one(self, text: str) -> Device:
        """Return one connected device. Raises like `find`."""
        return (await self.find([text]))[0]

    def _resolve(self, text: str, connected: Sequence[int]) -> int:
        found = self.of_type(text, connected)
        if found is None:
            return self.resolve(text)
        if len(found) > 1:
            which = " or ".join(name_of(uid, self.names) for uid in found)
            raise DeviceError(
                f"{len(found)} devices of type {text} are connected; use {which}", uid=text
            )
        return found[0]

    def _device(self, uid: int) -> Device:
        try:
            buffer = self.store.get_or_open(uid, create=False)
        except KeyError as error:
            raise DeviceError(
                f"{name_of(uid, self.names)}: {error.args[0]}", uid=str(uid)
            ) from None
        return Device(uid, name_of(uid, self.names), buffer)


async def robot_catalog(robot: Connection) -> tuple[Catalog, dict[str, int]]:
    """Return the catalog and the names of the robot, or our own without its answer.

    Raises:
        CatalogError: The catalog is invalid.
    """
    config = robot.app.config
    with contextlib.suppress(RemoteCallError, KeyError, TypeError):
        options = await robot.client.issue_call(
            "get_option", address="broker-service", timeout=ASK_TIMEOUT
        )
        config = msgspec.structs.replace(
            config,
            dev_name=dict(options["dev_name"]),
            dev_catalog=_robot_path(robot, options["dev_catalog"]),
        )
    return catalog_and_names(config)


def _robot_path(robot: Connection, catalog: str) -> str:
    """Return a path that is relative to the robot's working directory as a path for us."""
    holder: Any = robot.instance.holder() if catalog else None
    return catalog if holder is None else str(Path(f"/proc/{holder.pid}/cwd") / catalog)
