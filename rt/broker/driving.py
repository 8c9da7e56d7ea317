"""The driver of the robot: the station in control, its state, and who may move the robot.

`Driving` connects the pure state machines of `rt.broker.commander` and `rt.broker.driver_state`
with the log and the clock. It has no task and no timer; `rt.broker.gamepads` calls `tick` at
`rt.broker.driver_state.Driver.deadline`.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import msgspec
import trio

from rt import log
from rt.broker.commander import HANDOVER, Arbiter, Refusal, Sender
from rt.broker.driver_state import Driver, State
from rt.buffer.lease import Bar
from rt.errors import RemoteCallError
from rt.log.throttle import Throttle, Write
from rt.protocol.datagrams import SILENCE, GamepadState
from rt.remote.caller import Caller

WARNING_INTERVAL = 1.0
"""Minimum time (s) between two log events about refused stations."""
REPEAT_INTERVAL = 60.0
"""Minimum time (s) between two log events about the same refused station."""
_STATE_BURST = 10
_STATE_INTERVAL = 2.0
_WAITING = "waiting for the sticks to be at rest"

_HINTS = {
    State.ABSENT: (
        "no gamepad is connected: nothing moves until one is connected and its sticks have been at"
        " rest"
    ),
    State.WAITING: (
        "a stick or a button of the gamepad is held: nothing moves until all are released once"
    ),
    State.SILENT: (
        "the gamepad is silent: nothing moves until it sends again and its sticks have been at rest"
    ),
}


class RefusedStation(msgspec.Struct, frozen=True):
    """A station whose gamepads are refused.

    Attributes:
        station: Name, for `take_control`.
        updates: Number of refused updates.
        seconds: Time since the newest one.
    """

    station: str
    updates: int
    seconds: float


class CommanderReport(msgspec.Struct, frozen=True):
    """The result of `commander`.

    Attributes:
        commander: Station in control; null while control is free.
        since: Time at which it took control (ISO 8601, UTC).
        driver: absent, waiting (until the sticks have been at rest), live or silent.
        refused: Stations that were refused within the last minute, newest last.
    """

    commander: str | None
    since: str | None
    driver: str
    refused: list[RefusedStation]


class ControlRefusedError(RemoteCallError):
    """Another station is in control."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence, commander=refusal.by, station=refusal.you)
        self.refusal = refusal


