"""A Smart Device of the running robot, as a verb needs it: found by what a person calls it, and known to be there.

Names and catalog are those that the robot itself goes by, so that they are right in any directory.
"""

import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import click
import msgspec
import trio

from rt.buffer import BufferStore, DeviceBuffer
from rt.catalog import Peripheral, unknown_parameter
from rt.catalog.names import absent_device, name_of, resolve_uid
from rt.catalog.notation_value import short_float
from rt.cli.link import Link
from rt.cli.outer import outer_gone
from rt.errors import BufferBusyError, DeviceBufferError, DeviceError, InstanceAbsentError, RemoteCallError

ASK_TIMEOUT = 2.0
"""How long a service may take to answer what needs no device (s)."""
LOCK_TIMEOUT = 0.01
"""How long a buffer's lock may be waited for (s); a verb's event loop has little else to do."""
SERVICE = "device-service"


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
                raise DeviceError(f"{self.name}.{name} cannot be read, only written", device=self.name, param=name)
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
            self.gone()
        return {name: short(values[name]) for name in params}

    async def values_soon(self, params: Iterable[str]) -> dict[str, Any]:
        """The same, as soon as no other process holds the lock."""
        names = list(params)
        while not (values := self.values(names)):  # noqa: ASYNC110 - a lock of another process rings no bell
            await trio.sleep(LOCK_TIMEOUT)
        return values

    def gone(self) -> NoReturn:
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
        robot: The way to it, whose configuration has the robot's own names and catalog (see `adopt`).
    """

    def __init__(self, robot: Link) -> None:
        self.names = robot.app.names
        self.store: BufferStore = robot.app.make_buffer_manager(lock_timeout=LOCK_TIMEOUT)
        self._robot = robot

    @classmethod
    async def of(cls, robot: Link) -> "Devices":
        """The devices of a robot, with its own names for them."""
        await adopt(robot)
        return cls(robot)

    async def call(self, method: str, *args: Any, timeout: float = ASK_TIMEOUT) -> Any:  # noqa: ASYNC109 - passed on
        """Call a method of the device service; raises like `rt.remote.Client.issue_call`."""
        return await self._robot.client.issue_call(method, *args, address=SERVICE, timeout=timeout)

    def require(self) -> None:
        """Make sure that the robot still runs.

        Raises:
            InstanceAbsentError: It has ended.
        """
        try:
            self._robot.instance.require()
        except InstanceAbsentError:
            raise InstanceAbsentError(f"the robot {self._robot.instance.name!r} has ended") from None

    async def find(self, texts: Sequence[str]) -> list[Device]:
        """The connected devices that a person means by UIDs or names; all if none is given.

        Raises:
            DeviceError: A name is unknown, with the nearest that is known, or a device is not connected, with those that are.
        """
        wanted = list(dict.fromkeys(resolve_uid(text, self.names) for text in texts))
        connected = [int(uid) for uid in await self.call("list_uids")]
        for uid in wanted:
            if uid not in connected:
                raise absent_device(uid, self.names, connected)
        if not connected:
            raise DeviceError("no device is connected: plug one in, or run rt emulate-dev")
        return [self._device(uid) for uid in wanted or connected]

    async def find_one(self, text: str) -> Device:
        """The connected device that a person means; raises like `find`."""
        return (await self.find([text]))[0]

    def _device(self, uid: int) -> Device:
        try:
            buffer = self.store.get_or_open(uid, create=False)
        except KeyError as error:
            raise DeviceError(f"{name_of(uid, self.names)}: {error.args[0]}", uid=str(uid)) from None
        return Device(uid, name_of(uid, self.names), buffer)


async def adopt(robot: Link) -> None:
    """Go by the names and the catalog that the robot itself goes by; by one's own if it does not tell them."""
    with contextlib.suppress(RemoteCallError, KeyError, TypeError):
        options = await robot.client.issue_call("get_option", address="broker-service", timeout=ASK_TIMEOUT)
        changes = {"dev_name": dict(options["dev_name"]), "dev_catalog": _from_there(robot, options["dev_catalog"])}
        robot.app.config = msgspec.structs.replace(robot.app.config, **changes)


def _from_there(robot: Link, catalog: str) -> str:
    """A path as the robot means it: a relative one from the robot's working directory."""
    holder: Any = robot.instance.holder() if catalog else None
    return catalog if holder is None else str(Path(f"/proc/{holder.pid}/cwd") / catalog)


async def run_until_signal(function: Callable[[], Awaitable[None]]) -> None:
    """Run a function until it returns or a signal asks for the end; then it is cancelled, and further signals change nothing.

    The signals are those of Ctrl-C, of a stop, and of a terminal that is closed, unless somebody had them ignored; that the
    outer process of an executable was killed is the same as a signal. For the end
    of a command: after such a signal the others stay without effect, since an executable that unpacks itself gets each twice.
    """
    wanted = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    heeded = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _ignore) for number in heeded}
    stopped = False
    try:
        with trio.open_signal_receiver(*heeded) as received:
            async with trio.open_nursery() as nursery:

                async def listen() -> None:
                    nonlocal stopped
                    async for _ in received:
                        stopped = True
                        nursery.cancel_scope.cancel()

                async def end_with_outer() -> None:
                    await outer_gone()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(listen)
                nursery.start_soon(end_with_outer)
                await function()
                nursery.cancel_scope.cancel()
    finally:
        if not stopped:
            for number, handler in before.items():
                signal.signal(number, handler)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Be a handler that does nothing: other than with SIG_IGN, processes that are started do not inherit it."""


class Output:
    """Lines on stdout that do not keep the event loop waiting for whoever reads them."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def line(self, text: str) -> None:
        """Print a line as soon as it is taken; a cancel before that prints nothing.

        Raises:
            BrokenPipeError: Nobody reads any more.
        """
        async with self._lock:
            # What cannot be waited for, as a file, takes it at once; and there is none if it was closed from the start.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                await trio.lowlevel.wait_writable(sys.stdout.fileno())
            click.echo(text)


def short(value: Any) -> Any:
    """A value with no more decimals than a device's number of 4 bytes has."""
    return short_float(value) if isinstance(value, float) else value


def jsonable(values: dict[str, Any]) -> dict[str, Any]:
    """Values as JSON can have them: what is no number becomes null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def as_text(value: Any) -> str:
    """A value as a shell's tools read it: true, false or a number."""
    return str(value) if isinstance(value, float) else json.dumps(value)
