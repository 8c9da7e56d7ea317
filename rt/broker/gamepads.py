"""Gamepads: from the driver's station into their buffers, and to neutral when the station falls silent.

A gamepad is believed for ``SILENCE`` seconds after its last update. Then its buffer is marked invalid, which reads as every axis
at rest and no button pressed; it comes back by itself with the next update.

Invariant: an update counts only if its sender is in control (``rt.broker.commander``) and its stamp is news
(``rt.broker.freshness``). Only an update that counts is a sign of life of the driver.
"""

import ctypes
import math
from collections.abc import Mapping

import trio

from rt import log
from rt.broker.commander import Sender
from rt.broker.driver import SILENCE
from rt.broker.driving import Driving
from rt.broker.freshness import StampBook
from rt.buffer import Buffer, BufferStore
from rt.catalog import Parameter
from rt.errors import BufferBusyError, DeviceBufferError
from rt.protocol.control import GamepadState, Stamp

MOST_BUTTONS = 32
"""The bits of ``btn``."""

_RETRY_INTERVAL = 0.01
"""Least time (s) between two looks at who is silent: a buffer that somebody else has is tried again."""
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
        self._told = False
        self.updates = 0
        self.skipped = 0
        self.stamps = StampBook()
        params = sorted(store.catalog["gamepad"].params, key=lambda param: param.id)
        self.button_params: list[Parameter] = [param for param in params if param.ctype is ctypes.c_bool][:MOST_BUTTONS]
        self.buttons = [param.name for param in self.button_params]

    def feed(self, update: Mapping[int, GamepadState], stamp: Stamp | None = None, sender: Sender = _LOCAL) -> None:
        """Store the states of some gamepads; each stick is brought into the unit circle.

        Args:
            update: The states by the gamepads' indices.
            stamp: What the station says of its number and time, if it does.
            sender: Where the update comes from.

        Raises:
            ControlRefusedError: Another sender is in control; nothing of the update is stored.
            RemoteProtocolError: The update is older than one before it, or too old; nothing of it is stored.
        """
        self.driving.judge(sender)
        if stamp is not None:
            # Only stamps of the sender in control get here, so that no other one can push them out of the book.
            self.stamps.check(stamp, trio.current_time(), sender.place)
        if not update:
            return
        self.driving.admit(sender)
        for index, state in update.items():
            self._take(index, state)
        self.driving.update(update)
        self._active.set()

    def _take(self, index: int, state: GamepadState) -> None:
        try:
            self._store_state(self._store.get_or_open(("gamepad", index)), state.clamped())
        except BufferBusyError:
            # The next update is 20 ms away; waiting here would hold up everything else.
            self.skipped += 1
            return
        except DeviceBufferError as error:
            if not self._told:
                self._told = True
                self._log.error("the gamepad has no buffer", gamepad=index, reason=error.message)
            return
        if index not in self._seen:
            self._log.info("the gamepad is connected", gamepad=index)
        self._seen[index] = trio.current_time()
        self.updates += 1

    def _release_all(self) -> None:
        """Let every gamepad read neutral: its driver no longer has control."""
        for index in list(self._seen):
            # One whose buffer is in use stays due: `run` tries it again.
            self._seen[index] = -math.inf
            self._release(index, "its driver no longer has control")
        self._active.set()

    def _store_state(self, buffer: Buffer, state: GamepadState) -> None:
        values: dict[str, float | bool] = dict(zip(_AXES, (state.lx, state.ly, state.rx, state.ry), strict=True))
        values |= {name: bool(state.btn >> bit & 1) for bit, name in enumerate(self.buttons)}
        buffer.set_all(values)
        if not buffer.valid:
            buffer.valid = True

    async def run(self) -> None:
        """Watch for silence until cancelled; without a gamepad there is nothing to do until one comes."""
        while True:
            deadline = min([*(seen + SILENCE for seen in self._seen.values()), self.driving.deadline])
            self._active = trio.Event()
            if deadline == math.inf:
                await self._active.wait()
                continue
            await trio.sleep_until(max(deadline, trio.current_time() + _RETRY_INTERVAL))
            self.driving.tick()
            for index, seen in list(self._seen.items()):
                if trio.current_time() >= seen + SILENCE:
                    self._release(index, f"no update for {SILENCE:g} s")

    def _release(self, index: int, reason: str) -> None:
        try:
            self._store.get_or_open(("gamepad", index)).valid = False
        except BufferBusyError:
            return
        except DeviceBufferError as error:
            # Its readers look at the age too; the watch over the other gamepads must not end with this one.
            self._log.error("the gamepad cannot be marked as silent", gamepad=index, reason=error.message)
        del self._seen[index]
        self._log.warning("the gamepad is silent: it reads neutral", gamepad=index, reason=reason)


__all__ = ["MOST_BUTTONS", "SILENCE", "GamepadFeed"]