class Driving:
    """The driver of the robot.

    Attributes:
        driver: State machine of the driver; read only.
        arbiter: Decides who is in control; read only.
        is_revoked: Returns whether a station's key is revoked, which ends its control.
        on_suppressed: Called when a log event was suppressed, because this changes `flush_due`.
    """

    def __init__(self) -> None:
        self.driver = Driver()
        self.arbiter = Arbiter()
        self.is_revoked: Callable[[str], bool] = lambda _: False
        self.on_suppressed: Callable[[], None] = lambda: None
        self._listeners: list[Callable[[], object]] = []
        self._handover_listeners: list[Callable[[], None]] = []
        self._log = log.get_logger()
        self._was_silent = False
        self._absence = Bar.DRIVER
        self._refusals = Throttle(
            "station",
            burst=1,
            interval=REPEAT_INTERVAL,
            total_burst=1,
            total_interval=WARNING_INTERVAL,
            clock=trio.current_time,
        )
        self._handovers = Throttle(clock=trio.current_time)
        self._states = Throttle(
            burst=_STATE_BURST, interval=_STATE_INTERVAL, clock=trio.current_time
        )
        self._throttles = (self._refusals, self._handovers, self._states)

    @property
    def bar(self) -> Bar:
        """Why the driver moves nothing, for the device process; `Bar.NONE` while it is live."""
        match self.driver.state:
            case State.LIVE:
                return Bar.NONE
            case State.WAITING:
                return Bar.HELD
            case State.ABSENT:
                return self._absence
        return Bar.DRIVER

    @property
    def hint(self) -> str | None:
        """What the driver must do before teleop moves anything, or None."""
        return _HINTS.get(self.driver.state)

    @property
    def flush_due(self) -> float:
        """Time at which `flush` has an event to log; infinite while none is suppressed."""
        return min(throttle.due for throttle in self._throttles)

    def flush(self, *, always: bool = False) -> None:
        """Log the newest suppressed event of each class, if it is due or `always`."""
        for throttle in self._throttles:
            throttle.flush(always=always)

    def listen(self, listener: Callable[[], object]) -> None:
        """Call a function when the driver becomes live or not any more.

        It must not block or raise.
        """
        self._listeners.append(listener)

    def listen_handover(self, listener: Callable[[], None]) -> None:
        """Call a function when control ends or changes hands, before the next driver's values."""
        self._handover_listeners.append(listener)

    def begin(self) -> str | None:
        """Begin a mode that the driver commands.

        Returns:
            `hint`, since deflected sticks must be at rest once.
        """
        before = self.driver.state
        self.driver.begin(trio.current_time())
        if before is self.driver.state is State.WAITING:
            # Never suppressed, because the person who begins the mode must know.
            self._log.info(_WAITING, station=self._name())
        self._publish(before)
        return self.hint

    def may_command(self, caller: Caller) -> str | None:
        """Return why a call that moves the robot is refused, or None.

        Calls that stop the robot and calls of its own user are never refused. Without keys, calls
        from the network cannot be distinguished from those of that user.
        """
        commander = self.arbiter.commander(trio.current_time())
        if not caller.station or commander is None or commander.key == caller.station:
            return None
        return Refusal(commander.name, caller.station).sentence

    def check(self, sender: Sender) -> None:
        """Check that the sender of an update is in control or control is free.

        Raises:
            ControlRefusedError: Another sender is in control; the refusal is counted and logged.
        """
        now = trio.current_time()
        commander = self.arbiter.commander(now)
        if commander is not None and commander.key and self.is_revoked(commander.key):
            before = self.driver.state
            self.arbiter.release(now)
            self._log.warning("control released: the key is revoked", station=commander.name)
            self._end_control(before, Bar.RELEASED)
        refusal = self.arbiter.check(sender, now)
        if refusal is not None:
            about = {"station": refusal.you, "commander": refusal.by, "remedy": refusal.remedy}
            self._note(self._refusals, self._log.warning, "gamepad update refused", **about)
            raise ControlRefusedError(refusal)

    def admit(self, sender: Sender) -> None:
        """Accept the sender of an update before the update is stored; control may change hands."""
        before = self.driver.state
        if self.arbiter.accept(sender, trio.current_time()):
            self._note(self._handovers, self._log.info, "control taken", station=sender.name)
            self._end_control(before, Bar.TAKEN)

    def update(self, states: Mapping[int, GamepadState]) -> None:
        """Handle an admitted update that was stored."""
        before = self.driver.state
        self.driver.update(states, trio.current_time())
        self._publish(before)

    def tick(self) -> None:
        """Apply the passing of time."""
        before = self.driver.state
        self.driver.tick(trio.current_time())
        self._publish(before)

    def take_control(self, caller: Caller, name: str | None = None) -> None:
        """Give control to a station.

        Args:
            caller: The caller; a station with a key may take control for itself only.
            name: The station; by default the caller, or the only station that is being refused.

        Raises:
            RemoteCallError: The station is unknown or ambiguous.
        """
        now = trio.current_time()
        sender = self._requested_sender(caller, name, now)
        before = self.driver.state
        former = self.arbiter.commander(now)
        if former is not None and former.is_same(sender):
            return
        self.arbiter.take(sender, now)
        self._note(
            self._handovers,
            self._log.warning,
            "control taken over",
            station=sender.name,
            former=former.name if former else None,
            by=_text(caller.peer),
        )
        self._end_control(before, Bar.TAKEN)

    def release_control(self, caller: Caller) -> None:
        """Release control to the next station that sends.

        Raises:
            RemoteCallError: The caller is a station without control.
        """
        now = trio.current_time()
        commander = self.arbiter.commander(now)
        if caller.station and commander is not None and commander.key != caller.station:
            raise RemoteCallError(
                f"{commander.name} has control, not {caller.station};"
                " only the station in control can release it"
            )
        before = self.driver.state
        former = self.arbiter.release(now)
        if former is not None:
            self._note(
                self._handovers,
                self._log.warning,
                "control released",
                station=former.name,
                by=_text(caller.peer),
            )
        self._end_control(before, Bar.RELEASED)

    def report(self) -> CommanderReport:
        """Return the state for `commander`."""
        now = trio.current_time()
        commander = self.arbiter.commander(now)
        since = datetime.now(UTC) - timedelta(seconds=now - self.arbiter.since)
        return CommanderReport(
            commander.name if commander else None,
            since.isoformat(timespec="seconds") if commander else None,
            str(self.driver.state),
            [
                RefusedStation(name, each.refused, round(now - each.last_update, 1))
                for name, each in self.arbiter.contenders.items()
                if now < each.last_update + REPEAT_INTERVAL
            ],
        )

    def _requested_sender(self, caller: Caller, name: str | None, now: float) -> Sender:
        if caller.station:
            if name not in {None, caller.station}:
                raise RemoteCallError(
                    f"station {caller.station} can take control for itself only, not for {name!r}"
                )
            return self.arbiter.find(caller.station) or Sender(key=caller.station)
        waiting = [each.sender for each in self.arbiter.waiting(now)]
        if name is not None:
            found = self.arbiter.find(name)
            if found is None:
                raise RemoteCallError(f"no station {name!r} sends gamepads; {_names(waiting)}")
            return found
        own = [each for each in waiting if each.line == _text(caller.peer)]
        candidates = own or waiting
        if len(candidates) != 1:
            raise RemoteCallError(f"name the station that takes control; {_names(waiting)}")
        return candidates[0]

    def _end_control(self, before: State, absence: Bar) -> None:
        """End control for a reason; the last values of its gamepads must not be read any more."""
        self._absence = absence
        self.driver.reset()
        self._publish(before)
        for listener in self._handover_listeners:
            listener()

    def _publish(self, before: State) -> None:
        """Log a change of the driver's state, and notify listeners if the driver is live or not."""
        state = self.driver.state
        if state is before:
            return
        name = self._name()
        if state is State.SILENT:
            self._was_silent = True
            self._note(
                self._states, self._log.warning, "driver silent", station=name, silence=SILENCE
            )
        elif state is State.WAITING:
            self._note(self._states, self._log.info, _WAITING, station=name)
        elif state is State.LIVE:
            self._note(
                self._states,
                self._log.info,
                "driver live again" if self._was_silent else "driver live",
                station=name,
            )
            self._was_silent = False
        if (state is State.LIVE) != (before is State.LIVE):
            for listener in self._listeners:
                listener()

    def _note(self, throttle: Throttle, write: Write, event: str, **context: object) -> None:
        # All events of a throttle are one class, so that the newest has the current state.
        if not throttle.log(write, event, "driver", **context):
            self.on_suppressed()

    def _name(self) -> str | None:
        commander = self.arbiter.commander(trio.current_time())
        return commander.name if commander else None


def sender_of(caller: Caller, run: str = "") -> Sender:
    """Return the sender of an update in a call.

    Args:
        caller: The caller.
        run: The `station` of the update's stamp.
    """
    line = _text(caller.peer)
    host = "" if caller.is_routed else line.rpartition(":")[0]
    return Sender(caller.station, host, line, run)


def _names(waiting: list[Sender]) -> str:
    if not waiting:
        return f"no station was refused within the last {HANDOVER:g} s"
    return f"refused were {', '.join(each.name for each in waiting)}"


def _text(peer: bytes) -> str:
    return peer.decode(errors="backslashreplace")
