"""The `rt logs` command: the log of a robot, live, from the past or from a file.

Invariant: the command ends at once and without an error on Ctrl-C, on SIGTERM and SIGHUP, and when
the reader of its output closes the pipe.
"""

import functools
import os
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import trio
import zmq

from rt import log
from rt.client.option_flags import click_options, json_option
from rt.client.target import RemoteTarget, target_options
from rt.config import Loaded
from rt.errors import ConfigError
from rt.instance import Instance
from rt.logs.follower import Follower, Printer
from rt.logs.place import linked_log, log_path
from rt.logs.read import MAX_LINE
from rt.logs.view import LogView, parse_since
from rt.ownership import planted_by, user
from rt.process.output import LineSplitter
from rt.process.signals import run_until_signal
from rt.protocol.logevent import LEVELS
from rt.transport.address import get_connection

HELP = """\
Show the log of the running robot until Ctrl-C. The command continues when the robot restarts.

SOURCE is the log address of a robot, a file, or - for stdin. The default is the running robot on
this computer.

\b
rt logs
rt logs --level warning --app executor
rt logs --since 10m             begin with the last ten minutes
rt logs --since 9:30 --no-follow
rt logs --robot tcp://robot.local:6000 --key blue.rtkey
rt logs tcp://robot.local:6001
rt logs old.log --json
"""


def _since(_context: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else parse_since(value, datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(help=HELP)
@click.argument("source", required=False, metavar="[SOURCE]", type=click.Path())
@click.option(
    "--level",
    type=click.Choice(list(LEVELS)),
    default="debug",
    help="Lowest level to show. [debug]",
)
@click.option(
    "--app",
    "apps",
    multiple=True,
    metavar="NAME",
    help="Show only events of this process, such as executor (repeatable).",
)
@click.option(
    "--since",
    callback=_since,
    metavar="WHEN",
    help="Begin with past events: from 30s, 10m, 2h or 1d ago, from 14:05, or from a date.",
)
@json_option("Print each event as a JSON object.")
@click.option("--no-follow", is_flag=True, help="Print the robot's log file and exit.")
@target_options
@click_options("instance")
def command(  # noqa: PLR0917 - click passes them by name
    loaded: Loaded,
    source: str | None,
    level: str,
    apps: tuple[str, ...],
    since: datetime | None,
    as_json: bool,
    no_follow: bool,
    remote: RemoteTarget | None,
) -> None:
    """Show the log of the running robot, or a log file."""
    log.configure(level="error", fmt="pretty", stream=sys.stderr)
    colors = log.wants_colors(sys.stdout)
    printer = Printer(LogView(level=level, apps=apps, since=since, as_json=as_json, colors=colors))
    config = loaded.config

    async def show() -> None:
        if remote is not None:
            await _show_remote(printer, remote, source)
        elif source is None:
            instance = Instance.locate(config.instance)
            # The robot may have other options than this directory's rt.toml.
            file = linked_log(instance.directory) or log_path(config.log_file, config.instance)
            address = get_connection(config.resolved(instance.directory).log_frontend)
            await _show_robot(
                printer,
                instance,
                address,
                file,
                with_history=since is not None,
                follow=not no_follow,
            )
        elif source == "-":
            await printer.lines(_stdin())
        elif "://" in source:
            await Follower(printer, source).run()
        else:
            await printer.file(_readable(source), older=False, unfinished=True)

    trio.run(run_until_signal, functools.partial(_until_closed, show))


async def _show_robot(
    printer: Printer,
    instance: Instance,
    address: str,
    file: Path | None,
    *,
    with_history: bool,
    follow: bool,
) -> None:
    if not follow or (with_history and instance.holder() is None):
        if file is None or not await trio.Path(file).exists():
            why = (
                f"{file} does not exist; `rt run` writes it"
                if file
                else "the option log_file is empty"
            )
            raise ConfigError(f"robot {instance.name!r} has no log file: {why}")
        if (uid := planted_by(file)) is not None:
            raise ConfigError(
                f"{file} belongs to {user(uid)} and is not a log of your robot; remove it",
                file=str(file),
            )
        await printer.file(file, older=True)
        if follow:
            click.echo(
                f"rt: no robot runs as {instance.name!r}; this was its log file {file}", err=True
            )
        return
    instance.require()
    await Follower(printer, address, instance=instance, file=file, with_history=with_history).run()


async def _show_remote(printer: Printer, remote: RemoteTarget, source: str | None) -> None:
    from rt.access.authenticator import curve_options
    from rt.access.probe import probe

    if source is not None:
        raise ConfigError(f"--robot and SOURCE {source} exclude each other")
    await probe(remote.log_address, remote.station_key, socket_type=zmq.SUB)
    await Follower(
        printer,
        remote.log_address,
        options=curve_options(remote.station_key) if remote.station_key else None,
    ).run()


def _readable(source: str) -> Path:
    path = Path(source)
    try:
        path.stat()
    except OSError as error:
        raise ConfigError(f"cannot read {source}: {error.strerror}", file=source) from None
    if path.is_dir():
        raise ConfigError(f"cannot read {source}: it is a directory", file=source)
    if not os.access(path, os.R_OK):
        raise ConfigError(f"cannot read {source}: permission denied", file=source)
    return path


async def _stdin() -> AsyncIterator[list[str]]:
    splitter = LineSplitter(MAX_LINE)
    while data := await trio.to_thread.run_sync(os.read, 0, 65536, abandon_on_cancel=True):
        yield list(splitter.feed(data))
    if (last := splitter.finish()) is not None:
        yield [last]


async def _until_closed(function: Callable[[], Awaitable[None]]) -> None:
    """Run a function until it returns or the reader of stdout closes the pipe.

    Raises:
        BrokenPipeError: The reader closed the pipe, also while nothing is printed.
    """
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(1).st_mode)
    except OSError:
        is_pipe = False
    async with trio.open_nursery() as nursery:
        if is_pipe:
            nursery.start_soon(_watch_stdout)
        await function()
        nursery.cancel_scope.cancel()


async def _watch_stdout() -> None:
    # The writing end of a pipe is readable when the reading end is closed.
    await trio.lowlevel.wait_readable(1)
    raise BrokenPipeError
