"""The `rt ping [UID...]` command: round-trip times of devices, as ping(8) reports those of hosts.

The device process measures a round trip from handing over the request for sending to receiving the
answer. The time of this command's own call is not included.
"""

import math

import click
import trio

from rt.client import completers, connection
from rt.client.device import UID_HELP, Device, Devices
from rt.client.option_flags import click_options, timeout_option
from rt.config import Loaded
from rt.errors import RemoteCallError
from rt.process.signals import run_until_signal
from rt.terminal.number import Number
from rt.terminal.output import Output

ANSWER_MARGIN = 2.0
"""Extra time for the device service to answer after its device (s)."""

HELP = f"""\
Measure how fast devices answer. Sends heartbeat requests to the given devices, or to all, until
Ctrl-C, and then prints statistics of each device. The exit status is 1 if a device never answered.

{UID_HELP}

\b
rt ping
rt ping left_motor right_motor --count 10
rt ping left_motor --interval 0.1 --count 100 --timeout 0.5
"""


@click.command(help=HELP)
@click.argument("uids", nargs=-1, metavar="[UID]...", shell_complete=completers.devices)
@click.option(
    "--count",
    type=Number(1, whole=True),
    metavar="NUMBER",
    help="Exit after this number of requests to each device.",
)
@click.option(
    "--interval",
    type=Number(0.01),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Interval between requests to a device, at least 0.01. A request waits until the previous"
    " one is answered or has timed out.",
)
@timeout_option(1.0, "Time to wait for an answer, at most 10.", 10)
@click_options("instance")
def command(
    loaded: Loaded, uids: tuple[str, ...], count: int | None, interval: float, timeout: float
) -> int:
    """Measure how fast devices answer."""
    trips: list[RoundTrips] = []

    async def show(robot: connection.Connection) -> None:
        devices = await Devices.of(robot)
        found = await devices.find(uids)
        trips.extend(RoundTrips(device) for device in found)
        output = Output()

        async def ask_all() -> None:
            async with trio.open_nursery() as nursery:
                for each in trips:
                    nursery.start_soon(each.ask, devices, output, count, interval, timeout)

        await run_until_signal(ask_all)

    try:
        connection.run(loaded.config, show, access=connection.Access.BUFFERS)
    finally:
        for each in trips:
            click.echo(f"\n{each.summary()}")
    return 0 if all(each.answers for each in trips) else 1


class RoundTrips:
    """The round trips to one device.

    Attributes:
        requests: Number of requests, without a cancelled one.
        answers: Number of answers in time.
    """

    def __init__(self, device: Device) -> None:
        self.requests = 0
        self.answers = 0
        self._device = device
        self._least = math.inf
        self._most = 0.0
        self._sum = 0.0
        self._squares = 0.0

    async def ask(
        self,
        devices: Devices,
        output: Output,
        count: int | None,
        interval: float,
        timeout: float,  # noqa: ASYNC109 - the value of a flag
    ) -> None:
        """Send requests at absolute deadlines, ``count`` times or until cancelled."""
        name = self._device.name
        deadline = trio.current_time()
        while count is None or self.requests < count:
            await trio.sleep_until(deadline)
            try:
                seconds = await devices.call(
                    "heartbeat",
                    str(self._device.uid),
                    None,
                    timeout,
                    True,
                    timeout=timeout + ANSWER_MARGIN,
                )
            except RemoteCallError as error:
                devices.require()
                self.add(None)
                await output.line(f"{name}: seq={self.requests} no answer: {error}")
            else:
                self.add(seconds)
                await output.line(f"{name}: seq={self.requests} time={seconds * 1000:.2f} ms")
            deadline = max(deadline + interval, trio.current_time())

    def add(self, seconds: float | None) -> None:
        """Add a round trip (s), or None for one without an answer."""
        self.requests += 1
        if seconds is not None:
            self.answers += 1
            self._least = min(self._least, seconds)
            self._most = max(self._most, seconds)
            self._sum += seconds
            self._squares += seconds * seconds

    def summary(self) -> str:
        """Return lines with requests, answers, loss, and minimum, mean, maximum, deviation (ms)."""
        device = self._device
        title = (
            device.peripheral.name
            if device.name == str(device.uid)
            else f"{device.peripheral.name} {device.uid}"
        )
        loss = 100 * (self.requests - self.answers) / self.requests if self.requests else 0.0
        lines = [
            f"--- {device.name} ({title}) ---",
            f"{self.requests} requests, {self.answers} answers, {loss:.4g}% loss",
        ]
        if self.answers:
            mean = self._sum / self.answers
            deviation = math.sqrt(max(self._squares / self.answers - mean * mean, 0.0))
            found = (self._least, mean, self._most, deviation)
            times = "/".join(f"{each * 1000:.2f}" for each in found)
            lines.append(f"min/avg/max/mdev = {times} ms")
        return "\n".join(lines)
