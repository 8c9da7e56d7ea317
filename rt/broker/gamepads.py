"""Gamepads: from the driver's station into their buffers, and to neutral when the station falls silent.

A gamepad is believed for ``SILENCE`` seconds after its last update. Then its buffer is marked
invalid, which reads as every axis at rest and no button pressed; it comes back by itself with the
next update.

Invariant: an update counts only if its sender is in control (``rt.broker.commander``) and its stamp
is news (``rt.broker.replay_filter``). Only an update that counts is a sign of life of the driver,
and of it only the states that are stored: the driver is judged by what team code reads.
"""

import ctypes
import math
from collections.abc import Mapping

import trio

from rt import log
from rt.broker.commander import Sender
from rt.broker.driver import SILENCE
from rt.broker.driving import Driving
from rt.broker.replay_filter import SequenceTracker
from rt.buffer import Buffer, BufferStore
from rt.catalog import Parameter
from rt.errors import BufferBusyError, DeviceBufferError
from rt.log.throttle import Throttle, Write
from rt.protocol.control import GamepadState, Stamp

MAX_BUTTONS = 32
"""The bits of ``btn``."""

_RETRY_INTERVAL = 0.01
"""Least time (s) between two looks at who is silent: a buffer that somebody else has is tried again."""
_BURST = 10
_INTERVAL = 2.0
_LEFT = "its driver no longer has control"
_LOCAL = Sender()
_AXES = ("joystick_left_x", "joystick_left_y", "joystick_right_x", "joystick_right_y")


class GamepadFeed:
    """Stores what the driver's station says.

    Args:
        store: The buffers; a gamepad's is made with its first update.
        driving: Who is in control; by default a new one.

    Attributes:
        driving: As above.
        button_params: The gamepad's buttons; bit i of ``btn`` is the i-th.
        updates: States that were stored.
        skipped: States that were not, since a buffer was in use.
        stamps: What is known of the stations, and how many updates were too old.
    """

    def __init__(self, store: BufferStore, driving: Driving | None = None) -> None:
        self.driving = driving or Driving()
        self.driving.listen_handover(self._release_all)
        self._store = store
        self._seen: dict[int, float] = {}
        self._active = trio.Event()
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
        """Store the states of some gamepads; each stick is brought into the unit circle.

        Args:
            update: The states by the gamepads' indices.
            stamp: What the station says of its number and time, if it does.
            sender: Where the update comes from.

        Raises:
            ControlRefusedError: Another sender is in control; nothing of the update is stored.
            RemoteProtocolError: The update is older than one before it, or too old; nothing of it
                is stored.
        """
        self.driving.check(sender)
        if stamp is not None:
            # Only stamps of the sender in control get here, so that no other one can push them out
            # of the book.
            self.stamps.check(stamp, trio.current_time(), sender.place)
        if not update:
            return
        self.driving.admit(sender)
        for index, seen in list(self._seen.items()):
            if seen == -math.inf:
                self._release(index, _LEFT)
        stored = {index: state for index, state in update.items() if self._take(index, state)}
        # Until every buffer is released, one still holds what the former driver sent.
        if -math.inf not in self._seen.values():
            self.driving.update(stored)
        self._wake()

    def _take(self, index: int, state: GamepadState) -> bool:
        """Store the state of a gamepad; False if its buffer does not take it."""
        try:
            self._store_state(self._store.get_or_open(("gamepad", index)), state.clamped())
        except BufferBusyError:
            # The next update is 20 ms away; waiting here would hold up everything else.
            self.skipped += 1
            return False
        except DeviceBufferError as error:
            if not self._is_failure_logged:
                self._is_failure_logged = True
                self._log.error("the gamepad has no buffer", gamepad=index, reason=error.message)
            return False
        if index not in self._seen:
            self._note(self._log.info, "gamepad connected", gamepad=index)
        self._seen[index] = trio.current_time()
        self.updates += 1
        return True

    def _release_all(self) -> None:
        """Let every gamepad read neutral: its driver no longer has control."""
        for index in list(self._seen):
            # One whose buffer is in use stays due: `run` tries it again.
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
        """Watch for silence until cancelled; without a gamepad there is nothing to do until one comes.

        Suppressed log events are logged when they are due, and at the end.
        """
        try:
            while True:
                await self._watch()
        finally:
            self._flush(always=True)

    async def _watch(self) -> None:
        deadline = min([*(seen + SILENCE for seen in self._seen.values()), self.driving.deadline])
        least = trio.current_time() + _RETRY_INTERVAL
        due = max(min(self._events.due, self.driving.flush_due), least)
        self._active = trio.Event()
        if deadline == math.inf:
            with trio.move_on_at(due):
                await self._active.wait()
            self._flush()
            return
        # Updates do not end this sleep: each makes its deadline later.
        await trio.sleep_until(min(max(deadline, least), due))
        self.driving.tick()
        now = trio.current_time()
        for index, seen in list(self._seen.items()):
            if now >= seen + SILENCE:
                self._release(index, _LEFT if seen == -math.inf else f"no update for {SILENCE:g} s")
        self._flush()

    def _wake(self) -> None:
        self._active.set()

    def _flush(self, *, always: bool = False) -> None:
        self._events.flush(always=always)
        self.driving.flush(always=always)

    def _note(self, write: Write, event: str, **context: object) -> None:
        # The events of a gamepad share a bucket, so that the newest one states what it reads now.
        if not self._events.log(write, event, "gamepad", **context):
            self._wake()

    def _release(self, index: int, reason: str) -> None:
        try:
            self._store.get_or_open(("gamepad", index)).valid = False
        except BufferBusyError:
            return
        except DeviceBufferError as error:
            # Its readers look at the age too; the watch over the other gamepads must not end with
            # this one.
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


__all__ = ["MAX_BUTTONS", "SILENCE", "GamepadFeed"]
