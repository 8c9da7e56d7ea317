"""The emulated firmware of a Smart Device.

Pure: messages and the time in, messages out. `rt.emulator.lines` connects it to a link.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from rt.catalog import Parameter, Peripheral
from rt.emulator.simulation import SimState, WaveSimulation, simulations_for
from rt.emulator.values import checked, initial
from rt.errors import RemoteProtocolError
from rt.protocol.message import (
    VALUES_MAX,
    DevData,
    DevDisable,
    DevRead,
    DevWrite,
    Error,
    ErrorCode,
    HbReq,
    HbRes,
    Message,
    Ping,
    SubReq,
    SubRes,
)

SHORTEST_INTERVAL: Final = 40
LONGEST_INTERVAL: Final = 250
"""The limits to which firmware clamps the interval of a subscription, in ms."""

HEARTBEAT_TIMEOUT: Final = 1.0
"""How long a device that requests heartbeats keeps moving without an answer, in s."""


class EmulatedDevice:
    """The state of one emulated device.

    Args:
        peripheral: Its type.
        uid: Its UID; the device id in it should be the peripheral's.
        values: Initial values of parameters; others start with zero. A sensor with a given value
            keeps it.
        sim_state: The simulation state shared with other devices of the same robot; a new one if
            None.
        on_message: Called with every message that arrives, before it takes effect.
        wave: Whether every sensor follows a `WaveSimulation`.

    Attributes:
        values: The current value of every parameter, by name.
        disabled: Whether the device was stopped, by DEV_DISABLE or a missing heartbeat, and not
            written to since.

    Raises:
        DeviceError: A value is for an unknown parameter, of a wrong type, or does not fit.
    """

    def __init__(
        self,
        peripheral: Peripheral,
        uid: int,
        values: Mapping[str, Any] | None = None,
        *,
        sim_state: SimState | None = None,
        on_message: Callable[[Message], object] | None = None,
        wave: bool = False,
    ) -> None:
        self.peripheral = peripheral
        self.uid = uid
        self.values: dict[str, Any] = {param.name: initial(param) for param in peripheral.params}
        self._fixed: dict[str, Any] = {}
        for name, value in (values or {}).items():
            self.set(name, value)
        self.disabled = False
        self.on_message = on_message
        self._readable = peripheral.readable
        self._writeable = peripheral.writeable
        self._simulations = simulations_for(peripheral, sim_state or SimState())
        if wave:
            self._simulations.append(WaveSimulation(peripheral, uid))
        self._stepped_at: float | None = None
        self._actuators = tuple(param.name for param in peripheral.params if _is_actuator(param))
        self.reset()

    def reset(self) -> None:
        """Start as after power-up: without a subscription, and stopped."""
        self._params = 0
        self._interval = 0
        self._next_data = float("inf")
        self._next_heartbeat = float("inf") if self.peripheral.heartbeat_interval is None else 0.0
        self._heartbeat_id = 0
        self._unanswered_since: float | None = None
        self._stop()

    def set(self, name: str, value: Any) -> None:
        """Set the value of a parameter; a sensor keeps it.

        Raises:
            DeviceError: The parameter is unknown, or the value does not fit its type.
        """
        param = self.peripheral.param(name)
        self.values[name] = checked(param, value)
        if not param.writeable:
            self._fixed[name] = self.values[name]

    @property
    def next_due(self) -> float:
        """When `due` has to be called next, on the clock that it is given; may be infinite."""
        return min(self._next_data, self._next_heartbeat)

    def handle(self, item: Message | RemoteProtocolError, now: float) -> list[Message]:
        """Handle a message, or the error of an unreadable frame, and return the answers."""
        if isinstance(item, RemoteProtocolError):
            return [Error(item.context.get("code", ErrorCode.GENERIC_ERROR))]
        if self.on_message is not None:
            self.on_message(item)
        self._step(now)
        try:
            return self._answer(item, now)
        except RemoteProtocolError:
            return [Error(ErrorCode.GENERIC_ERROR)]

    def due(self, now: float) -> list[Message]:
        """Return what the device sends on its own: subscribed values and heartbeat requests.

        A late call sends once, not once for each period missed.
        """
        messages: list[Message] = []
        if now >= self._next_data:
            self._step(now)
            messages += self._data(self._params)
            period = self._interval / 1000
            self._next_data += period
            if self._next_data <= now:
                self._next_data = now + period
        if now >= self._next_heartbeat:
            if self._unanswered_since is None:
                self._unanswered_since = now
            elif now - self._unanswered_since >= HEARTBEAT_TIMEOUT:
                self._stop()
            self._heartbeat_id = (self._heartbeat_id + 1) % 256
            messages.append(HbReq(self._heartbeat_id))
            self._next_heartbeat = now + (self.peripheral.heartbeat_interval or 0)
        return messages

    def _answer(self, message: Message, now: float) -> list[Message]:
        answers: list[Message] = []
        match message:
            case DevWrite(params=params, data=data):
                answers = self._write(params, data)
            case DevRead(params=params):
                answers = self._data(params & self._readable)
            case HbReq(id=id_):
                answers = [HbRes(id_)]
            case SubReq(params=params, interval=interval):
                self._subscribe(params, interval, now)
                answers = [SubRes(self._params, self._interval, self.uid)]
            case Ping():
                answers = [SubRes(self._params, self._interval, self.uid)]
            case DevData() | SubRes():
                answers = [Error(ErrorCode.INVALID_TYPE)]
            case DevDisable():
                self._stop()
            case HbRes():
                self._unanswered_since = None
        return answers

    def _write(self, params: int, data: bytes) -> list[Message]:
        written = self.peripheral.unpack(params, data)
        writeable = self.peripheral.names(params & self._writeable)
        self.values.update((name, written[name]) for name in writeable)
        if writeable:
            self.disabled = False
        answered = params & self._writeable & self._readable
        return self._data(answered) if answered else []

    def _subscribe(self, params: int, interval: int, now: float) -> None:
        # A subscription to no readable parameter is granted, and reports nothing.
        self._interval = min(max(interval, SHORTEST_INTERVAL), LONGEST_INTERVAL) if interval else 0
        self._params = params & self._readable if interval else 0
        self._next_data = now + self._interval / 1000 if self._params else float("inf")

    def _data(self, params: int) -> list[Message]:
        packing = self.peripheral.packing
        parts = packing.split(params, VALUES_MAX) or [0]
        return [DevData(part, packing.pack(part, self.values)) for part in parts]

    def _step(self, now: float) -> None:
        seconds = 0.0 if self._stepped_at is None else max(0.0, now - self._stepped_at)
        self._stepped_at = now
        for simulation in self._simulations:
            simulation.step(self.values, seconds)
        self.values.update(self._fixed)

    def _stop(self) -> None:
        self.disabled = True
        for name in self._actuators:
            self.values[name] = 0.0


def _is_actuator(param: Parameter) -> bool:
    """Return whether a parameter moves something: a writeable real number of symmetric range."""
    return (
        param.writeable
        and param.is_real
        and param.lower == -param.upper
        and param.upper < float("inf")
    )
