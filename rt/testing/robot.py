"""A running robot as a test sees it: calls, gamepads, devices and the log."""

from typing import Any

import trio

from rt import log
from rt.catalog import Peripheral
from rt.client import methods
from rt.client.connection import Connection
from rt.errors import ProcessStateError
from rt.process.command import CommandProcess
from rt.protocol.datagrams import GamepadState, encode_gamepads
from rt.testing import gamepads
from rt.testing.device import Device
from rt.testing.log import RobotLog

_READY = "robot ready"
_START_TIMEOUT = 30.0


class Robot(RobotLog):
    """A running robot with emulated devices, as the fixture `start_robot` returns it.

    Attributes:
        devices: The devices by the names that `start_robot` was given.
        log: The log events, oldest first; what team code prints is an event with that text.
        timeout: The time limit of each call, and of everything that a test waits for (s).
        connection: The connection to the robot, as `rt.connect` makes one.
        gamepads: What the driver sends, by index.
    """

    connection: Connection

    def __init__(self, gamepad: Peripheral, timeout: float) -> None:
        super().__init__(timeout)
        self.devices: dict[str, Device] = {}
        self.gamepads: dict[int, GamepadState] = {}
        self._gamepad = gamepad
        self._services: dict[str, str] = {}
        self._others: list[str] = []
        self._render = log.pretty(colors=False)

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the robot, such as ``auto``, ``teleop`` or ``idle``, as `rt call` does.

        ``auto`` and ``teleop`` return when the mode has begun. A cancel withdraws the call.

        Raises:
            RemoteCallError: The robot has no such method, the call failed, or it was not answered
                within `timeout`.
        """
        if method not in self._services:
            services = await self.connection.describe()
            self._services[method] = methods.find(services, method, None)
        return await self.connection.client.issue_call(
            method, *arguments, address=self._services[method], timeout=self.timeout
        )

    async def idle(self) -> None:
        """End the mode and stop all devices; raises like `call`."""
        await self.call("idle")

    def set_gamepad(self, index: int = 0, /, **values: float | bool) -> None:
        """Set the sticks and buttons of a gamepad, which the driver sends from now on.

        What is not given is at rest. At first, and whenever the robot requires it, the driver
        releases everything for 0.1 s.

        Args:
            index: 0 to 3.
            values: By the names that ``Gamepad.get`` has in team code, such as
                ``joystick_left_y=0.5`` (-1 to 1) or ``button_a=True``.

        Raises:
            DeviceError: There is no such stick or button.
            LocalProtocolError: The index or a value is out of range.
        """
        state = gamepads.state_of(self._gamepad, values)
        encode_gamepads({index: state})
        self.gamepads[index] = state

    def unplug_gamepads(self) -> None:
        """Stop sending gamepads, as when the connection to the driver is lost."""
        self.gamepads.clear()

    def take_line(self, _name: str, _stream: str, line: str) -> None:
        """Add a line of output, and print it: pytest shows what is printed if the test fails."""
        event = self.add_line(line)
        if event is None:
            self._others.append(line)
        print(line if event is None else self._render(dict(event)))  # noqa: T201 - as above

    async def attend(self, process: CommandProcess) -> None:
        """Read the output of the robot's process until it exits."""
        await process.wait()
        self._notify()

    async def wait_ready(self, process: CommandProcess) -> None:
        """Wait until the robot is ready.

        Raises:
            ProcessStateError: It has exited, or is not ready within 30 s.
        """
        with trio.move_on_after(_START_TIMEOUT):
            while process.returncode is None and not self.count_logged(_READY):
                await self._changed.wait()
        if not self.count_logged(_READY):
            status = "" if process.returncode is None else f" (exit status {process.returncode})"
            raise ProcessStateError("\n".join([f"the robot did not start{status}", *self._others]))
