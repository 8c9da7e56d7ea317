"""`rt logs`: what the running robot says, what it has said, or what stands in a file.

The rules of this module: a robot that ends is waited for and followed when it is back, also through what it said before the
connection stood; and whatever does not come is said, on stderr.
"""

import itertools
import math
import os
import stat
import sys
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import trio

from rt import log
from rt.cli.device import Output, run_until_signal
from rt.cli.log_view import LogView, event_of, moment_of, parse_since
from rt.cli.options import click_options
from rt.config import Loaded
from rt.errors import ConfigError, InstanceAbsentError, RuntimeBaseException
from rt.instance import Instance, logfile
from rt.instance.state import log_path
from rt.protocol.logevent import LEVELS, Numbers
from rt.remote.address import get_connection
from rt.remote.logfeed import Change, LogFeed

ANSWER_TIMEOUT = 5.0
"""How long a robot at an address may take to answer (s)."""
SETTLE_TIME = 0.2
"""How long the newest lines may take into the file (s), before the file is read up to where the live log goes on."""
RECENT = timedelta(seconds=10)
"""What is older than this when the connection stands cannot come live any more."""
_BATCH = 1000  # lines of a file that are read at once
_CHUNK = 4096  # bytes that a pipe which is writable takes without waiting

HELP = """\
Watch what the running robot says, until Ctrl-C; a robot that is restarted is followed.

SOURCE is the address of another computer's robot, a file, or - for stdin. Without one it is the running robot of this computer.

\b
rt logs
rt logs --level warning --app executor
rt logs --since 10m             also what was said in the last ten minutes
rt logs --since 9:30 --no-follow
rt logs tcp://robot.local:6001
rt logs old.log --json
"""


