"""Simulations of the sensors of emulated devices.

A model is selected by the names of a device's parameters in the catalog, never by the name of the
device: what has a duty cycle and an encoder behaves as a motor, whatever board it is. Models are
crude on purpose: they show a person, and a test, that a command had an effect. Sensors without a
model can follow `WaveSimulation`.
"""

import ctypes
import math
import re
from collections.abc import MutableMapping
from typing import Any, Final, Protocol

from rt.catalog import Parameter, Peripheral

Values = MutableMapping[str, Any]

MAX_SPEED: Final = 360.0
"""Speed of a motor at a duty cycle of 1, in degrees per second."""

TRAVEL: Final = 720.0
"""Half the distance between the two ends of travel, in degrees of the motors' mean position."""

_RISE_TIME: Final = 0.1
_STALL_CURRENT: Final = 5.0
_CELL_FULL: Final = 4.15
_CELL_EMPTY: Final = 3.3
_CELL_RESISTANCE: Final = 0.15
_CELL_LIFE: Final = 3600.0

REAL_PERIOD: Final = 4.0
INTEGER_PERIOD: Final = 10.0
BOOL_PERIOD: Final = 2.0
"""Periods of the signals of sensors, in s."""

_AMPLITUDE: Final = 1.0
_RAMP: Final = 100
_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_PHASES: Final = 1 << 20


class SimState:
    """The shared state of one robot's emulated devices: its motors' positions and battery load."""

    def __init__(self) -> None:
        self._positions: dict[int, float] = {}
        self._loads: dict[int, float] = {}

    def report(self, motor: object, position: float, load: float) -> None:
        """Record one motor's position (degrees) and load (0 to 1)."""
        self._positions[id(motor)] = position
        self._loads[id(motor)] = load

    @property
    def travel(self) -> float:
        """Mean position of all motors, in degrees."""
        return sum(self._positions.values()) / len(self._positions) if self._positions else 0.0

    @property
    def load(self) -> float:
        """Sum of the motors' loads, each 0 to 1."""
        return sum(self._loads.values())


class Simulation(Protocol):
    """A model of one thing that a device senses."""

    def step(self, values: Values, seconds: float) -> None:
        """Advance the time by ``seconds`` and update the sensed values in place."""


class MotorSimulation:
    """A motor with an encoder: its speed follows the duty cycle with a lag."""

    def __init__(self, suffix: str, names: set[str], sim_state: SimState) -> None:
        self._duty = f"duty_cycle{suffix}"
        self._position = f"enc_pos{suffix}"
        self._speed = f"enc_vel{suffix}" if f"enc_vel{suffix}" in names else None
        self._current = f"motor_current{suffix}" if f"motor_current{suffix}" in names else None
        self._sim_state = sim_state
        self._velocity = 0.0

    def step(self, values: Values, seconds: float) -> None:
        """See `Simulation.step`."""
        duty = _finite(values[self._duty])
        decay = math.exp(-seconds / _RISE_TIME)
        self._velocity = duty * MAX_SPEED * (1 - decay) + self._velocity * decay
        values[self._position] = _finite(values[self._position]) + self._velocity * seconds
        if self._speed:
            values[self._speed] = self._velocity
        if self._current:
            values[self._current] = _STALL_CURRENT * abs(duty)
        self._sim_state.report(self, values[self._position], abs(duty))


class LimitSimulation:
    """Switches at the two ends of travel: the first at the lower end, the second at the upper."""

    def __init__(self, lower: str, upper: str, sim_state: SimState) -> None:
        self._lower = lower
        self._upper = upper
        self._sim_state = sim_state

    def step(self, values: Values, seconds: float) -> None:  # noqa: ARG002 - a switch has no state
        """See `Simulation.step`."""
        values[self._lower] = self._sim_state.travel <= -TRAVEL
        values[self._upper] = self._sim_state.travel >= TRAVEL


