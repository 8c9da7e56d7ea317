"""The flags `--robot` and `--key`, for commands that reach a robot on another machine."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from rt.access.bundle import Bundle
from rt.errors import ConfigError

Function = Callable[..., Any]


class RemoteTarget(msgspec.Struct, frozen=True):
    """A robot on another machine.

    Attributes:
        address: `tcp://HOST:PORT` of its router.
        bundle: The key for the robot, or None for a robot without keys.
    """

    address: str
    bundle: Bundle | None = None

    @property
    def log_address(self) -> str:
        """The address of its log: the router's port + 1, as in the layout of `port_base`."""
        host, _, port = self.address.rpartition(":")
        return f"{host}:{int(port) + 1}"

    def options(self) -> dict[str, int | bytes]:
        """Return the ZMQ options, by name, of a socket that connects to the robot."""
        from rt.access.authenticator import curve_options

        return (
            {_name(option): value for option, value in curve_options(self.bundle).items()}
            if self.bundle
            else {}
        )


def _name(option: int) -> str:
    import zmq

    return zmq.SocketOption(option).name


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
        remote = RemoteTarget(robot, Bundle.load(key) if key else None) if robot else None
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
