"""The broker's service."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from rt.broker.access import StationsReport
from rt.broker.gamepads import GamepadFeed
from rt.config import Config, nearest
from rt.errors import ConfigError
from rt.protocol import control
from rt.remote import Handler, route


class Broker(Handler):
    """Answers for the robot as a whole.

    Args:
        config: The options that the robot runs with.
        gamepads: Where gamepad updates go.
        status: Gives the state of the robot's processes.
        stations: Tells of those who may connect from the network.
    """

    def __init__(
        self, config: Config, gamepads: GamepadFeed, status: Any, stations: Callable[[], StationsReport] | None = None
    ) -> None:
        self._options: Mapping[str, Any] = msgspec.to_builtins(config)
        self._gamepads = gamepads
        self._status = status
        self._stations = stations

    @route(inline=True)
    def get_option(self, option: str | None = None) -> Any:
        """The value of an option, or of all options by name."""
        if option is None:
            return self._options
        if option not in self._options:
            raise ConfigError(f"there is no option {option!r}{nearest(option, self._options)}", option=option)
        return self._options[option]

    @route(inline=True)
    def update_gamepads(self, update: dict[str, Any]) -> None:
        """Store the state of one or more gamepads: index -> lx, ly, rx, ry (-1 to 1) and btn."""
        self._gamepads.feed(control.gamepads(update, buttons=len(self._gamepads.buttons)))

    @route(inline=True)
    def status(self) -> Any:
        """The state of the robot's processes."""
        return self._status()

    @route(inline=True)
    def stations(self) -> StationsReport | None:
        """Who may connect from the network, and what was refused: connections, and control datagrams by the reason."""
        return self._stations() if self._stations else None
