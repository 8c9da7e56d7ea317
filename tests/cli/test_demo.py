"""The options and the driver's station of the demo."""

from types import SimpleNamespace
from typing import Any

import trio
from rich.console import Console

from rt.buffer import BufferStore
from rt.catalog import Catalog
from rt.cli import demo
from rt.config import Config, load
from rt.demo.driver import Driver


class Client:
    """A client that records calls and answers them after a delay (s)."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.calls: list[str] = []
        self.arguments: list[tuple[Any, ...]] = []
        self.answered: list[float] = []
        self._seconds = seconds

    async def issue_call(self, method: str, *arguments: Any, **_: Any) -> None:
        """Record a call and answer it after the delay."""
        self.calls.append(method)
        self.arguments.append(arguments)
        await trio.sleep(self._seconds)
        self.answered.append(trio.current_time())


async def test_gamepads_are_sent_until_robot_ends(autojump_clock: trio.testing.MockClock) -> None:
    robot, station = Client(2.0), Client()

    async def give(client: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return client

    async with trio.open_nursery() as nursery:
        app = SimpleNamespace(
            nursery=nursery,
            make_client=lambda: give(robot),
            make_control_client=lambda: give(station),
            make_update_service=give,
            make_buffer_manager=lambda: BufferStore(Catalog({}), "rt-test-demo.", shared=False),
        )
        running: Any = SimpleNamespace(app=app, supervisor=SimpleNamespace(status=list))
        driver = Driver(Console(quiet=True), Config(), 1.0)
        await driver.drive(running)
        assert robot.calls == ["teleop", "idle"]
        # A stick that is deflected when teleop begins would move nothing.
        before = [at for at, when in enumerate(station.answered) if when <= robot.answered[0]]
        assert len(before) > 50
        assert {station.arguments[at][0]["0"]["ly"] for at in before} == {0.0}
        assert any(update["0"]["ly"] > 0.3 for update, _ in station.arguments)
        driven = driver.gamepads
        await trio.sleep(1)
        assert driver.gamepads > driven
        nursery.cancel_scope.cancel()
    assert set(station.calls) == {"update_gamepads"}


def test_demo_uses_no_real_devices() -> None:
    config = demo._configured(load(env={}))
    assert config.dev_ports == config.dev_usb_ids == ()
    assert set(config.dev_name) == set(demo.DEVICES)
