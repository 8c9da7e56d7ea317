"""Tests of what an application creates: it works, and it is closed after the tasks."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio
from support.robot import free_ports
from trio.testing import MockClock

from rt import config
from rt.app import Application
from rt.buffer import segment
from rt.config import Config
from rt.remote import Handler, route


class Receiver(Handler):
    """Records the updates that it receives."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self._changed = trio.Event()

    def _record(self, update: Any) -> None:
        self.received.append(update)
        self._changed.set()

    @route(inline=True)
    def update(self, update: dict[str, Any]) -> None:
        self._record(update)

    @route(inline=True)
    def update_gamepads(self, update: dict[str, Any]) -> None:
        self._record(update)

    @route
    def thread(self) -> str:
        return threading.current_thread().name

    @route
    def fail(self) -> None:
        raise ZeroDivisionError

    async def receive(self, send: Callable[[], Any]) -> Any:
        """Send until something was received, because datagrams may be lost."""
        with trio.fail_after(20):
            while not self.received:
                await send()
                with trio.move_on_after(0.2):
                    await self._changed.wait()
        return self.received[0]


def shared(prefix: str) -> list[str]:
    return list(segment.names(prefix))


def options(tmp_path: Path, **changes: object) -> Config:
    loaded = config.load(env={}, cwd=tmp_path).config
    changes = {"router_frontend": ("ipc://{dir}/f",), "port_base": free_ports(), **changes}
    return msgspec.structs.replace(loaded, **changes).resolved(tmp_path)


async def test_update_service_receives_from_the_update_client(tmp_path: Path) -> None:
    update = {"12": {"switch0": True, "angle": 0.5}}
    async with Application("updates", options(tmp_path)) as app:
        receiver = Receiver()
        await app.make_update_service(receiver)
        client = await app.make_update_client()
        assert (
            await receiver.receive(lambda: client.call.update(update, notification=True)) == update
        )


async def test_control_service_receives_from_the_control_client(tmp_path: Path) -> None:
    update = {"0": {"lx": 0.0, "ly": 1.0, "rx": 0.0, "ry": 0.0, "btn": 5}}
    async with Application("control", options(tmp_path)) as app:
        receiver = Receiver()
        await app.make_control_service(receiver)
        client = await app.make_control_client()
        assert (
            await receiver.receive(lambda: client.call.update_gamepads(update, notification=True))
            == update
        )


async def test_several_clients_get_their_own_answers(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with Application("many", options(tmp_path)) as app:
            await app.make_router()
            await app.make_service(Receiver())
            clients = [await app.make_client() for _ in range(2)]
            for client in clients * 2:
                assert "describe" in await client.call.describe(address="many-service")


async def test_second_service_of_the_same_name_is_rejected(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with Application("twice", options(tmp_path)) as app:
            await app.make_router()
            await app.make_service(Receiver())
            with pytest.raises(RuntimeError, match="twice-service already exists"):
                await app.make_service(Receiver())


async def test_failed_start_of_a_service_can_be_repeated(tmp_path: Path) -> None:
    class Wrong(Handler):
        @route
        def method(self, value: "NotThere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with trio.fail_after(20):
        async with Application("again", options(tmp_path)) as app:
            with pytest.raises(NameError):
                await app.make_service(Wrong())
            with trio.move_on_after(0.05) as scope:  # there is no router yet
                await app.make_service(Receiver())
            assert scope.cancelled_caught
            await app.make_router()
            await app.make_service(Receiver())
            client = await app.make_client()
            assert "describe" in await client.call.describe(address="again-service")


async def test_service_uses_the_given_logger(tmp_path: Path) -> None:
    with trio.fail_after(20), structlog.testing.capture_logs() as logs:
        async with Application("talker", options(tmp_path)) as app:
            await app.make_router()
            await app.make_service(Receiver(), logger=structlog.get_logger(part="receiver"))
            client = await app.make_client()
            with pytest.raises(Exception, match="ZeroDivisionError"):
                await client.call.fail(address="talker-service")
    assert [entry["part"] for entry in logs if entry["event"] == "handler failed"] == ["receiver"]


async def test_thread_limiter_has_the_configured_size(tmp_path: Path) -> None:
    async with Application("threads", options(tmp_path, thread_pool_workers=3)) as app:
        assert app.threads.total_tokens == 3
        name = await trio.to_thread.run_sync(
            lambda: threading.current_thread().name, limiter=app.threads
        )
        assert name != threading.current_thread().name


async def test_private_buffers_are_not_in_shared_memory(tmp_path: Path, prefix: str) -> None:
    async with Application("private", options(tmp_path), shm_prefix=prefix) as app:
        app.make_buffer_manager(shared=False).get_or_open(("gamepad", 0), create=True)
        assert not shared(prefix)


async def test_tasks_end_before_resources_are_closed(tmp_path: Path, prefix: str) -> None:
    opened: list[int] = []
    async with Application("order", options(tmp_path), shm_prefix=prefix) as app:
        store = app.make_buffer_manager(shared=False)
        store.get_or_open(("gamepad", 0), create=True)

        async def use() -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.01)
                opened.append(len(store))

        app.nursery.start_soon(use)
        await trio.lowlevel.checkpoint()
    assert opened == [1]
    assert len(store) == 0


async def test_first_stop_ends_the_block_with_its_reason(tmp_path: Path) -> None:
    async with Application("stopping", options(tmp_path)) as app:
        assert app.stopped is None
        app.stop("enough")
        app.stop("more than enough")
        await trio.sleep_forever()
    assert app.stopped == "enough"


async def test_health_event_has_all_figures(tmp_path: Path, autojump_clock: MockClock) -> None:
    with structlog.testing.capture_logs() as logs:
        async with Application("well", options(tmp_path, health_check_interval=10.0)) as app:
            app.report_health()
            await trio.sleep(11)
    (event,) = [entry for entry in logs if entry["event"] == "health"]
    wanted = {
        "process",
        "tasks",
        "threads",
        "rss",
        "fds",
        "gc_collections",
        "gc_objects",
        "delay_mean",
        "delay_max",
    }
    assert set(event) == wanted | {"event", "log_level"}


async def test_debug_logs_and_counts_slow_tasks(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def block() -> None:
        await trio.lowlevel.checkpoint()
        time.sleep(0.2)  # noqa: ASYNC251 - blocks the event loop
        await trio.lowlevel.checkpoint()

    with structlog.testing.capture_logs() as logs:
        async with Application(
            "slow", options(tmp_path, debug=True, health_check_interval=1.0)
        ) as app:
            app.report_health()
            app.nursery.start_soon(block, name="slow task")
            await trio.sleep(1.5)
    assert "slow task" in [entry.get("task") for entry in logs]
    assert next(entry for entry in logs if entry["event"] == "health")["slow_steps"] >= 1


async def test_without_debug_there_is_no_monitor(tmp_path: Path) -> None:
    before = threading.active_count()
    async with Application("quick", options(tmp_path)) as app:
        assert app.slow_tasks is None
        assert threading.active_count() == before