def _since(_context: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else parse_since(value, datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(help=HELP)
@click.argument("source", required=False, metavar="[SOURCE]")
@click.option("--level", type=click.Choice(list(LEVELS)), default="debug", help="Least severity. [all that there is]")
@click.option("--app", "apps", multiple=True, metavar="NAME", help="Only of this process, as executor (repeatable).")
@click.option(
    "--since", callback=_since, metavar="WHEN", help="Also what was said since: 30s, 10m, 2h or 1d ago, 14:05, a date."
)
@click.option("--json", "as_json", is_flag=True, help="Print each event as a JSON object.")
@click.option("--no-follow", "past", is_flag=True, help="Print what the robot's file has, and end.")
@click_options("instance")
def command(  # noqa: PLR0917 - click passes them by name
    loaded: Loaded,
    source: str | None,
    level: str,
    apps: tuple[str, ...],
    since: datetime | None,
    as_json: bool,
    past: bool,
) -> None:
    """Watch what the running robot says, or what it has said."""
    log.configure(level="error", fmt="pretty", stream=sys.stderr)
    colors = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    printer = _Printer(LogView(level=level, apps=apps, since=since, as_json=as_json, colors=colors))
    config = loaded.config

    async def show() -> None:
        if source is None:
            instance = Instance.locate(config.instance)
            file = log_path(config.log_file, config.instance)
            address = get_connection(config.resolved(instance.directory).log_frontend)
            await _show_robot(printer, instance, address, file, wants_past=since is not None, only_past=past)
        elif source == "-":
            await printer.lines(_stdin())
        elif "://" in source:
            await _Follower(printer, source).run()
        else:
            await printer.lines(_file([_readable(source)], unfinished=True))

    async def main() -> None:
        await run_until_signal(lambda: _until_closed(show))

    trio.run(main)


async def _show_robot(
    printer: "_Printer", instance: Instance, address: str, file: Path | None, *, wants_past: bool, only_past: bool
) -> None:
    if only_past or (wants_past and instance.holder() is None):
        paths = logfile.paths(file) if file is not None else []
        if not paths:
            raise ConfigError(f"there is no log file of {instance.name!r}: {file or 'log_file is empty'}")
        await printer.lines(_file(paths))
        if not only_past:
            click.echo(f"rt: no robot runs as {instance.name!r}: this was its file {file}", err=True)
        return
    instance.require()
    await _Follower(printer, address, instance=instance, file=file, wants_past=wants_past).run()


class _Printer:
    """Prints the events that are wanted, many at once where many come."""

    def __init__(self, view: LogView) -> None:
        self.view = view
        self._output = Output()

    async def events(self, events: Iterable[dict[str, Any]]) -> None:
        """Print events.

        Raises:
            BrokenPipeError: Nobody reads any more.
        """
        chunk: list[str] = []
        size = 0
        for event in events:
            if not self.view.wants(event):
                continue
            text = self.view.show(event)
            length = len(text) * 3 + 1  # more than it has in UTF-8 but for rare characters
            if chunk and size + length > _CHUNK:
                await self._output.line("\n".join(chunk))
                chunk, size = [], 0
            chunk.append(text)
            size += length
        if chunk:
            await self._output.line("\n".join(chunk))

    async def lines(self, batches: AsyncIterator[list[bytes]]) -> None:
        """Print the events of lines."""
        async for lines in batches:
            await self.events(event_of(line) for line in lines if line.strip())


class _Follower:
    """Prints what a robot says from now on, and what it said while nobody was connected.

    Args:
        printer: Where events go.
        address: Where the robot publishes.
        instance: The robot, if it is one of this computer.
        file: Its log file.
        wants_past: Whether what the file has is printed first.
    """

    def __init__(
        self,
        printer: _Printer,
        address: str,
        *,
        instance: Instance | None = None,
        file: Path | None = None,
        wants_past: bool = False,
    ) -> None:
        self._printer = printer
        self._address = address
        self._instance = instance
        self._file = file
        self._wants_past = wants_past
        self._feed = LogFeed(address, printer.view.levels)
        self._numbers = Numbers()
        self._turn = trio.Lock()
        self._known: set[tuple[Any, ...]] = set()
        self._last = self._lost = datetime.now(UTC)
        self._early: set[tuple[Any, ...]] = set()
        self._connected = False
        self._connected_before = False
        self._name = f"the robot {instance.name!r}" if instance else f"the robot at {address}"

    async def run(self) -> None:
        """Print until cancelled.

        Raises:
            InstanceAbsentError: There is no robot, at the start.
            RuntimeBaseException: It does not let us in.
        """
        with self._feed:
            with trio.move_on_after(ANSWER_TIMEOUT) as first:
                while not self._connected:
                    change = await self._feed.change()
                    if change is Change.CONNECTED:
                        first.deadline = math.inf
                    await self._heed(change)
            if first.cancelled_caught:
                raise InstanceAbsentError(
                    f"{self._name} does not answer: is {self._address} right, and is it reachable?"
                )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._print_live)
                while True:
                    await self._heed(await self._feed.change())

    async def _print_live(self) -> None:
        while True:
            events = [await self._feed.event()]
            async with self._turn:
                await self._print(events)

    async def _print(self, events: list[dict[str, Any]]) -> int:
        """Print events that came, and with them those that have come too by now; how many that were."""
        while len(events) < _BATCH:
            try:
                events.append(self._feed.event_nowait())
            except trio.WouldBlock:
                break
        missed = sum(self._numbers.take(event) for event in events)
        if moments := [moment for event in events if (moment := moment_of(event))]:
            self._last = max(moments)
        if not self._connected:  # of a robot that is back, before that was noticed
            self._early.update(map(_key, events))
        count = len(events)
        await self._printer.events(event for event in events if not self._known or _key(event) not in self._known)
        if missed:
            click.echo(f"rt: {missed} lines were missed: they came faster than they were read", err=True)
        return count

    async def _heed(self, change: Change) -> None:
        if change is Change.CONNECTED:
            again = self._connected_before
            self._connected = self._connected_before = True
            async with self._turn:
                self._numbers.restart()
                if again:
                    click.echo(f"rt: {self._name} is back", err=True)
                await self._print_past(again=again)
        elif change is Change.LOST and self._connected:
            async with self._turn:
                while await self._print([]):
                    pass
                self._connected = False
                self._lost = self._last
                click.echo(f"rt: {self._name} is gone; this goes on when it is back, Ctrl-C ends it", err=True)
        elif change is Change.DENIED:
            raise RuntimeBaseException(f"{self._name} does not let this command in: it asks for another key")
        elif change is Change.REFUSED and not self._connected_before:
            if self._instance is not None:
                self._instance.require()  # a robot that is just starting is waited for
                await trio.lowlevel.checkpoint()
                return
            raise InstanceAbsentError(
                f"no robot answers at {self._address}: start one there with `rt run`, and let others in with its option bind"
            )

    async def _print_past(self, *, again: bool) -> None:
        """Print what the file has from before the connection stood; what comes live as well is printed once."""
        if self._file is None or not (again or self._wants_past):
            return
        since = self._lost + timedelta(microseconds=1) if again else None
        recent = datetime.now(UTC) - RECENT
        await trio.sleep(SETTLE_TIME)
        self._known.clear()
        async for lines in _file(logfile.paths(self._file)):
            events = [event_of(line) for line in lines]
            if since is not None:
                events = [event for event in events if (moment := moment_of(event)) and moment >= since]
                events = [event for event in events if _key(event) not in self._early]
            self._known.update(_key(event) for event in events if (moment := moment_of(event)) and moment >= recent)
            await self._printer.events(events)
        self._early.clear()


def _readable(source: str) -> Path:
    path = Path(source)
    try:
        path.stat()
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror}", file=source) from None
    if path.is_dir() or not os.access(path, os.R_OK):
        raise ConfigError(f"{source} cannot be read: it is a directory, or not for us", file=source)
    return path


def _key(event: dict[str, Any]) -> tuple[Any, ...]:
    return event.get("timestamp"), event.get("app"), event.get("event")


async def _file(paths: Iterable[Path], *, unfinished: bool = False) -> AsyncIterator[list[bytes]]:
    lines = logfile.read(paths, unfinished=unfinished)

    def some() -> list[bytes]:
        return list(itertools.islice(lines, _BATCH))

    while batch := await trio.to_thread.run_sync(some, abandon_on_cancel=True):
        yield batch


async def _stdin() -> AsyncIterator[list[bytes]]:
    rest = b""
    while data := await trio.to_thread.run_sync(os.read, 0, 65536, abandon_on_cancel=True):
        *lines, rest = (rest + data).split(b"\n")
        yield lines
    yield [rest]


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
    await trio.lowlevel.wait_readable(1)  # of the writing end of a pipe this says that the other one is closed
    raise BrokenPipeError
