"""What an Application makes works, belongs to it, and is closed after its tasks."""

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


class Ear(Handler):
    """Hears what comes, by whatever way."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self._news = trio.Event()

    def _hear(self, update: Any) -> None:
        self.heard.append(update)
        self._news.set()

    @route(inline=True)
    def update(self, update: dict[str, Any]) -> None:
        self._hear(update)

    @route(inline=True)
    def update_gamepads(self, update: dict[str, Any]) -> None:
        self._hear(update)

    @route
    def thread(self) -> str:
        return threading.current_thread().name

    @route
    def fail(self) -> None:
        raise ZeroDivisionError

    async def hear(self, say: Callable[[], Any]) -> Any:
        """Say something until it has been heard: datagrams may be lost."""
        with trio.fail_after(20):
            while not self.heard:
                await say()
                with trio.move_on_after(0.2):
                    await self._news.wait()
        return self.heard[0]


def shared(prefix: str) -> list[str]:
    return list(segment.names(prefix))


def options(tmp_path: Path, **changes: object) -> Config:
    loaded = config.load(env={}, cwd=tmp_path).config
    changes = {"router_frontend": ("ipc://{dir}/f",), "port_base": free_ports(), **changes}
    return msgspec.structs.replace(loaded, **changes).resolved(tmp_path)


async def test_updates_go_from_the_update_client_to_the_update_service(tmp_path: Path) -> None:
    update = {"12": {"switch0": True, "angle": 0.5}}
    async with Application("updates", options(tmp_path)) as app:
        ear = Ear()
        await app.make_update_service(ear)
        client = await app.make_update_client()
        assert await ear.hear(lambda: client.call.update(update, notification=True)) == update


async def test_gamepads_go_from_the_control_client_to_the_control_service(tmp_path: Path) -> None:
    update = {"0": {"lx": 0.0, "ly": 1.0, "rx": 0.0, "ry": 0.0, "btn": 5}}
    async with Application("control", options(tmp_path)) as app:
        ear = Ear()
        await app.make_control_service(ear)
        client = await app.make_control_client()
        assert (
            await ear.hear(lambda: client.call.update_gamepads(update, notification=True)) == update
        )


async def test_several_clients_do_not_take_one_anothers_answers(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with Application("many", options(tmp_path)) as app:
            await app.make_router()
            await app.make_service(Ear())
            clients = [await app.make_client() for _ in range(2)]
            for client in clients * 2:
                assert "describe" in await client.call.describe(address="many-service")


async def test_a_second_service_of_the_same_name_is_refused(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with Application("twice", options(tmp_path)) as app:
            await app.make_router()
            await app.make_service(Ear())
            with pytest.raises(RuntimeError, match="twice-service is there already"):
                await app.make_service(Ear())


async def test_a_service_that_did_not_come_about_may_be_asked_for_again(tmp_path: Path) -> None:
    class Wrong(Handler):
        @route
        def method(self, value: "NotThere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with trio.fail_after(20):
        async with Application("again", options(tmp_path)) as app:
            with pytest.raises(NameError):
                await app.make_service(Wrong())
            with trio.move_on_after(0.05) as impatient:  # there is no router yet
                await app.make_service(Ear())
            assert impatient.cancelled_caught
            await app.make_router()
            await app.make_service(Ear())
            client = await app.make_client()
            assert "describe" in await client.call.describe(address="again-service")


async def test_a_service_logs_where_it_is_told_to(tmp_path: Path) -> None:
    with trio.fail_after(20), structlog.testing.capture_logs() as logs:
        async with Application("talker", options(tmp_path)) as app:
            await app.make_router()
            await app.make_service(Ear(), logger=structlog.get_logger(part="ear"))
            client = await app.make_client()
            with pytest.raises(Exception, match="ZeroDivisionError"):
                await client.call.fail(address="talker-service")
    assert [entry["part"] for entry in logs if entry["event"] == "handler failed"] == ["ear"]


async def test_plain_functions_share_the_threads_of_the_application(tmp_path: Path) -> None:
    async with Application("threads", options(tmp_path, thread_pool_workers=3)) as app:
        assert app.threads.total_tokens == 3
        name = await trio.to_thread.run_sync(
            lambda: threading.current_thread().name, limiter=app.threads
        )
        assert name != threading.current_thread().name


async def test_private_buffers_are_in_no_shared_memory(tmp_path: Path, prefix: str) -> None:
    async with Application("private", options(tmp_path), shm_prefix=prefix) as app:
        app.make_buffer_manager(shared=False).get_or_open(("gamepad", 0), create=True)
        assert not shared(prefix)


async def test_tasks_end_before_what_they_use_is_closed(tmp_path: Path, prefix: str) -> None:
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


async def test_a_stop_ends_the_block_once_and_says_why(tmp_path: Path) -> None:
    async with Application("stopping", options(tmp_path)) as app:
        assert app.stopped is None
        app.stop("enough")
        app.stop("more than enough")
        await trio.sleep_forever()
    assert app.stopped == "enough"


async def test_health_tells_what_the_process_holds(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
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


async def test_debug_names_who_keeps_the_others_waiting_and_counts(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def dawdle() -> None:
        await trio.lowlevel.checkpoint()
        time.sleep(0.2)  # noqa: ASYNC251 - that is the mistake that is looked for
        await trio.lowlevel.checkpoint()

    with structlog.testing.capture_logs() as logs:
        async with Application(
            "slow", options(tmp_path, debug=True, health_check_interval=1.0)
        ) as app:
            app.report_health()
            app.nursery.start_soon(dawdle, name="the dawdler")
            await trio.sleep(1.5)
    assert "the dawdler" in [entry.get("task") for entry in logs]
    assert next(entry for entry in logs if entry["event"] == "health")["slow_steps"] >= 1


async def test_without_debug_nothing_looks(tmp_path: Path) -> None:
    before = threading.active_count()
    async with Application("quick", options(tmp_path)) as app:
        assert app.slow_tasks is None
        assert threading.active_count() == before
