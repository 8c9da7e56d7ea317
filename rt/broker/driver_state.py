"""The state of the driver: absent, waiting, live or silent.

Invariant: a driver becomes live only by an update after which all sticks of all gamepads are at
rest and no button is pressed. A driver who was silent, who took control from another one, or whose
mode begins with a deflected stick therefore moves nothing until the sticks were at rest once.

The module is pure; callers pass the time (s) of a monotonic clock.
"""

import enum
import math
from collections.abc import Mapping

from rt.protocol.datagrams import SILENCE, GamepadState

REST = 0.1
"""Maximum deflection of an axis at rest; worn sticks do not return to exactly 0."""


class State(enum.StrEnum):
    """The state of the driver.

    Attributes:
        ABSENT: No update was accepted since the start or since control was released.
        WAITING: Updates arrive, but the sticks have not been at rest yet.
        LIVE: Updates arrive and may move the robot.
        SILENT: No update has arrived for `SILENCE`.
    """

    ABSENT = "absent"
    WAITING = "waiting"
    LIVE = "live"
    SILENT = "silent"


def is_at_rest(state: GamepadState) -> bool:
    """Whether every axis is within `REST` and no button is pressed."""
    return not state.btn and max(abs(state.lx), abs(state.ly), abs(state.rx), abs(state.ry)) <= REST


class Driver:
    """The state machine of the driver in control.

    Attributes:
        state: The current state.
    """

    def __init__(self) -> None:
        self.state = State.ABSENT
        self._last_update = -math.inf
        self._gamepads: dict[int, tuple[float, bool]] = {}

    @property
    def is_live(self) -> bool:
        """Whether the driver may move the robot."""
        return self.state is State.LIVE

    @property
    def is_present(self) -> bool:
        """Whether a gamepad sends updates."""
        return self.state in {State.LIVE, State.WAITING}

    @property
    def deadline(self) -> float:
        """Time at which the driver becomes silent without an update; infinite if not present."""
        return self._last_update + SILENCE if self.is_present else math.inf

    def update(self, states: Mapping[int, GamepadState], now: float) -> None:
        """Handle an accepted update; an update without gamepads changes nothing.

        A gamepad that joins with a deflected stick makes a live driver wait, because its values
        would jump.
        """
        self.tick(now)
        if not states:
            return
        self._last_update = now
        joined = [index for index in states if index not in self._gamepads]
        self._gamepads |= {index: (now, is_at_rest(state)) for index, state in states.items()}
        if self._all_at_rest():
            self.state = State.LIVE
        elif not self.is_live or not all(self._gamepads[index][1] for index in joined):
            self.state = State.WAITING

    def tick(self, now: float) -> None:
        """Apply the passing of time.

        A gamepad that was silent for `SILENCE` reads neutral and no longer counts as deflected.
        """
        self._gamepads = {
            index: each for index, each in self._gamepads.items() if now < each[0] + SILENCE
        }
        if now >= self.deadline:
            self.state = State.SILENT

    def begin(self, now: float) -> None:
        """Begin a mode that the driver commands; a deflected stick makes the driver wait."""
        self.tick(now)
        if self.is_live and not self._all_at_rest():
            self.state = State.WAITING

    def reset(self) -> None:
        """Forget the driver at the end of control."""
        self.state = State.ABSENT
        self._last_update = -math.inf
        self._gamepads = {}

    def _all_at_rest(self) -> bool:
        return all(resting for _, resting in self._gamepads.values())
