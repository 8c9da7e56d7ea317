"""An emulated Smart Device as a test sees it: what it was told, and what its sensors report."""

import math
from collections.abc import Callable
from typing import Any

import trio

from rt.emulator.lines import EmulatedDevice, connect_emulated
from rt.protocol.message import DevWrite, Message
from rt.testing.log import RobotLog

_TOLERANCE = 1e-6
_INTERVAL = 0.01


class Device:
    """An emulated Smart Device of a `Robot`.

    Attributes:
        name: Its name in the test.
        uid: Its UID.
        received: The values of each write that it received, by parameter, oldest first.
    """

    def __init__(
        self, name: str, emulated: EmulatedDevice, log: RobotLog, port: int, nursery: trio.Nursery
    ) -> None:
        self.name = name
        self.uid = emulated.uid
        self.received: list[dict[str, Any]] = []
        self._emulated = emulated
        self._log = log
        self._port = port
        self._nursery = nursery
        self._line: trio.CancelScope | None = None
        emulated.on_message = self._receive

    def _receive(self, message: Message) -> None:
        if isinstance(message, DevWrite):
            self.received.append(self._emulated.peripheral.unpack(message.params, message.data))

    @property
    def is_disabled(self) -> bool:
        """Whether the robot has disabled it and has not written to it since."""
        return self._emulated.disabled

    def get(self, param: str) -> Any:
        """Return the current value of a parameter: the last one written, or that of the sensor.

        What moves something, such as ``duty_cycle``, is 0 while the device is disabled.

        Raises:
            DeviceError: The device has no such parameter.
        """
        return self._emulated.values[self._emulated.peripheral.param(param).name]

    def set(self, param: str, value: Any) -> None:
        """Set what a sensor reports from now on.

        Other sensors are simulated: an encoder follows its motor, for example. The robot receives
        the value with the next report of the device, usually within 40 ms.

        Raises:
            DeviceError: The device has no such parameter, or the value does not fit its type.
        """
        self._emulated.set(param, value)

    async def wait_for(self, param: str, expected: Any) -> Any:
        """Wait until a parameter has a value, and return the value.

        A value that lasts for less than 10 ms can be missed; `received` has every write.

        Args:
            param: Its name.
            expected: The value, with a tolerance of 1e-6 for numbers, or a function that returns
                whether a value is the expected one.

        Raises:
            AssertionError: It had no such value within the time limit of the robot.
            DeviceError: The device has no such parameter.
        """
        with trio.move_on_after(self._log.timeout):
            while not _matches(self.get(param), expected):  # noqa: ASYNC110 - sensors change by time
                await trio.sleep(_INTERVAL)
            return self.get(param)
        raise AssertionError(
            f"{self.name}.{param} is {self.get(param)!r}, expected {_described(expected)}"
            f" within {self._log.timeout:g} s"
        )

    async def plug(self) -> None:
        """Plug the device in, and wait until the robot has connected it; idempotent.

        Raises:
            AssertionError: The robot has not connected it within the time limit of the robot.
        """
        if self._line is None:
            self._line = trio.CancelScope()
            self._nursery.start_soon(self._run, self._line)
            await self._logged("device connected")

    async def unplug(self) -> None:
        """Unplug the device, and wait until the robot has noticed that; idempotent.

        Raises:
            AssertionError: The robot has not noticed it within the time limit of the robot.
        """
        if self._line is not None:
            self._line.cancel("the device is unplugged")
            self._line = None
            await self._logged("device disconnected")

    async def _run(self, line: trio.CancelScope) -> None:
        with line:
            await connect_emulated(self._emulated, "127.0.0.1", self._port)

    async def _logged(self, event: str) -> None:
        uid = str(self.uid)
        await self._log.logged(event, self._log.count_logged(event, uid=uid) + 1, uid=uid)


def _matches(value: Any, expected: Any) -> bool:
    if callable(expected):
        return bool(expected(value))
    if isinstance(value, float) and isinstance(expected, int | float):
        return math.isclose(value, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(value == expected)


def _described(expected: Callable[[Any], bool] | Any) -> str:
    if not callable(expected):
        return repr(expected)
    return f"a value for which {getattr(expected, '__name__', expected)} is true"
