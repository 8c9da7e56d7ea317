"""The broker's service."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import trio

from rt.broker.access import StationsReport
from rt.broker.driving import CommanderReport, Driving, sender_of
from rt.broker.gamepads import GamepadFeed
from rt.broker.options import Overrides
from rt.catalog import Parameter
from rt.config import Config
from rt.errors import ExecutionError
from rt.lint.record import Record
from rt.lint.request import LintRequest
from rt.protocol import control
from rt.protocol.control import Stamp
from rt.remote import Bounds, Handler, route
from rt.remote.caller import caller

UPDATE_BOUNDS = Bounds(message=4096, text=64, items=16, depth=3)
"""What an update of gamepads may be at most: four gamepads of five fields, and a stamp."""


class Broker(Handler):
    """Answers for the robot as a whole.

    Args:
        config: The options that the robot runs with.
        gamepads: Where gamepad updates go.
        status: Gives the state of the robot's processes.
        stations: Tells of those who may connect from the network.
        state: Where options that are set from afar are kept, or None where there is no place.
        directory: Where the team's code is looked for; the working directory by default.
        instance_directory: The robot's, so that the linter's process is known as one of that robot.
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
        """Who is in control of the robot."""
        return self._gamepads.driving

    @property
    def button_params(self) -> list[Parameter]:
        """The gamepad's buttons: bit i of an update's ``btn`` is the i-th."""
        return self._gamepads.button_params

    bounds = Bounds(message=1 << 14)

    @route(inline=True)
    def get_option(self, option: str | None = None) -> Any:
        """The value of an option, of one entry of a map as dev_name.left_motor, or of all options by name."""
        return self._options.get(option)

    @route(bounds=Bounds(message=1 << 14, text=512, items=256))
    def set_option(self, options: dict[str, Any]) -> dict[str, Any]:
        """Set options for the next start, all or none; null takes one back. The result is all that is kept.

        What is set goes before rt.toml, and stands back behind variables and flags of the start.
        """
        return self._options.set(options)

    @route
    async def lint(self) -> list[Record]:
        """Check the team's code without running it: what is wrong, with file and line, as `rt lint --json` prints it.

        Raises:
            ExecutionError: There is no code, or it is being linted and somebody waits for that
                already.
        """
        # The process is started from here, but its limits and its answer's types stand in the
        # linter's room.
        from rt.lint.runner import run_lint

        if self._linting.statistics().tasks_waiting:
            raise ExecutionError(
                "the code is being checked, and somebody waits to have it checked again: ask later"
            )
        async with self._linting:
            request = LintRequest.of(self._config, str(self._directory))
            return await run_lint(request, instance_directory=self._instance_directory)

    @route(inline=True, bounds=UPDATE_BOUNDS)
    def update_gamepads(self, update: dict[str, Any], stamp: Stamp | None = None) -> None:
        """Store the state of one or more gamepads: index -> lx, ly, rx, ry (-1 to 1) and btn.

        With a stamp (station, seq, time) an update that comes late, twice or after its successor is
        refused. While another station has control, every update is refused; take_control takes it
        over.
        """
        states = control.check_gamepads(update, buttons=len(self._gamepads.buttons))
        self._gamepads.feed(states, stamp, sender_of(caller(), stamp.station if stamp else ""))

    @route(inline=True)
    def take_control(self, station: str | None = None) -> CommanderReport:
        """Take control of the robot's gamepads over from another station; its sticks have to be at rest once before they count.

        Without a name: for the station that calls, or else for the one that is being refused.
        """
        self.driving.take_control(caller(), station)
        return self.driving.report()

    @route(inline=True)
    def release_control(self) -> CommanderReport:
        """Free control of the robot's gamepads for the next station that sends."""
        self.driving.release_control(caller())
        return self.driving.report()

    @route(inline=True)
    def commander(self) -> CommanderReport:
        """Which station has control of the robot's gamepads, since when, whether it is live, and which ones are refused."""
        return self.driving.report()

    @route(inline=True)
    def status(self) -> Any:
        """The state of the robot's processes."""
        return self._status()

    @route(inline=True)
    def stations(self) -> StationsReport | None:
        """Who may connect from the network, who has control, and what was refused: connections, and control datagrams by the reason."""
        if self._stations is None:
            return None
        return msgspec.structs.replace(self._stations(), commander=self.driving.report().commander)
