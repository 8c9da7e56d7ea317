"""Follows the log of a robot: prints what it says, waits for it when it is gone, and fills the gap when it is back.

The rule of this module: nothing is told twice, and whatever was missed is said, on stderr.
"""

import math
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import trio

from rt.errors import InstanceAbsentError, RuntimeBaseException
from rt.instance import Instance
from rt.logs.feed import ConnectionChange, LogFeed
from rt.logs.past import BATCH, clock_moved_since, read_file
from rt.logs.view import LogView, event_of, moment_of
from rt.protocol.logevent import GapCounter
from rt.terminal.output import Output

ANSWER_TIMEOUT = 5.0
"""How long a robot at an address may take to answer (s)."""
SETTLE_TIME = 0.2
"""How long the newest lines may take into the file (s), before the file is read up to where the live log goes on."""
RECENT = 10_000
"""So many lines from the end of the file may come live as well: more than wait anywhere. Their stamps do not tell, clocks are set."""
_CHUNK = 4096  # bytes that a pipe which is writable takes without waiting


class Printer:
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

    async def lines(self, batches: AsyncIterator[Sequence[bytes | str]]) -> None:
        """Print the events of lines."""
        async for lines in batches:
            await self.events(event_of(line) for line in lines if line.strip())

    async def past(self, path: Path, *, older: bool = True) -> AbstractContextManager[None]:
        """A block within which the events of a log are printed, of which those before the clock was set are older than they say."""
        return self.view.clock_offset(
            await clock_moved_since(path, older=older) if self.view.dated else 0.0
        )

    async def file(self, path: Path, *, older: bool, unfinished: bool = False) -> None:
        """Print what stands in a log; as `read_file`."""
        with await self.past(path, older=older):
            await self.lines(read_file(path, older=older, unfinished=unfinished))


class Follower:
    """Prints what a robot says from now on, and what it said while nobody was connected.

    Args:
        printer: Where events go.
        address: Where the robot publishes.
        instance: The robot, if it is one of this computer.
        file: Its log file.
        wants_past: Whether what the file has is printed first.
        options: ZMQ options of the subscription, as a station's key.
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
        self._turn = trio.Lock()
        self._known: set[tuple[str, ...]] = set()
        self._last = self._lost = datetime.now(UTC)
        self._early: set[tuple[str, ...]] = set()
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
                    if change is ConnectionChange.CONNECTED:
                        first.deadline = math.inf
                    await self._handle(change)
            if first.cancelled_caught:
                raise InstanceAbsentError(
                    f"{self._name} does not answer: is {self._address} right, and is it reachable?"
                )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._print_live)
                while True:
                    await self._handle(await self._feed.change())

    async def _print_live(self) -> None:
        while True:
            events = [await self._feed.event()]
            async with self._turn:
                await self._print(events)

    async def _print(self, events: list[dict[str, Any]]) -> int:
        """Print events that came, and with them those that have come too by now; how many that were."""
        while len(events) < BATCH:
            try:
                events.append(self._feed.event_nowait())
            except trio.WouldBlock:
                break
        missed = sum(self._gaps.count(event) for event in events)
        if moments := [moment for event in events if (moment := moment_of(event))]:
            self._last = max(moments)
        if not self._connected:  # of a robot that is back, before that was noticed
            self._early.update(map(_key, events))
        count = len(events)
        await self._printer.events(
            event for event in events if not self._known or _key(event) not in self._known
        )
        if missed:
            click.echo(
                f"rt: {missed} lines were missed: they came faster than they were read", err=True
            )
        return count

    async def _handle(self, change: ConnectionChange) -> None:
        if change is ConnectionChange.CONNECTED:
            again = self._connected_before
            self._connected = self._connected_before = True
            async with self._turn:
                self._gaps.restart()
                if again:
                    click.echo(f"rt: {self._name} is back", err=True)
                await self._print_past(again=again)
        elif change is ConnectionChange.LOST and self._connected:
            async with self._turn:
                while await self._print([]):
                    pass
                self._connected = False
                self._lost = self._last
                click.echo(
                    f"rt: {self._name} is gone; this goes on when it is back, Ctrl-C ends it",
                    err=True,
                )
        elif change is ConnectionChange.DENIED:
            raise RuntimeBaseException(
                f"{self._name} does not let this command in: `rt logs --robot tcp://HOST:PORT --key FILE` shows it a key"
            )
        elif change is ConnectionChange.REFUSED and not self._connected_before:
            if self._instance is not None:
                self._instance.require()  # a robot that is just starting is waited for
                await trio.lowlevel.checkpoint()
                return
            raise InstanceAbsentError(
                f"no robot answers at {self._address}: start one there with `rt run`, and let others in with its option bind"
            )

    async def _print_past(self, *, again: bool) -> None:
        """Print what the file has from before the connection stood; what comes live as well is printed once."""
        if self._file is None or not (again or self._with_history):
            return
        since = self._lost + timedelta(microseconds=1) if again else None
        recent: deque[tuple[str, ...]] = deque(maxlen=RECENT)
        await trio.sleep(SETTLE_TIME)
        # What was missed since it was gone is after --since in any case.
        with nullcontext() if again else await self._printer.past(self._file):
            async for lines in read_file(self._file):
                events = [event_of(line) for line in lines]
                if since is not None:
                    events = [
                        event
                        for event in events
                        if (moment := moment_of(event)) and moment >= since
                    ]
                    events = [event for event in events if _key(event) not in self._early]
                recent.extend(map(_key, events))
                await self._printer.events(events)
        self._known = set(recent)
        self._early.clear()


def _key(event: dict[str, Any]) -> tuple[str, ...]:
    return str(event.get("timestamp")), str(event.get("app")), str(event.get("event"))
