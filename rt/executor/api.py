"""What the team's code finds without importing it: ``Robot``, ``Gamepad``, ``Actions``, ``Field``, ``Alliance``.

Reading and writing never wait for a device: they work on shared memory. A device that is not there
reads as zeros and takes no writes; that is said once, not at each call.
"""

import enum
import functools
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, NoReturn

import trio

from rt import log
from rt.buffer import Buffer, BufferStore
from rt.catalog import Parameter
from rt.catalog.names import OUTDATED, resolve_uid
from rt.errors import BufferBusyError, DeviceBufferError, DeviceError, ExecutionError
from rt.executor.actions import Action, AsyncExecutor
from rt.executor.commands import Mode
from rt.executor.fork import is_forked

GAMEPAD_TIMEOUT = 0.5
"""Age (s) at which what a gamepad said last is no longer believed."""
_HUGE = 1 << 70


class Alliance(enum.IntEnum):
    """The side that the robot plays for."""

    UNKNOWN = 0
    BLUE = 1
    GOLD = 2


class RunState:
    """The run of a mode, as rt knows it and team code reads it.

    Attributes:
        mode: What the robot is doing.
        alliance: The side that the robot plays for.
        gamepads: Whether gamepads can be read.
    """

    def __init__(self) -> None:
        self.mode = Mode.IDLE
        self.alliance = Alliance.UNKNOWN
        self.gamepads = False
        self._start = monotonic()

    def begin(self, mode: Mode, *, gamepads: bool) -> None:
        """Start the clock of a mode."""
        self.mode = mode
        self.gamepads = gamepads
        self._start = monotonic()

    def clock(self) -> float:
        """Seconds since the mode began."""
        return monotonic() - self._start


