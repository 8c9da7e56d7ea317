"""Gamepads: from the driver's station into their buffers, and to neutral when the station falls silent.

A gamepad is believed for ``SILENCE`` seconds after its last update. Then its buffer is marked invalid, which reads as every axis
at rest and no button pressed; it comes back by itself with the next update.
"""

from collections.abc import Mapping

import trio

from rt import log
from rt.buffer import Buffer, BufferStore
from rt.errors import BufferBusyError, DeviceBufferError
from rt.protocol.control import GamepadState

SILENCE = 0.5
"""How long a gamepad may say nothing before it reads neutral (s)."""

_CHECK_INTERVAL = 0.1
_AXES = ("joystick_left_x", "joystick_left_y", "joystick_right_x", "joystick_right_y")


class GamepadFeed:
    """Stores what the driver's station says.

    Args:
        store: The buffers; a gamepad's is made with its first update.
    """

    def __init__(self, store: BufferStore) -> None:
        self._store = store
        self._seen: dict[int, float] = {}
        self._log = log.get_logger()
        self._told = False
        self.updates = 0
        self.skipped = 0
        params = store.catalog["gamepad"].params
        self.buttons = [param.name for param in params if param.default is False]

    def feed(self, update: Mapping[int, GamepadState]) -> None:
        """Store the states of some gamepads; each stick is brought into the unit circle."""
        for index, state in update.items():
            try:
                self._store_state(self._store.get_or_open(("gamepad", index)), state.clamped())
            except BufferBusyError:
                # The next update is 20 ms away; waiting here would hold up everything else.
                self.skipped += 1
                continue
            except DeviceBufferError as error:
                if not self._told:
                    self._told = True
                    self._log.error("the gamepad has no buffer", gamepad=index, reason=error.message)
                continue
            if index not in self._seen:
                self._log.info("the gamepad is connected", gamepad=index)
            self._seen[index] = trio.current_time()
            self.updates += 1

    def _store_state(self, buffer: Buffer, state: GamepadState) -> None:
        values: dict[str, float | bool] = dict(zip(_AXES, (state.lx, state.ly, state.rx, state.ry), strict=True))
        values |= {name: bool(state.btn >> bit & 1) for bit, name in enumerate(self.buttons)}
        buffer.set_all(values)
        if not buffer.valid:
            buffer.valid = True

    async def run(self) -> None:
        """Watch for silence until cancelled."""
        while True:
            await trio.sleep(_CHECK_INTERVAL)
            for index, seen in list(self._seen.items()):
                if trio.current_time() - seen > SILENCE:
                    self._release(index)

    def _release(self, index: int) -> None:
        try:
            self._store.get_or_open(("gamepad", index)).valid = False
        except BufferBusyError:
            return
        del self._seen[index]
        self._log.warning("the gamepad is silent: it reads neutral", gamepad=index, silence=SILENCE)
