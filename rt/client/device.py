"""A Smart Device of the running robot, as a verb needs it: found by what a person calls it, and known to be there.

Names and catalog are those that the robot itself goes by, so that they are right in any directory.
"""

import contextlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec
import trio

from rt.buffer import BufferStore, DeviceBuffer
from rt.catalog import Peripheral, unknown_parameter
from rt.catalog.names import RESTART_HINT, name_of, not_connected, resolve_uid
from rt.client.connection import Connection
from rt.config.load import FILE_NAME
from rt.errors import (
    BufferBusyError,
    DeviceBufferError,
    DeviceError,
    InstanceAbsentError,
    RemoteCallError,
)
from rt.protocol.uid import DeviceUID
from rt.terminal.output import jsonable, short

ASK_TIMEOUT = 2.0
"""How long a service may take to answer what needs no device (s)."""
LOCK_TIMEOUT = 0.01
"""How long a buffer's lock may be waited for (s); a verb's event loop has little else to do."""
SERVICE = "device-service"

UID_HELP = """UID is a UID, a name that dev_name of the running robot gives it, or a type, as polar-bear, if one device of it is connected."""
"""What a verb's help says of the devices that it takes."""


class Device(NamedTuple):
    """A Smart Device that is connected.

    Attributes:
        uid: Its UID.
        name: What a person calls it: the team's name, or else the UID.
        buffer: Its values.
    """

    uid: int
    name: str
    buffer: DeviceBuffer

    @property
    def peripheral(self) -> Peripheral:
        """What kind of device it is."""
        return self.buffer.peripheral

    def readable(self, params: Sequence[str]) -> list[str]:
        """Check names of parameters that are to be read; all readable ones if none is given.

        Raises:
            DeviceError: One does not exist, with the nearest, or cannot be read.
        """
        known = {param.name: param.readable for param in self.peripheral.params}
        for name in params:
            if name not in known:
                raise unknown_parameter(self.peripheral, name)
            if not known[name]:
                raise DeviceError(
                    f"{self.name}.{name} cannot be read, only written", device=self.name, param=name
                )
        chosen = list(dict.fromkeys(params)) or [name for name in known if known[name]]
        if not chosen:
            raise DeviceError(f"{self.name} has no parameter that can be read", device=self.name)
        return chosen

    def values(self, params: Iterable[str]) -> dict[str, Any]:
        """The newest values of parameters, all of one moment; nothing while another process holds the lock.

        Raises:
            DeviceError: The device is not connected any more.
        """
        try:
            values = self.buffer.snapshot()
        except BufferBusyError:
            return {}
        except DeviceBufferError:
            self.raise_disconnected()
        return {name: short(values[name]) for name in params}

    async def wait_for_values(self, params: Iterable[str]) -> dict[str, Any]:
        """The same, as soon as no other process holds the lock."""
        names = list(params)
        while not (values := self.values(names)):  # noqa: ASYNC110 - a lock of another process rings no bell
            await trio.sleep(LOCK_TIMEOUT)
        return values

    def raise_disconnected(self) -> NoReturn:
        """Raise the error of a device that has left."""
        raise DeviceError(f"the device {self.name} was disconnected", uid=str(self.uid))

    def row(self, values: dict[str, Any]) -> dict[str, Any]:
        """What is told of values as JSON."""
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
        robot: The way to it, whose configuration has the robot's own names and catalog (see
            `use_robot_options`).
    """

    def __init__(self, robot: Connection) -> None:
        self.names = robot.app.names
        self.store: BufferStore = robot.app.make_buffer_manager(lock_timeout=LOCK_TIMEOUT)
        self._robot = robot
        self._holder = robot.instance.holder()

    @classmethod
    async def of(cls, robot: Connection) -> "Devices":
        """The devices of a robot, with its own names for them."""
        await use_robot_options(robot)
        return cls(robot)

    async def call(self, method: str, *args: Any, timeout: float = ASK_TIMEOUT) -> Any:  # noqa: ASYNC109 - passed on
        """Call a method of the device service; raises like `rt.remote.Client.issue_call`."""
        return await self._robot.client.issue_call(method, *args, address=SERVICE, timeout=timeout)

    def require(self) -> None:
        """Make sure that the robot still runs, and that it is the same: another one has shared memory of its own.

        Raises:
            InstanceAbsentError: It has ended.
        """
        holder = self._robot.instance.holder()
        if holder is None or holder != self._holder:
            raise InstanceAbsentError(f"the robot {self._robot.instance.name!r} has ended")

    @property
    def is_outdated(self) -> bool:
        """Whether rt.toml was changed after the robot started, which reads it at its start only."""
        return self._holder is not None and self._holder.options_changed_since_start(FILE_NAME)

    def resolve(self, text: str) -> int:
        """The UID that a number or a name stands for.

        Raises:
            DeviceError: It is neither, with the nearest, and with the remedy if rt.toml is newer
                than the robot.
        """
        kinds = [kind.name for kind in self.store.catalog.values() if kind.device_id is not None]
        try:
            return resolve_uid(text, self.names, kinds)
        except DeviceError as error:
            if not self.is_outdated:
                raise
            raise DeviceError(f"{error.message} ({RESTART_HINT})", **error.context) from None

    def of_type(self, text: str, uids: Iterable[int]) -> list[int] | None:
        """Those of some devices that are of a type; None if the text is no type, or a name that the team gave.

        Raises:
            DeviceError: There is none.
        """
        kind = None if text in self.names else self.store.catalog.get(text)
        if kind is None or kind.device_id is None:
            return None
        alike = [uid for uid in uids if DeviceUID.from_int(uid).device_id == kind.device_id]
        if not alike:
            raise DeviceError(
                f"no device of type {text} is connected; `rt devices` shows those that are",
                uid=text,
            )
        return alike

    async def find(self, texts: Sequence[str]) -> list[Device]:
        """The connected devices that a person means by UIDs, names or types; all if none is given.

        Raises:
            DeviceError: A name is unknown, with the nearest that is known, or a device is not
                connected, with those that are.
        """
        connected = [int(uid) for uid in await self.call("list_uids")]
        wanted = list(dict.fromkeys(self._resolve(text, connected) for text in texts))
        for uid in wanted:
            if uid not in connected:
                raise not_connected(uid, self.names, connected)
        if not connected:
            raise DeviceError("no device is connected: plug one in, or run rt emulate-dev")
        return [self._device(uid) for uid in wanted or connected]

    async def find_one(self, text: str) -> Device:
        """The connected device that a person means; raises like `find`."""
        return (await self.find([text]))[0]

    def _resolve(self, text: str, connected: Sequence[int]) -> int:
        alike = self.of_type(text, connected)
        if alike is None:
            return self.resolve(text)
        if len(alike) > 1:
            which = " or ".join(name_of(uid, self.names) for uid in alike)
            raise DeviceError(
                f"{len(alike)} devices of type {text} are connected: name one, {which}", uid=text
            )
        return alike[0]

    def _device(self, uid: int) -> Device:
        try:
            buffer = self.store.get_or_open(uid, create=False)
        except KeyError as error:
            raise DeviceError(
                f"{name_of(uid, self.names)}: {error.args[0]}", uid=str(uid)
            ) from None
        return Device(uid, name_of(uid, self.names), buffer)


async def use_robot_options(robot: Connection) -> None:
    """Go by the names and the catalog that the robot itself goes by; by one's own if it does not tell them."""
    with contextlib.suppress(RemoteCallError, KeyError, TypeError):
        options = await robot.client.issue_call(
            "get_option", address="broker-service", timeout=ASK_TIMEOUT
        )
        changes = {
            "dev_name": dict(options["dev_name"]),
            "dev_catalog": _robot_path(robot, options["dev_catalog"]),
        }
        robot.app.config = msgspec.structs.replace(robot.app.config, **changes)


def _robot_path(robot: Connection, catalog: str) -> str:
    """A path as the robot means it: a relative one from the robot's working directory."""
    holder: Any = robot.instance.holder() if catalog else None
    return catalog if holder is None else str(Path(f"/proc/{holder.pid}/cwd") / catalog)
