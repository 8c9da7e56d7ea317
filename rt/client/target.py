"""`--robot` and `--key`: a verb that reaches a robot on another machine."""

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
        bundle: The key for it, or None for a robot that needs none.
    """

    address: str
    bundle: Bundle | None = None

    @property
    def log_address(self) -> str:
        """Where it publishes its log: one port above the router's, as `port_base` lays them."""
        host, _, port = self.address.rpartition(":")
        return f"{host}:{int(port) + 1}"

    def options(self) -> dict[str, int | bytes]:
        """The ZMQ options, by name, of a socket that connects to it."""
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
    """Give a verb `--robot` and `--key`, and hand it `remote`: an `RemoteTarget`, or None for the robot of this machine."""

    @functools.wraps(function)
    def command(*args: Any, robot: str | None, key: Path | None, **arguments: Any) -> Any:
        if (
            robot is None
            and key is not None
            and click.get_current_context().get_parameter_source("key") is _COMMAND_LINE
        ):
            raise ConfigError(
                "--key is of use with --robot tcp://HOST:PORT only: this machine's robot needs no key"
            )
        remote = RemoteTarget(robot, Bundle.load(key) if key else None) if robot else None
        return function(*args, remote=remote, **arguments)

    decorated: Function = click.option(
        "--key",
        envvar="RT_KEY",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Key of this station for --robot, as `rt keys new` made it. [RT_KEY]",
    )(command)
    return click.option(
        "--robot",
        envvar="RT_ROBOT",
        metavar="ADDRESS",
        help="A robot on another machine, as tcp://robot.local:6000. [RT_ROBOT]",
    )(decorated)


_COMMAND_LINE = click.core.ParameterSource.COMMANDLINE