class Robot:
    """The robot's Smart Devices.

    Args:
        store: The buffers.
        names: UIDs by the names that the team gave them (option ``dev_name``).
        is_outdated: Says whether rt.toml was changed after the robot started; asked once, when a
            name is unknown.
    """

    def __init__(
        self,
        store: BufferStore,
        names: Mapping[str, int],
        is_outdated: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_outdated = functools.cache(is_outdated)
        self._store = store
        self._names = names
        self._absent: set[int] = set()
        self._clamped: set[tuple[int, str]] = set()
        self._log = log.get_logger()

    def get(self, device: str | int, param: str) -> Any:
        """The newest value of a device's parameter; its default (0 or False) while the device is not connected.

        Args:
            device: A name of the option ``dev_name``, or a UID.
            param: The parameter's name in the catalog.

        Raises:
            DeviceError: There is no such device name or type.
            DeviceBufferError: There is no such parameter or it cannot be read.
            ExecutionError: This process is one that the team's code forked.
        """
        if is_forked():
            raise _of_fork("read devices")
        uid = self._uid(device)
        buffer = self._connected(uid, device)
        if buffer is not None:
            try:
                return buffer.get(param)
            except BufferBusyError:
                raise
            except DeviceBufferError:
                if buffer.valid:
                    raise
                self._miss(uid, device)  # it has left just now
        descriptor = self._store.catalog.of_uid(uid).param(param)
        if not descriptor.readable:
            raise DeviceBufferError(
                f"{device}.{param} is not readable", device=str(device), param=param
            )
        return descriptor.initial

    def write(self, device: str | int, param: str, value: Any) -> None:
        """Write a device's parameter; a number beyond its limits is clamped. Nothing happens while it is not connected.

        Raises:
            DeviceError: There is no such device name or type.
            DeviceBufferError: There is no such parameter or it cannot be written.
            TypeError: The value is of the wrong kind.
            ValueError: The value is NaN.
            ExecutionError: This process is one that the team's code forked.
        """
        if is_forked():
            raise _of_fork("move devices")
        uid = self._uid(device)
        buffer = self._connected(uid, device)
        if buffer is not None:
            try:
                buffer.write(param, value)
            except BufferBusyError:
                raise
            except DeviceBufferError:
                if buffer.valid:
                    raise
                self._miss(uid, device)  # it has left just now
            else:
                descriptor = buffer.params[param]
                if descriptor.is_simple and (
                    not descriptor.lower <= value <= descriptor.upper
                    or (not descriptor.is_real and descriptor.checked(value) != value)
                ):
                    self._say_clamped(uid, device, descriptor, value)
                return
        descriptor = self._store.catalog.of_uid(uid).param(param)
        if not descriptor.writeable:
            raise DeviceBufferError(
                f"{device}.{param} is not writeable", device=str(device), param=param
            )
        descriptor.checked(value)

    def _uid(self, device: str | int) -> int:
        if isinstance(device, int):
            return device
        try:
            return resolve_uid(device, self._names)
        except DeviceError as error:
            if not self._is_outdated():
                raise
            raise DeviceError(f"{error.message} ({OUTDATED})", **error.context) from None

    def _connected(self, uid: int, device: str | int) -> Buffer | None:
        try:
            buffer = self._store.get_or_open(uid, create=False)
        except KeyError as error:
            raise DeviceError(f"{device}: {error.args[0]}", device=str(device)) from None
        except DeviceBufferError as error:
            # A buffer that is there and cannot be used is no device that is missing.
            self._miss(uid, device, "" if error.context.get("absent") else error.message)
            return None
        if not buffer.valid:
            self._miss(uid, device)
            return None
        if uid in self._absent:
            self._absent.discard(uid)
            self._log.info("the device is back", device=str(device))
        return buffer

    def _say_clamped(self, uid: int, device: str | int, descriptor: Parameter, value: Any) -> None:
        if (uid, descriptor.name) in self._clamped:
            return
        self._clamped.add((uid, descriptor.name))
        written, least, most = (
            _short(descriptor.checked(number)) for number in (value, -_HUGE, _HUGE)
        )
        sentence = f"{descriptor.name} goes from {least} to {most}: {_short(value)} was written as {written}"
        self._log.warning(sentence, device=str(device))

    def _miss(self, uid: int, device: str | int, reason: str = "") -> None:
        if uid not in self._absent:
            self._absent.add(uid)
            why = {"reason": reason} if reason else {}
            self._log.warning(
                "the device is not connected: it reads as zeros, and writes to it are lost",
                device=str(device),
                uid=str(uid),
                **why,
            )


class Gamepad:
    """The drivers' gamepads; neutral in autonomous, and when the driver's station is silent."""

    def __init__(self, store: BufferStore, state: RunState) -> None:
        self._store = store
        self._state = state
        self._peripheral = store.catalog["gamepad"]

    @property
    def enabled(self) -> bool:
        """Whether gamepads are read in this mode."""
        return self._state.gamepads

    def get(self, param: str, gamepad: int = 0) -> Any:
        """The newest position of a joystick axis (-1.0 to 1.0), or whether a button is pressed.

        Args:
            param: A name of the catalog, e.g. ``joystick_left_y`` or ``button_a``.
            gamepad: The gamepad's index, from 0.

        Raises:
            DeviceError: There is no such axis or button.
            ExecutionError: This process is one that the team's code forked.
        """
        if is_forked():
            raise _of_fork("read gamepads")
        descriptor = self._peripheral.param(param)
        if self._state.gamepads:
            try:
                buffer = self._store.get_or_open(("gamepad", gamepad), create=False)
            except DeviceBufferError:
                return descriptor.default
            if buffer.valid and buffer.age <= GAMEPAD_TIMEOUT:
                try:
                    return buffer.get(param)
                except BufferBusyError:
                    raise
                except DeviceBufferError:
                    if buffer.valid:
                        raise
        return descriptor.default


class Field:
    """What the field says, and the time; nothing here can be set."""

    def __init__(self, state: RunState) -> None:
        self._state = state

    @property
    def mode(self) -> Mode:
        """What the robot is doing."""
        return self._state.mode

    @property
    def alliance(self) -> Alliance:
        """The side that the robot plays for."""
        return self._state.alliance

    def clock(self) -> float:
        """Seconds since the mode began."""
        return self._state.clock()


class Actions:
    """The team's actions: coroutine functions that run beside main."""

    def __init__(self, executor: AsyncExecutor) -> None:
        self._executor = executor

    def run(self, action: Action, *args: Any) -> None:
        """Start an action with arguments; nothing happens if it is running.

        Raises:
            ExecutionError: It is not an ``async def`` function, too many are running, or this
                process is one that the team's code forked.
        """
        if is_forked():
            raise _of_fork("run actions")
        self._executor.start(action, *args)

    def is_running(self, action: Action) -> bool:
        """Whether an action is running."""
        return self._executor.is_running(action)

    async def sleep(self, seconds: float) -> None:
        """Let an action wait; to be awaited."""
        await trio.sleep(seconds)


def _of_fork(what: str) -> ExecutionError:
    return ExecutionError(f"a process that the team's code forked cannot {what}")


def refuse_input(_prompt: object = "", /) -> NoReturn:
    """The team's ``input``: nobody could answer.

    Raises:
        ExecutionError: Always.
    """
    raise ExecutionError("input() cannot be used: a robot's program has no keyboard, use Gamepad")


def _short(number: Any) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)