class BatterySimulation:
    """Cells in series that sag under load and run down over an hour of full load."""

    def __init__(self, cells: list[str], total: str, names: set[str], sim_state: SimState) -> None:
        self._cells = cells
        self._total = total
        self._calibrated = "calibrated" if "calibrated" in names else None
        self._unsafe = "is_unsafe" if "is_unsafe" in names else None
        self._sim_state = sim_state
        self._charge = 1.0

    def step(self, values: Values, seconds: float) -> None:
        """See `Simulation.step`."""
        load = self._sim_state.load
        self._charge = max(0.0, self._charge - load * seconds / _CELL_LIFE)
        cell = _CELL_EMPTY + (_CELL_FULL - _CELL_EMPTY) * self._charge - _CELL_RESISTANCE * load
        for name in self._cells:
            values[name] = cell
        values[self._total] = cell * len(self._cells)
        if self._calibrated:
            values[self._calibrated] = True
        if self._unsafe:
            values[self._unsafe] = cell < _CELL_EMPTY


class Signal:
    """The value of a sensor over time.

    A real number is a sine, an integer a ramp, and a bool a square wave.

    Args:
        param: The parameter, a simple one. The signal spans its limits; without limits a sine goes
            from -1 to 1 and a ramp from 0 to 100, and with one limit a sine spans 2 from it.
        phase: Its initial phase, 0 to 1.
    """

    def __init__(self, param: Parameter, phase: float) -> None:
        self._param = param
        self._phase = phase
        if param.is_real:
            self._period, self._lower, self._upper = (
                REAL_PERIOD,
                *_between(param.lower, param.upper),
            )
        elif param.ctype is ctypes.c_bool:
            self._period, self._lower, self._upper = BOOL_PERIOD, 0.0, 1.0
        else:
            self._period = INTEGER_PERIOD
            least = (
                math.ceil(param.lower)
                if math.isfinite(param.lower)
                else min(0.0, param.upper - _RAMP)
            )
            most = math.floor(param.upper) if math.isfinite(param.upper) else max(least, 0) + _RAMP
            self._lower, self._upper = param.checked(int(least)), param.checked(int(most))

    def at(self, time: float) -> Any:
        """Return the value after ``time`` s."""
        phase = (time / self._period + self._phase) % 1.0
        if self._param.is_real:
            middle, amplitude = (self._lower + self._upper) / 2, (self._upper - self._lower) / 2
            return middle + amplitude * math.sin(2 * math.pi * phase)
        if self._param.ctype is ctypes.c_bool:
            return phase < 0.5
        return min(int(self._lower + phase * (self._upper - self._lower + 1)), int(self._upper))


class WaveSimulation:
    """Moves every sensor of a device (readable and not writeable), each with its own phase.

    Args:
        peripheral: The type of device.
        uid: Its UID: two devices of a type move differently.
    """

    def __init__(self, peripheral: Peripheral, uid: int) -> None:
        self._time = 0.0
        self._waves = [
            (
                param.name,
                Signal(
                    param, (_GOLDEN * (uid % _PHASES * len(peripheral.params) + param.id)) % 1.0
                ),
            )
            for param in peripheral.params
            if param.readable and not param.writeable and param.is_simple
        ]

    def step(self, values: Values, seconds: float) -> None:
        """See `Simulation.step`."""
        self._time += seconds
        for name, wave in self._waves:
            values[name] = wave.at(self._time)


def simulations_for(peripheral: Peripheral, sim_state: SimState) -> list[Simulation]:
    """Return the models that fit a peripheral's parameters."""
    names = {param.name for param in peripheral.params}
    sensed = {param.name for param in peripheral.params if param.readable}
    simulations: list[Simulation] = []
    for param in peripheral.params:
        match = re.fullmatch(r"duty_cycle(.*)", param.name)
        if match and param.writeable and f"enc_pos{match[1]}" in sensed:
            simulations.append(MotorSimulation(match[1], sensed, sim_state))
    switches = sorted(name for name in sensed if re.fullmatch(r"switch\d+", name))
    if len(switches) > 1:
        simulations.append(LimitSimulation(switches[0], switches[1], sim_state))
    cells = sorted(name for name in sensed if re.fullmatch(r"v_cell\d+", name))
    if cells and "v_batt" in sensed:
        simulations.append(BatterySimulation(cells, "v_batt", names, sim_state))
    return simulations


def _between(lower: float, upper: float) -> tuple[float, float]:
    if math.isfinite(lower) and math.isfinite(upper):
        return lower, upper
    if math.isfinite(lower):
        return lower, lower + 2 * _AMPLITUDE
    if math.isfinite(upper):
        return upper - 2 * _AMPLITUDE, upper
    return -_AMPLITUDE, _AMPLITUDE


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
