"""Tests of the root with simple children: each stop has one reason, and errors propagate."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio
from support.robot import free_ports
from support.supervised import WELL_BEHAVED, assert_no_children, program

from rt import config
from rt.app import Application
from rt.brake.connection import Connection
from rt.brake.heartbeat import Heartbeat
from rt.config import Config
from rt.errors import RemoteCallError
from rt.executor.pool import EXECUTOR, STANDBY
from rt.instance import Instance
from rt.logs import place
from rt.logs.hub import LogHub
from rt.process import signals
from rt.root import lifecycle, root
from rt.root.lifecycle import run_robot
from rt.root.root import Robot
from rt.supervisor.spec import ChildSpec

NEVER_READY = "time.sleep(1000)"


@pytest.fixture(autouse=True)
def no_child_remains() -> Iterator[None]:
    yield
    assert_no_children()


@pytest.fixture
def instance() -> Iterator[Instance]:
    # The paths of pytest are too long for sockets.
    with tempfile.TemporaryDirectory(prefix="rt-") as directory:
        found = Instance.locate("test", {"XDG_RUNTIME_DIR": directory})
        with found.acquire():
            yield found


@pytest.fixture
def options(tmp_path: Path, instance: Instance) -> Config:
    loaded = config.load(env={}, cwd=tmp_path).config
    return msgspec.structs.replace(loaded, port_base=free_ports(), log_file="").resolved(
        instance.directory
    )


def use_children(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    specs = [
        ChildSpec(name="child", command=program(body)),
        ChildSpec(name=EXECUTOR, command=program(WELL_BEHAVED)),
        ChildSpec(name=STANDBY, command=program(WELL_BEHAVED), autostart=False),
    ]
    monkeypatch.setattr(root, "child_specs", lambda *_, **__: specs)


def find(logs: list[Any], event: str) -> list[Any]:
    return [entry for entry in logs if entry["event"] == event]


async def test_error_of_the_robot_task_stops_the_children_and_propagates(
    options: Config, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_robot: Robot) -> None:
        raise ZeroDivisionError("on purpose")

    use_children(monkeypatch, WELL_BEHAVED)
    raised = pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True)
    with trio.fail_after(30), structlog.testing.capture_logs() as logs, raised:
        await run_robot(options, instance, robot_task=fail)
    (stop,) = find(logs, "stopping all children")
    assert stop["reason"] == "robot failed: ZeroDivisionError: on purpose"
    (event,) = find(logs, "robot failed")
    assert event["log_level"] == "critical"
    assert event["exc_info"].subgroup(ZeroDivisionError)


async def test_error_of_a_broker_task_stops_the_children_and_propagates(
    options: Config, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(robot: Robot) -> None:
        robot.app.nursery.start_soon(fail_later)
        await trio.sleep_forever()

    async def fail_later() -> None:
        raise ZeroDivisionError("on purpose")

    use_children(monkeypatch, WELL_BEHAVED)
    raised = pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True)
    with trio.fail_after(30), structlog.testing.capture_logs() as logs, raised:
        await run_robot(options, instance, robot_task=fail)
    assert [entry["reason"] for entry in find(logs, "stopping all children")] == [
        "robot failed: ZeroDivisionError: on purpose"
    ]
    assert len(find(logs, "robot failed")) == 1


async def test_error_of_the_log_hub_stops_the_robot_and_is_logged_once(
    options: Config, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_hub = Application.make_log_forwarder
    ready = trio.Event()

    async def failing(app: Application) -> LogHub:
        async def fail_later() -> None:
            await ready.wait()
            raise ZeroDivisionError("on purpose")

        app.nursery.start_soon(fail_later)
        return await open_hub(app)

    async def stay(_robot: Robot) -> None:
        ready.set()
        await trio.sleep_forever()

    use_children(monkeypatch, WELL_BEHAVED)
    monkeypatch.setattr(Application, "make_log_forwarder", failing)
    raised = pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True)
    with trio.fail_after(30), structlog.testing.capture_logs() as logs, raised:
        await run_robot(options, instance, robot_task=stay)
    assert len(find(logs, "stopping all children")) == 1
    (event,) = find(logs, "robot failed")
    assert event["exc_info"].subgroup(ZeroDivisionError)


async def test_robot_that_is_stopped_during_its_start_is_never_ready(
    options: Config, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_children(monkeypatch, NEVER_READY)
    with trio.fail_after(30), structlog.testing.capture_logs() as logs:
        assert await run_robot(options, instance, early=[signal.SIGTERM]) == 0
    assert [entry["reason"] for entry in find(logs, "stopping all children")] == [
        "received SIGTERM"
    ]
    assert not find(logs, "children failed to start")
    assert not find(logs, "robot ready")
    assert find(logs, "stopped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_while_the_log_opens_or_closes_is_an_orderly_stop(
    options: Config, instance: Instance, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    open_hub = Application.make_log_forwarder

    async def signalled(app: Application) -> LogHub:
        os.kill(os.getpid(), number)
        hub = await open_hub(app)

        async def at_the_end() -> None:
            try:
                await trio.sleep_forever()
            finally:
                os.kill(os.getpid(), number)

        app.nursery.start_soon(at_the_end)
        return hub

    use_children(monkeypatch, NEVER_READY)
    monkeypatch.setattr(Application, "make_log_forwarder", signalled)
    before = {each: signal.getsignal(each) for each in signals.stop_signals()}
    try:
        with (
            structlog.testing.capture_logs() as logs,
            signals.capture_early_signals(*before) as early,
        ):
            assert trio.run(lambda: run_robot(options, instance, early=early)) == 0
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert early == [number, number]
    assert [entry["reason"] for entry in find(logs, "stopping all children")] == [
        f"received {number.name}"
    ]
    assert not find(logs, "application stopping")


async def test_log_file_is_recorded_again_after_the_directory_is_removed(
    options: Config, instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = msgspec.structs.replace(options, log_file=str(tmp_path / "robot.log"))

    async def remove(_robot: Robot) -> None:
        assert place.linked_log(instance.directory) == tmp_path / "robot.log"
        shutil.rmtree(instance.directory)
        while place.linked_log(instance.directory) is None:  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert place.linked_log(instance.directory) == tmp_path / "robot.log"

    use_children(monkeypatch, WELL_BEHAVED)
    with trio.fail_after(30), structlog.testing.capture_logs():
        assert await run_robot(options, instance, robot_task=remove) == 0


async def test_robot_without_a_log_file_records_none(
    options: Config, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:

    async def remove(_robot: Robot) -> None:
        shutil.rmtree(instance.directory)
        while not find(logs, "restored removed files of the robot"):  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert place.linked_log(instance.directory) is None

    use_children(monkeypatch, WELL_BEHAVED)
    with trio.fail_after(30), structlog.testing.capture_logs() as logs:
        assert await run_robot(options, instance, robot_task=remove) == 0


async def test_idle_needs_the_brake_if_the_device_process_is_silent(
    options: Config, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Connection] = []

    def connect() -> Connection:
        made.append(Connection())
        return made[-1]

    async def idle(robot: Robot) -> None:
        client = await robot.app.make_client()
        page = Heartbeat(made[0].device.memory)
        await client.call.idle(address="executor-service")
        page.renew()
        with pytest.raises(RemoteCallError, match="does not confirm"):
            await client.call.idle(address="executor-service")
        page.set_pending(1)
        page.settle(page.stamp)
        with pytest.raises(RemoteCallError, match="does not confirm"):
            await client.call.idle(address="executor-service")
        page.set_pending(0)
        await client.call.idle(address="executor-service")
        page.close()

    monkeypatch.setattr(lifecycle, "Connection", connect)
    use_children(monkeypatch, WELL_BEHAVED)
    with trio.fail_after(60), structlog.testing.capture_logs():
        assert await run_robot(options, instance, robot_task=idle) == 0
