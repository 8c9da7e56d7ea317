"""The methods of the broker's service."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import trio

from rt.broker.access import StationsReport
from rt.broker.driving import CommanderReport, Driving, sender_of
from rt.broker.gamepads import GamepadFeed
from rt.broker.remote_options import Overrides
from rt.catalog import Parameter
from rt.config import Config
from rt.errors import ExecutionError
from rt.lint.record import Record
from rt.lint.request import LintRequest
from rt.protocol import datagrams
from rt.protocol.datagrams import Stamp
from rt.remote import Bounds, Handler, route
from rt.remote.caller import caller

UPDATE_BOUNDS = Bounds(message=4096, text=64, items=16, depth=3)
"""Bounds of a gamepad update: four gamepads of five fields, and a stamp."""


class Broker(Handler):
    """The methods of the robot as a whole.

    Args:
        config: The options of the robot.
        gamepads: Stores gamepad updates.
        status: Returns the state of the robot's processes.
        stations: Returns who may connect from the network.
        state: Directory of the overrides, or None if there is none.
        directory: Directory of the team code; by default the working directory.
        instance_directory: The instance directory, which identifies the linter's process as one of
            this robot.
    """

    def __init__(
        self,
        config: Config,
        gamepads: GamepadFeed,
        status: Any,
        stations: Callable[[], StationsReport] | None = None,
        *,
        state: Path | None = None,
        directory: Path | None = None,
        instance_directory: Path | None = None,
    ) -> None:
        self._config = config
        self._directory = directory or Path.cwd()
        self._instance_directory = instance_directory
        self._options = Overrides(config, state, self._directory)
        self._gamepads = gamepads
        self._status = status
        self._stations = stations
        self._linting = trio.Lock()

    @property
    def driving(self) -> Driving:
        """The driver of the robot."""
        return self._gamepads.driving

    @property
    def button_params(self) -> list[Parameter]:
        """The buttons of a gamepad; bit i of an update's ``btn`` is the i-th."""
        return self._gamepads.button_params

    bounds = Bounds(message=1 << 14)

    @route(inline=True)
    def get_option(self, option: str | None = None) -> Any:
        """Return an option, a map entry such as dev_name.left_motor, or all options by name."""
        return self._options.get(option)

    @route(bounds=Bounds(message=1 << 14, text=512, items=256))
    def set_option(self, options: dict[str, Any]) -> dict[str, Any]:
        """Override options from the next start on, all or none; null removes an override.

        Overrides override rt.toml; variables and flags override them. Returns all overrides.
        """
        return self._options.set(options)

    @route
    async def lint(self) -> list[Record]:
        """Check the team code without running it; return the findings of `rt lint --json`.

        Raises:
            ExecutionError: There is no code, or a check is running and another one is waiting.
        """
        # Imported here, because the limits and types of the linter are needed only for a check.
        from rt.lint.runner import run_lint

        if self._linting.statistics().tasks_waiting:
            raise ExecutionError(
                "a check of the code is running and another one is waiting; ask again later"
            )
        async with self._linting:
            request = LintRequest(directory=str(self._directory), config=self._config)
            return await run_lint(request, instance_directory=self._instance_directory)

    @route(inline=True, bounds=UPDATE_BOUNDS)
    def update_gamepads(self, update: dict[str, Any], stamp: Stamp | None = None) -> None:
        """Store the state of one or more gamepads: index -> lx, ly, rx, ry (-1 to 1) and btn.

        With a stamp (station, seq, time), an update that is late, duplicated or out of order is
        refused. While another station has control, all updates are refused; take_control takes it
        over.
        """
        states = datagrams.check_gamepads(update, buttons=len(self._gamepads.buttons))
        self._gamepads.feed(states, stamp, sender_of(caller(), stamp.station if stamp else ""))

    @route(inline=True)
    def take_control(self, station: str | None = None) -> CommanderReport:
        """Take control of the gamepads; the sticks must be at rest once before anything moves.

        Without a name, control goes to the calling station, or to the one that is being refused.
        """
        self.driving.take_control(caller(), station)
        return self.driving.report()

    @route(inline=True)
    def release_control(self) -> CommanderReport:
        """Release control of the gamepads to the next station that sends."""
        self.driving.release_control(caller())
        return self.driving.report()

    @route(inline=True)
    def commander(self) -> CommanderReport:
        """Return the station in control, since when, the driver's state, and refused stations."""
        return self.driving.report()

    @route(inline=True)
    def status(self) -> Any:
        """Return the state of the robot's processes."""
        return self._status()

    @route(inline=True)
    def stations(self) -> StationsReport | None:
        """Return who may connect from the network, who has control, and what was refused."""
        if self._stations is None:
            return None
        return msgspec.structs.replace(self._stations(), commander=self.driving.report().commander)
