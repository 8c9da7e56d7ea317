"""The implementations of the names that team code finds: `Robot`, `Gamepad`, `Actions`, `Field`.

Invariant: reads and writes use shared memory and never wait for a device. A disconnected device
reads as its defaults and ignores writes; this is logged once each time it disconnects.
"""

import functools
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, NoReturn

import trio

from rt import log
from rt.buffer import Buffer, BufferStore
from rt.catalog import Parameter
from rt.catalog.device_names import RESTART_HINT, resolve_uid
from rt.errors import BufferBusyError, DeviceBufferError, DeviceError, ExecutionError
from rt.executor.actions import AsyncExecutor
from rt.executor.fork import refuse_fork
from rt.protocol.datagrams import SILENCE
from rt.team import api
from rt.team.api import Action, Alliance, Mode

_HUGE = 1 << 70


class RunState:
    """The state of the current mode.

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
        """Return the time since the mode began, in s."""
        return monotonic() - self._start


class Robot(api.Robot):
    """The robot's Smart Devices.

    Args:
        store: The buffers.
        names: UIDs by device name (option ``dev_name``).
        is_outdated: Returns whether rt.toml changed after the robot started; called at most once,
            when a name is unknown.
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
        self._disconnected: set[int] = set()
        self._clamped: set[tuple[int, str]] = set()
        self._log = log.get_logger()

    def get(self, device: str | int, param: str) -> Any:
        """Return the newest value of a parameter; see `rt.team.api.Robot.get`."""
        refuse_fork("read devices")
        uid = self._uid(device)
        buffer = self._connected(uid, device)
        if buffer is not None:
            try:
                return buffer.get(param)
            except DeviceBufferError as error:
                if buffer.valid or isinstance(error, BufferBusyError):
                    raise
                self._warn_disconnected(uid, device)
        descriptor = self._store.catalog.of_uid(uid).param(param)
        if not descriptor.readable:
            raise DeviceBufferError(
                f"{device}.{param} is not readable", device=str(device), param=param
            )
        return descriptor.initial

    def write(self, device: str | int, param: str, value: Any) -> None:
        """Set a parameter; see `rt.team.api.Robot.write`."""
        refuse_fork("move devices")
        uid = self._uid(device)
        buffer = self._connected(uid, device)
        if buffer is not None:
            try:
                buffer.write(param, value)
            except DeviceBufferError as error:
                if buffer.valid or isinstance(error, BufferBusyError):
                    raise
                self._warn_disconnected(uid, device)
            else:
                descriptor = buffer.params[param]
                if descriptor.is_simple and (
                    not descriptor.lower <= value <= descriptor.upper
                    or (not descriptor.is_real and descriptor.checked(value) != value)
                ):
                    self._warn_clamped(uid, device, descriptor, value)
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
            raise DeviceError(f"{error.message} ({RESTART_HINT})", **error.context) from None

    def _connected(self, uid: int, device: str | int) -> Buffer | None:
        """Return the buffer of a connected device, or None."""
        try:
            buffer = self._store.get_or_open(uid, create=False)
        except KeyError as error:
            raise DeviceError(f"{device}: {error.args[0]}", device=str(device)) from None
        except DeviceBufferError as error:
            # A buffer that exists and cannot be used is not the same as a missing device.
            self._warn_disconnected(
                uid, device, "" if error.context.get("absent") else error.message
            )
            return None
        if not buffer.valid:
            self._warn_disconnected(uid, device)
            return None
        if uid in self._disconnected:
            self._disconnected.discard(uid)
            self._log.info("device connected", device=str(device))
        return buffer

    def _warn_clamped(self, uid: int, device: str | int, descriptor: Parameter, value: Any) -> None:
        if (uid, descriptor.name) in self._clamped:
            return
        self._clamped.add((uid, descriptor.name))
        written, least, most = (
            _short(descriptor.checked(number)) for number in (value, -_HUGE, _HUGE)
        )
        self._log.warning(
            f"{descriptor.name} ranges from {least} to {most}: wrote {written} for {_short(value)}",
            device=str(device),
        )

    def _warn_disconnected(self, uid: int, device: str | int, reason: str = "") -> None:
        if uid not in self._disconnected:
            self._disconnected.add(uid)
            context = {"reason": reason} if reason else {}
            self._log.warning(
                "device not connected: it reads as zeros and ignores writes",
                device=str(device),
                uid=str(uid),
                **context,
            )


class Gamepad(api.Gamepad):
    """The drivers' gamepads.

    Args:
        store: The buffers.
        state: The state of the mode.
    """

    def __init__(self, store: BufferStore, state: RunState) -> None:
        self._store = store
        self._state = state
        self._peripheral = store.catalog["gamepad"]

    @property
    def enabled(self) -> bool:
        """Whether this mode reads gamepads."""
        return self._state.gamepads

    def get(self, param: str, gamepad: int = 0) -> Any:
        """Return the state of an axis or button; see `rt.team.api.Gamepad.get`."""
        refuse_fork("read gamepads")
        descriptor = self._peripheral.param(param)
        if self._state.gamepads:
            try:
                buffer = self._store.get_or_open(("gamepad", gamepad), create=False)
            except DeviceBufferError:
                return descriptor.default
            if buffer.valid and buffer.age <= SILENCE:
                try:
                    return buffer.get(param)
                except DeviceBufferError as error:
                    if buffer.valid or isinstance(error, BufferBusyError):
                        raise
        return descriptor.default


class Field(api.Field):
    """The state of the match.

    Args:
        state: The state of the mode.
    """

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
        """Return the time since the mode began, in s."""
        return self._state.clock()


class Actions(api.Actions):
    """Actions of team code.

    Args:
        executor: Runs the actions on the event loop.
    """

    def __init__(self, executor: AsyncExecutor) -> None:
        self._executor = executor

    def run(self, action: Action, *args: Any) -> None:
        """Start an action; see `rt.team.api.Actions.run`."""
        refuse_fork("run actions")
        self._executor.start(action, *args)

    def is_running(self, action: Action) -> bool:
        """Return whether an action was started and has not ended."""
        return self._executor.is_running(action)

    async def sleep(self, seconds: float) -> None:
        """Pause the calling action for a time in s; a checkpoint."""
        await trio.sleep(seconds)


def refuse_input(_prompt: object = "", /) -> NoReturn:
    """Refuse to read from a keyboard; the ``input`` of team code.

    Raises:
        ExecutionError: Always.
    """
    raise ExecutionError("input() cannot be used: the robot has no keyboard; use Gamepad instead")


def _short(number: Any) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)
