"""A follower of a robot's log, for `rt logs`.

It prints live events and waits while the robot is disconnected; then it prints the events of the
gap from the log file.

Invariant: no event is printed twice, and missed events are reported on stderr.
"""

from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import trio

from rt.errors import InstanceAbsentError, RuntimeBaseException
from rt.instance import Instance
from rt.logs.feed import ConnectionChange, LogFeed
from rt.logs.read import BATCH, clock_moved_since, read_batches
from rt.logs.view import LogView, event_of, moment_of
from rt.protocol.logevent import GapCounter
from rt.terminal.output import Output

ANSWER_TIMEOUT = 5.0
"""Maximum time that a robot takes to answer (s)."""
SETTLE_TIME = 0.2
"""Time for the newest lines to reach the file (s), before it is read up to the live log."""
RECENT = 10_000
"""Lines at the end of the file that may also arrive live, more than any queue holds.

Time stamps cannot tell them apart, because the clock may be set.
"""
_CHUNK = 4096  # bytes that a writable pipe accepts without blocking


class Printer:
    """Prints the wanted events, in chunks if there are many."""

    def __init__(self, view: LogView) -> None:
        self.view = view
        self._output = Output()

    async def events(self, events: Iterable[dict[str, Any]]) -> None:
        """Print events.

        Raises:
            BrokenPipeError: The reader of the output has closed it.
        """
        chunk: list[str] = []
        size = 0
        for event in events:
            if not self.view.wants(event):
                continue
            text = self.view.show(event)
            # Upper bound of its UTF-8 length, except for rare characters.
            length = len(text) * 3 + 1
            if chunk and size + length > _CHUNK:
                await self._output.line("\n".join(chunk))
                chunk, size = [], 0
            chunk.append(text)
            size += length
        if chunk:
            await self._output.line("\n".join(chunk))

    async def lines(self, batches: AsyncIterator[Sequence[bytes | str]]) -> None:
        """Print the events of lines."""
        async for lines in batches:
            await self.events(event_of(line) for line in lines if line.strip())

    async def history(self, path: Path, *, older: bool = True) -> AbstractContextManager[None]:
        """Return a block for printing a log in which the clock may have been set."""
        return self.view.clock_offset(
            await clock_moved_since(path, older=older) if self.view.dated else 0.0
        )

    async def file(self, path: Path, *, older: bool, unfinished: bool = False) -> None:
        """Print the events of a log; the arguments are those of `read`."""
        with await self.history(path, older=older):
            await self.lines(read_batches(path, older=older, unfinished=unfinished))


class Follower:
    """Prints the live events of a robot, and those logged while it was disconnected.

    Args:
        printer: Prints the events.
        address: Address at which the robot publishes its log.
        instance: The robot, if it runs on this computer.
        file: Its log file.
        with_history: Whether to print the events in the file first.
        options: ZMQ options of the subscription, such as a station's key.
    """

    def __init__(
        self,
        printer: Printer,
        address: str,
        *,
        instance: Instance | None = None,
        file: Path | None = None,
        with_history: bool = False,
        options: Mapping[int, int | bytes] | None = None,
    ) -> None:
        self._printer = printer
        self._address = address
        self._instance = instance
        self._file = file
        self._with_history = with_history
        self._feed = LogFeed(address, printer.view.levels, options=options)
        self._gaps = GapCounter()
        self._printing = trio.Lock()
        self._last = datetime.now(UTC)
        self._in_file: set[tuple[str, ...]] = set()
        self._early: set[tuple[str, ...]] | None = None  # printed since the connection was lost
        self._name = f"the robot {instance.name!r}" if instance else f"the robot at {address}"

    async def run(self) -> None:
        """Print until cancelled.

        Raises:
            InstanceAbsentError: No robot answers at the start.
            RuntimeBaseException: The robot does not admit this command.
        """
        with self._feed:
            with trio.move_on_after(ANSWER_TIMEOUT) as first:
                await self._until(ConnectionChange.CONNECTED, first=True)
            if first.cancelled_caught:
                raise InstanceAbsentError(
                    f"{self._name} does not answer at {self._address}; check the address and the"
                    " network"
                )
            if self._with_history:
                await self._print_file()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._print_live)
                while True:
                    await self._until(ConnectionChange.LOST)
                    async with self._printing:
                        while await self._print([]):
                            pass
                        lost = self._last
                        early = self._early = set()
                        self._gaps.restart()
                        click.echo(
                            f"rt: disconnected from {self._name}; waiting for it to return,"
                            " Ctrl-C stops",
                            err=True,
                        )
                    await self._until(ConnectionChange.CONNECTED)
                    async with self._printing:
                        click.echo(f"rt: connected to {self._name} again", err=True)
                        self._early = None
                        await self._print_file(lost + timedelta(microseconds=1), early)

    async def _until(self, wanted: ConnectionChange, *, first: bool = False) -> None:
        """Wait for a change of the connection.

        Args:
            wanted: The change.
            first: Whether the robot must exist, because it was not connected before.
        """
        while (change := await self._feed.change()) is not wanted:
            if change is ConnectionChange.DENIED:
                raise RuntimeBaseException(
                    f"{self._name} does not admit this command; use a key with"
                    " `rt logs --robot tcp://HOST:PORT --key FILE`"
                )
            if first and change is ConnectionChange.REFUSED:
                if self._instance is None:
                    raise InstanceAbsentError(
                        f"no robot answers at {self._address}; start one there with `rt run`, and"
                        " open it to the network with its option bind"
                    )
                self._instance.require()  # wait for a robot that is starting

    async def _print_live(self) -> None:
        while True:
            events = [await self._feed.event()]
            async with self._printing:
                await self._print(events)

    async def _print(self, events: list[dict[str, Any]]) -> int:
        """Print events together with those received since; return how many were printed."""
        while len(events) < BATCH:
            try:
                events.append(self._feed.event_nowait())
            except trio.WouldBlock:
                break
        missed = sum(self._gaps.count(event) for event in events)
        if moments := [moment for event in events if (moment := moment_of(event))]:
            self._last = max(moments)
        if self._early is not None:
            self._early.update(map(_key, events))
        count = len(events)
        await self._printer.events(
            event for event in events if not self._in_file or _key(event) not in self._in_file
        )
        if missed:
            click.echo(
                f"rt: {missed} lines missed because they came faster than they were read", err=True
            )
        return count

    async def _print_file(
        self, since: datetime | None = None, live: Collection[tuple[str, ...]] = ()
    ) -> None:
        """Print the events in the file.

        Args:
            since: Time of the oldest event; None for that of the view.
            live: Events that were printed already.
        """
        if self._file is None:
            return
        recent: deque[tuple[str, ...]] = deque(maxlen=RECENT)
        await trio.sleep(SETTLE_TIME)
        # Events of a gap are newer than the oldest event of the view in any case.
        with nullcontext() if since else await self._printer.history(self._file):
            async for lines in read_batches(self._file):
                events = [event_of(line) for line in lines]
                if since is not None:
                    events = [
                        event
                        for event in events
                        if (moment := moment_of(event))
                        and moment >= since
                        and _key(event) not in live
                    ]
                recent.extend(map(_key, events))
                await self._printer.events(events)
        self._in_file = set(recent)


def _key(event: dict[str, Any]) -> tuple[str, ...]:
    return str(event.get("timestamp")), str(event.get("app")), str(event.get("event"))
