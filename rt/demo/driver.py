"""The driver's station of `rt demo`: moves the sticks, counts updates and shows the devices."""

import itertools
import math
import secrets
from typing import Any

import trio

from rt.client import device_table
from rt.config import Config
from rt.protocol.datagrams import DeviceUpdate, Stamp
from rt.remote import Handler, route
from rt.root.root import Robot

STICK_INTERVAL = 0.02
"""Interval between gamepad datagrams (s)."""
REFRESH_INTERVAL = 0.1
"""Interval between updates of the table (s)."""
CONNECT_TIMEOUT = 5.0
"""Time limit for all emulated devices to connect before the drive starts without them (s)."""


class Driver(Handler):
    """The driver's station of the demo, and the receiver of device updates.

    Args:
        console: The console for the table.
        config: The options of the robot.
        seconds: Duration of the drive (s); None to drive until cancelled.

    Attributes:
        ready: Whether the robot started.
        moved: Whether a motor had a duty cycle other than 0.
        driven: Actual duration of the drive (s).
        gamepads: Gamepad datagrams sent.
    """

    def __init__(self, console: Any, config: Config, seconds: float | None) -> None:
        self.ready = self.moved = False
        self.driven = 0.0
        self.gamepads = self._updates = self._calls = self._restarts = 0
        self._console = console
        self._names = {int(uid): name for name, uid in config.dev_name.items()}
        self._seconds = math.inf if seconds is None else seconds
        self._sticks = (0.0, 0.0)
        self._started = math.inf
        self._complete = trio.Event()

    @route(inline=True)
    def update(self, update: DeviceUpdate) -> None:
        """Count an update."""
        self._updates += 1
        if len(update) >= len(self._names):
            self._complete.set()
        self.moved = self.moved or any(values.get("duty_cycle") for values in update.values())

    def summary(self) -> str:
        """Return the counters as one line."""
        return (
            f"{_plural(self._updates, 'update')} received,"
            f" {_plural(self.gamepads, 'gamepad datagram')} sent,"
            f" {_plural(self._calls, 'call')} made, {_plural(self._restarts, 'restart')}"
        )

    async def drive(self, running: Robot) -> None:
        """Drive the robot in teleop for the given time, then make it idle."""
        self.ready = True
        app = running.app
        client = await app.make_client()
        await app.make_update_service(self)
        store = app.make_buffer_manager()
        with trio.move_on_after(CONNECT_TIMEOUT):
            await self._complete.wait()
        # Runs as long as the robot: a driver that stops earlier would cause a log event.
        await app.nursery.start(self._move_sticks, app)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._show, store, running)
            await self._call(client, "teleop")
            # The sticks rest until here, because rt requires that when teleop begins.
            start = self._started = trio.current_time()
            try:
                await trio.sleep(self._seconds)
            finally:
                self.driven = trio.current_time() - start
                statuses = running.supervisor.status()
                self._restarts = sum(status.restarts for status in statuses)
            nursery.cancel_scope.cancel()
        await self._call(client, "idle")

    async def _call(self, client: Any, method: str) -> None:
        await client.issue_call(method, address="executor-service", timeout=15.0)
        self._calls += 1

    async def _move_sticks(
        self, app: Any, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Send gamepads until cancelled; report started after the first, with sticks at rest."""
        control = await app.make_control_client()
        station = secrets.token_hex(8)
        for number in itertools.count():
            now = trio.current_time()
            phase = max(0.0, now - self._started)
            sticks = {
                "lx": 0.4 * math.sin(phase),
                "ly": 0.8 * math.sin(0.7 * phase),
                "rx": 0.0,
                "ry": 0.0,
                "btn": 0,
            }
            self._sticks = (sticks["lx"], sticks["ly"])
            stamp = Stamp(station, number, now)
            await control.issue_call("update_gamepads", {"0": sticks}, stamp, notification=True)
            self.gamepads += 1
            if number == 0:
                task_status.started()
            await trio.sleep(STICK_INTERVAL)

    async def _show(self, store: Any, running: Robot) -> None:
        from rich.live import Live

        def draw() -> Any:
            turn, forward = self._sticks
            title = (
                f"rt demo: teleop, {self._updates} updates received; Ctrl-C ends it\n"
                f"gamepad: forward {forward:+.2f}  turn {turn:+.2f}"
            )
            return device_table.device_table(
                device_table.device_rows(store, self._names), title, width=self._console.width
            )

        def is_ready() -> bool:
            return all(status.ready or status.on_demand for status in running.supervisor.status())

        last = draw()
        if not self._console.is_terminal:
            try:
                while True:
                    await trio.sleep(REFRESH_INTERVAL)
                    last = draw() if is_ready() else last
            finally:
                self._console.print(last)
        with Live(last, console=self._console, auto_refresh=False) as screen:
            while True:
                await trio.sleep(REFRESH_INTERVAL)
                # While the robot stops, the table keeps its state from the drive.
                if is_ready():
                    screen.update(draw(), refresh=True)


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
