"""Gamepad updates: from the driver's station into buffers, and to neutral when it is silent.

A gamepad state is valid for ``SILENCE`` seconds. Then its buffer is marked invalid, which reads as
every axis at rest and no button pressed. The next update makes it valid again.

Invariant: an update is accepted only if its sender is in control (``rt.broker.commander``) and its
stamp is new (``rt.broker.replay_filter``). The state of the driver depends only on states that were
stored, because these are what team code reads.
"""

import ctypes
import math
from collections.abc import Mapping

import trio

from rt import log
from rt.broker.commander import Sender
from rt.broker.driving import Driving
from rt.broker.replay_filter import SequenceTracker
from rt.buffer import Buffer, BufferStore
from rt.catalog import Parameter
from rt.errors import BufferBusyError, DeviceBufferError
from rt.log.throttle import Throttle, Write
from rt.protocol.datagrams import SILENCE, GamepadState, Stamp

MAX_BUTTONS = 32
"""Number of bits of ``btn``."""

_RETRY_INTERVAL = 0.01
"""Minimum time (s) between two attempts to set gamepads to neutral, whose buffers may be in use."""
_BURST = 10
_INTERVAL = 2.0
_LEFT = "its driver no longer has control"
_LOCAL = Sender()
_AXES = ("joystick_left_x", "joystick_left_y", "joystick_right_x", "joystick_right_y")


class GamepadFeed:
    """Stores gamepad updates of the driver's station.

    Args:
        store: The buffers; the first update of a gamepad creates its buffer.
        driving: The driver; a new one if None.

    Attributes:
        button_params: Buttons of a gamepad; bit i of ``btn`` is the i-th.
        updates: Number of stored states.
        skipped: Number of states that were not stored because the buffer was in use.
        stamps: Stamps of the stations.
    """

    def __init__(self, store: BufferStore, driving: Driving | None = None) -> None:
        self.driving = driving or Driving()
        self.driving.listen_handover(self._release_all)
        self._store = store
        self._seen: dict[int, float] = {}
        self._active = trio.lowlevel.ParkingLot()
        self._log = log.get_logger()
        self._is_failure_logged = False
        self._events = Throttle(
            "gamepad", burst=_BURST, interval=_INTERVAL, clock=trio.current_time
        )
        self.driving.on_suppressed = self._wake
        self.updates = 0
        self.skipped = 0
        self.stamps = SequenceTracker()
        params = sorted(store.catalog["gamepad"].params, key=lambda param: param.id)
        self.button_params: list[Parameter] = [
            param for param in params if param.ctype is ctypes.c_bool
        ][:MAX_BUTTONS]
        self.buttons = [param.name for param in self.button_params]

    def feed(
        self,
        update: Mapping[int, GamepadState],
        stamp: Stamp | None = None,
        sender: Sender = _LOCAL,
    ) -> None:
        """Store the states of some gamepads; each stick is limited to the unit circle.

        Args:
            update: States by gamepad index.
            stamp: Sequence number and time of the station, if given.
            sender: Origin of the update.

        Raises:
            ControlRefusedError: Another sender is in control; nothing of the update is stored.
            RemoteProtocolError: The update is older than one before it, or too old; nothing of it
                is stored.
        """
        self.driving.check(sender)
        if stamp is not None:
            # Only the sender in control reaches this, so that others cannot displace its stamps.
            self.stamps.check(stamp, trio.current_time(), sender.place)
        if not update:
            return
        self.driving.admit(sender)
        for index, seen in list(self._seen.items()):
            if seen == -math.inf:
                self._release(index, _LEFT)
        stored = {index: state for index, state in update.items() if self._store_one(index, state)}
        # A buffer that is not released yet still contains a state of the former driver.
        if -math.inf not in self._seen.values():
            self.driving.update(stored)
        self._wake()

    def _store_one(self, index: int, state: GamepadState) -> bool:
        """Store the state of a gamepad; return whether that was possible."""
        try:
            self._store_state(self._store.get_or_open(("gamepad", index)), state.clamped())
        except BufferBusyError:
            # Do not wait: that would block the event loop, and the next update follows in 20 ms.
            self.skipped += 1
            return False
        except DeviceBufferError as error:
            if not self._is_failure_logged:
                self._is_failure_logged = True
                self._log.error("gamepad has no buffer", gamepad=index, reason=error.message)
            return False
        if index not in self._seen:
            self._note(self._log.info, "gamepad connected", gamepad=index)
        self._seen[index] = trio.current_time()
        self.updates += 1
        return True

    def _release_all(self) -> None:
        """Set all gamepads to neutral, because their driver no longer has control."""
        for index in list(self._seen):
            # If the buffer is in use, the gamepad remains due and `run` tries again.
            self._seen[index] = -math.inf
            self._release(index, _LEFT)
        self._wake()

    def _store_state(self, buffer: Buffer, state: GamepadState) -> None:
        values: dict[str, float | bool] = dict(
            zip(_AXES, (state.lx, state.ly, state.rx, state.ry), strict=True)
        )
        values |= {name: bool(state.btn >> bit & 1) for bit, name in enumerate(self.buttons)}
        buffer.set_all(values)
        if not buffer.valid:
            buffer.valid = True

    async def run(self) -> None:
        """Set silent gamepads to neutral until cancelled; sleep while there is no gamepad.

        Suppressed log events are logged when they are due, and at the end.
        """
        try:
            while True:
                await self._watch()
        finally:
            self._flush(always=True)

    async def _watch(self) -> None:
        deadline = min(
            [*(seen + SILENCE for seen in self._seen.values()), self.driving.driver.deadline]
        )
        least = trio.current_time() + _RETRY_INTERVAL
        due = max(min(self._events.due, self.driving.flush_due), least)
        if deadline == math.inf:
            with trio.move_on_at(due):
                await self._active.park()
            self._flush()
            return
        # Updates need not end this sleep, because they only postpone the deadline.
        await trio.sleep_until(min(max(deadline, least), due))
        self.driving.tick()
        now = trio.current_time()
        for index, seen in list(self._seen.items()):
            if now >= seen + SILENCE:
                self._release(index, _LEFT if seen == -math.inf else f"no update for {SILENCE:g} s")
        self._flush()

    def _wake(self) -> None:
        self._active.unpark_all()

    def _flush(self, *, always: bool = False) -> None:
        self._events.flush(always=always)
        self.driving.flush(always=always)

    def _note(self, write: Write, event: str, **context: object) -> None:
        # All events of a gamepad are one class, so that the newest has its current state.
        if not self._events.log(write, event, "gamepad", **context):
            self._wake()

    def _release(self, index: int, reason: str) -> None:
        try:
            self._store.get_or_open(("gamepad", index)).valid = False
        except BufferBusyError:
            return
        except DeviceBufferError as error:
            # Readers check the age too. The other gamepads must still be watched.
            self._note(
                self._log.error,
                "gamepad cannot be set to neutral",
                gamepad=index,
                reason=error.message,
            )
            del self._seen[index]
            return
        del self._seen[index]
        self._note(self._log.warning, "gamepad reads neutral", gamepad=index, reason=reason)
