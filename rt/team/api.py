"""The names that team code finds without importing them, as protocols with full signatures.

`rt.executor.api` implements the protocols. `rt.lint.api` derives from them what the linter checks.

Invariant: this module imports nothing but the standard library, because both processes import it
when they start.
"""

import enum
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

Action = Callable[..., Awaitable[None]]
"""A coroutine function (`async def`) of team code."""


class Mode(enum.IntEnum):
    """What the robot is doing."""

    IDLE = 0
    AUTO = 1
    TELEOP = 2


class Alliance(enum.IntEnum):
    """The side that the robot plays for."""

    UNKNOWN = 0
    BLUE = 1
    GOLD = 2


class Robot(Protocol):
    """The robot's Smart Devices. No method waits for a device.

    A device is named by a name of the option ``dev_name`` or by its UID, as a number or as decimal
    text.
    """

    def get(self, device: str | int, param: str) -> Any:
        """Return the newest value of a parameter; its default (0 or False) while disconnected.

        Args:
            device: The device.
            param: The parameter's name in the catalog, such as ``enc_pos``.

        Raises:
            DeviceError: No such device name, type or parameter.
            DeviceBufferError: The parameter is not readable.
            ExecutionError: Team code forked this process.
        """

    def write(self, device: str | int, param: str, value: Any) -> None:
        """Set a parameter, until the next write or the end of the mode.

        A number beyond the parameter's limits is clamped. A write to a disconnected device has no
        effect.

        Args:
            device: The device.
            param: The parameter's name in the catalog, such as ``duty_cycle``.
            value: A number or a bool, as the parameter's type demands.

        Raises:
            DeviceError: No such device name, type or parameter.
            DeviceBufferError: The parameter is not writeable.
            TypeError: The value has the wrong type.
            ValueError: The value is NaN.
            ExecutionError: Team code forked this process.
        """


class Gamepad(Protocol):
    """The drivers' gamepads; all neutral in autonomous and while the driver's station is silent."""

    @property
    def enabled(self) -> bool:
        """Whether this mode reads gamepads."""

    def get(self, param: str, gamepad: int = 0) -> Any:
        """Return the position of a joystick axis (-1.0 to 1.0), or whether a button is pressed.

        Args:
            param: A name of the catalog, such as ``joystick_left_y`` or ``button_a``.
            gamepad: The gamepad's index, from 0.

        Raises:
            DeviceError: No such axis or button.
            ExecutionError: Team code forked this process.
        """


class Actions(Protocol):
    """Coroutine functions of team code that run concurrently with main."""

    def run(self, action: Action, *args: Any) -> None:
        """Start an action with arguments; has no effect while that action is running.

        Raises:
            ExecutionError: It is not an ``async def`` function, too many actions are running, or
                team code forked this process.
        """

    def is_running(self, action: Action) -> bool:
        """Return whether an action was started and has not ended."""

    async def sleep(self, seconds: float) -> None:
        """Pause the calling action for a time in s."""


class Field(Protocol):
    """The state of the match; read-only."""

    @property
    def mode(self) -> Mode:
        """What the robot is doing."""

    @property
    def alliance(self) -> Alliance:
        """The side that the robot plays for."""

    def clock(self) -> float:
        """Return the time since the mode began, in s."""


NAMES: Mapping[str, type] = MappingProxyType(
    {"Robot": Robot, "Gamepad": Gamepad, "Actions": Actions, "Field": Field, "Alliance": Alliance}
)
"""The protocols, and the enumeration, by the names that team code uses."""
