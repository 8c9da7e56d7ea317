"""The robot that a command reaches: the flags `--robot` and `--key`, and the robot to stop."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from rt.access.station_key import StationKey
from rt.client.option_flags import Loader
from rt.config import Config
from rt.errors import ConfigError
from rt.instance import Instance, running

Function = Callable[..., Any]


class RemoteTarget(msgspec.Struct, frozen=True):
    """A robot on another machine.

    Attributes:
        address: `tcp://HOST:PORT` of its router.
        station_key: The key for the robot, or None for a robot without keys.
    """

    address: str
    station_key: StationKey | None = None

    @property
    def log_address(self) -> str:
        """The address of its log: the router's port + 1, as in the layout of `port_base`."""
        host, _, port = self.address.rpartition(":")
        return f"{host}:{int(port) + 1}"

    def options(self) -> dict[str, int | bytes]:
        """Return the ZMQ options, by name, of a socket that connects to the robot."""
        import zmq

        from rt.access.authenticator import curve_options

        options = curve_options(self.station_key) if self.station_key else {}
        return {zmq.SocketOption(option).name: value for option, value in options.items()}


def target_options(function: Function) -> Function:
    """Add `--robot` and `--key` to a command.

    The command receives `remote`: a `RemoteTarget`, or None for a robot on this machine.
    """

    @functools.wraps(function)
    def command(*args: Any, robot: str | None, key: Path | None, **arguments: Any) -> Any:
        if (
            robot is None
            and key is not None
            and click.get_current_context().get_parameter_source("key") is _COMMAND_LINE
        ):
            raise ConfigError(
                "--key requires --robot tcp://HOST:PORT; a robot on this machine needs no key"
            )
        remote = RemoteTarget(robot, StationKey.load(key) if key else None) if robot else None
        return function(*args, remote=remote, **arguments)

    decorated: Function = click.option(
        "--key",
        envvar="RT_KEY",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Key file of this station for --robot, made by `rt keys new`. [RT_KEY]",
    )(command)
    return click.option(
        "--robot",
        envvar="RT_ROBOT",
        metavar="ADDRESS",
        help="A robot on another machine, such as tcp://robot.local:6000. [RT_ROBOT]",
    )(decorated)


_COMMAND_LINE = click.core.ParameterSource.COMMANDLINE


def find_stop_target(load: Loader, *, is_here: bool) -> tuple[Config, str]:
    """Return the robot to stop, which is found even if the options are invalid.

    If they are, only the flags and RT_INSTANCE count. If no robot of that name runs and exactly one
    other does, it is the target, unless a flag gave the name.

    Args:
        load: Loads the options.
        is_here: Whether the robot runs on this computer.

    Returns:
        The options, which name the robot, and what is wrong with the user's options, to be reported
        after the call, or an empty text.

    Raises:
        ConfigError: A flag is invalid.
    """
    problem = ""
    try:
        loaded = load()
        loaded.config.resolved(Instance.locate(loaded.config.instance).directory)
    except ConfigError as error:
        problem = error.message
        loaded = load(only_flags=True)
    config = loaded.config
    if (
        is_here
        and loaded.origins["instance"] != "--instance"
        and Instance.locate(config.instance).holder() is None
    ):
        robots = running()
        if len(robots) == 1:
            problem = problem or f"no robot runs as {config.instance!r}"
            config = msgspec.structs.replace(config, instance=robots[0])
    return config, problem
