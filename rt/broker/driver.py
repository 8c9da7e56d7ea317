"""The state of the driver: absent, waiting, live or silent.

Invariant: a driver becomes live only by an update after which every stick of every gamepad is at
rest and no button is pressed. A driver that has been silent, that has taken control from another
one, or whose mode begins with a deflected stick, therefore moves nothing until the sticks have been
at rest once.

The module is pure: the caller brings the time, in s, of a clock that never goes back.
"""

import enum
import math
from collections.abc import Mapping

from rt.protocol.control import GamepadState

SILENCE = 0.5
"""Time (s) without an accepted update after which a driver is silent."""
REST = 0.1
"""Deflection up to which an axis is at rest; worn sticks do not return to exactly 0."""


class State(enum.StrEnum):
    """What is known of the driver.

    Attributes:
        ABSENT: No update has been accepted since the start or since control was released.
        WAITING: Updates arrive; the sticks have not been at rest yet.
        LIVE: Updates arrive, and what they say may move the robot.
        SILENT: Updates arrived, and none has for `SILENCE`.
    """

    ABSENT = "absent"
    WAITING = "waiting"
    LIVE = "live"
    SILENT = "silent"


def is_at_rest(state: GamepadState) -> bool:
    """Whether a gamepad commands nothing: every axis within `REST`, no button pressed."""
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
        """Whether what the driver sends may move the robot."""
        return self.state is State.LIVE

    @property
    def is_present(self) -> bool:
        """Whether a gamepad sends updates."""
        return self.state in {State.LIVE, State.WAITING}

    @property
    def deadline(self) -> float:
        """The time at which the driver is silent unless an update comes before; infinite without a present driver."""
        return self._last_update + SILENCE if self.is_present else math.inf

    def update(self, states: Mapping[int, GamepadState], now: float) -> None:
        """Take in an accepted update; one without a gamepad is no sign of life.

        A gamepad that joins with a deflected stick makes a live driver wait: its values would start
        from nothing.
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
        """Let time pass; a gamepad that is silent for `SILENCE` reads neutral and no longer counts as deflected."""
        self._gamepads = {
            index: each for index, each in self._gamepads.items() if now < each[0] + SILENCE
        }
        if now >= self.deadline:
            self.state = State.SILENT

    def begin(self, now: float) -> None:
        """Begin a mode that the driver commands: a stick that is deflected now has to be at rest once."""
        self.tick(now)
        if self.is_live and not self._all_at_rest():
            self.state = State.WAITING

    def reset(self) -> None:
        """End control: the next driver begins anew."""
        self.state = State.ABSENT
        self._last_update = -math.inf
        self._gamepads = {}

    def _all_at_rest(self) -> bool:
        return all(resting for _, resting in self._gamepads.values())


__all__ = ["REST", "SILENCE", "Driver", "State", "is_at_rest"]
