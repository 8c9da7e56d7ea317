"""`rt logs`: what the running robot says, what it has said, or what stands in a file.

The rule of this module: it ends at once and without a complaint on Ctrl-C, on a stop, and when
nobody reads it any more.
"""

import os
import stat
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import trio
import zmq

from rt import log
from rt.client.options import click_options
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
from rt.protocol.logevent import LEVELS
from rt.terminal.signals import run_until_signal
from rt.transport.address import get_connection

HELP = """\
Watch what the running robot says, until Ctrl-C; a robot that is restarted is followed.

SOURCE is the address of another computer's robot, a file, or - for stdin. Without one it is the running robot of this computer.

\b
rt logs
rt logs --level warning --app executor
rt logs --since 10m             also what was said in the last ten minutes
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
    help="Least severity. [all that there is]",
)
@click.option(
    "--app",
    "apps",
    multiple=True,
    metavar="NAME",
    help="Only of this process, as executor (repeatable).",
)
@click.option(
    "--since",
    callback=_since,
    metavar="WHEN",
    help="Also what was said since: 30s, 10m, 2h or 1d ago, 14:05, a date.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each event as a JSON object.")
@click.option("--no-follow", "past", is_flag=True, help="Print what the robot's file has, and end.")
@target_options
@click_options("instance")
def command(  # noqa: PLR0917 - click passes them by name
    loaded: Loaded,
    source: str | None,
    level: str,
    apps: tuple[str, ...],
    since: datetime | None,
    as_json: bool,
    past: bool,
    remote: RemoteTarget | None,
) -> None:
    """Watch what the running robot says, or what it has said."""
    log.configure(level="error", fmt="pretty", stream=sys.stderr)
    colors = log.wants_colors(sys.stdout)
    printer = Printer(LogView(level=level, apps=apps, since=since, as_json=as_json, colors=colors))
    config = loaded.config

    async def show() -> None:
        if remote is not None:
            await _show_remote(printer, remote, source)
        elif source is None:
            instance = Instance.locate(config.instance)
            # A robot goes by its own options, which need not be those that are found here.
            file = linked_log(instance.directory) or log_path(config.log_file, config.instance)
            address = get_connection(config.resolved(instance.directory).log_frontend)
            await _show_robot(
                printer, instance, address, file, with_history=since is not None, only_past=past
            )
        elif source == "-":
            await printer.lines(_stdin())
        elif "://" in source:
            await Follower(printer, source).run()
        else:
            await printer.file(_readable(source), older=False, unfinished=True)

    async def main() -> None:
        await run_until_signal(lambda: _until_closed(show))

    trio.run(main)


async def _show_robot(
    printer: Printer,
    instance: Instance,
    address: str,
    file: Path | None,
    *,
    with_history: bool,
    only_past: bool,
) -> None:
    if only_past or (with_history and instance.holder() is None):
        if file is None or not await trio.Path(file).exists():
            why = (
                f"{file} does not exist; `rt run` writes it"
                if file
                else "the option log_file is empty"
            )
            raise ConfigError(f"there is no log file of {instance.name!r}: {why}")
        if (uid := planted_by(file)) is not None:
            raise ConfigError(
                f"{file} belongs to {user(uid)}: it is no log of your robot; remove it",
                file=str(file),
            )
        await printer.file(file, older=True)
        if not only_past:
            click.echo(
                f"rt: no robot runs as {instance.name!r}: this was its file {file}", err=True
            )
        return
    instance.require()
    await Follower(printer, address, instance=instance, file=file, with_history=with_history).run()


async def _show_remote(printer: Printer, remote: RemoteTarget, source: str | None) -> None:
    from rt.access.authenticator import curve_options
    from rt.access.probe import probe

    if source is not None:
        raise ConfigError(f"--robot names the robot already: leave {source} away")
    await probe(remote.log_address, remote.bundle, socket_type=zmq.SUB)
    await Follower(
        printer, remote.log_address, options=curve_options(remote.bundle) if remote.bundle else None
    ).run()


def _readable(source: str) -> Path:
    path = Path(source)
    try:
        path.stat()
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror}", file=source) from None
    if path.is_dir() or not os.access(path, os.R_OK):
        raise ConfigError(f"{source} cannot be read: it is a directory, or not for us", file=source)
    return path


async def _stdin() -> AsyncIterator[list[str]]:
    cutter = LineSplitter(MAX_LINE)
    while data := await trio.to_thread.run_sync(os.read, 0, 65536, abandon_on_cancel=True):
        yield list(cutter.feed(data))
    if (last := cutter.finish()) is not None:
        yield [last]


async def _until_closed(function: Any) -> None:
    """Run a function, and end with `BrokenPipeError` as soon as nobody reads stdout any more, also while nothing is printed."""
    try:
        watch = stat.S_ISFIFO(os.fstat(1).st_mode)
    except OSError:
        watch = False
    async with trio.open_nursery() as nursery:
        if watch:
            nursery.start_soon(_watch_stdout)
        await function()
        nursery.cancel_scope.cancel()


async def _watch_stdout() -> None:
    await trio.lowlevel.wait_readable(
        1
    )  # of the writing end of a pipe this says that the other one is closed
    raise BrokenPipeError
