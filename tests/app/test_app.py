"""Tests of the application object: calls, errors, settings and health."""

import json
from pathlib import Path

import msgspec
import pytest
import structlog
import trio
from trio.testing import MockClock

from rt import config
from rt.app import Application, ChildSettings
from rt.config import Config
from rt.errors import CatalogError, RemoteCallError, RemoteProtocolError
from rt.remote import Handler, route
from rt.root.lifecycle import stdout_format


class Greeter(Handler):
    @route
    async def greet(self, name: str) -> str:
        await trio.lowlevel.checkpoint()
        return f"hello {name}"


def options(tmp_path: Path, **changes: object) -> Config:
    loaded = config.load(env={}, cwd=tmp_path).config
    return msgspec.structs.replace(loaded, router_frontend=("ipc://{dir}/f",), **changes).resolved(
        tmp_path
    )


async def test_client_calls_a_service_through_the_router(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with Application("greeter", options(tmp_path)) as app:
            await app.make_router()
            await app.make_service(Greeter())
            client = await app.make_client()
            assert await client.call.greet("robot", address="greeter-service") == "hello robot"


async def test_client_outlives_the_task_that_opened_it(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with Application("greeter", options(tmp_path)) as app:
            await app.make_router()
            await app.make_service(Greeter())
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    client = await app.make_client()
                    await client.call.greet("task", address="greeter-service")
                    nursery.cancel_scope.cancel()

                nursery.start_soon(ask)
            client = await app.make_client()
            with pytest.raises(RemoteCallError, match="absent-service"):
                await client.call.greet("x", address="absent-service")


async def test_error_of_a_task_ends_the_application_and_propagates(tmp_path: Path) -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    async def run() -> None:
        async with Application("failing", options(tmp_path)) as app:
            app.nursery.start_soon(fail)
            await trio.sleep_forever()

    with trio.fail_after(20), pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.value.subgroup(ZeroDivisionError)


def test_invalid_catalog_is_an_error_when_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[x]\n")
    with pytest.raises(CatalogError, match=r"bad\.toml:1: \[x\]"):
        _ = Application("x", options(tmp_path, dev_catalog=str(tmp_path / "bad.toml"))).catalog


def test_application_outside_of_its_block_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        _ = Application("x", options(tmp_path)).nursery


def test_settings_round_trip(tmp_path: Path) -> None:
    settings = ChildSettings(
        role="device",
        config=options(tmp_path, dev_name={"left": str(12 << 72)}),
        directory=str(tmp_path),
        shm_prefix="rt-x.",
        write_event=7,
        emulated=('polar-bear@1:{"duty_cycle": 0}',),
    )
    assert ChildSettings.decode(settings.encode()) == settings
    with pytest.raises(RemoteProtocolError, match="role"):
        ChildSettings.decode(msgspec.msgpack.encode(json.loads("{}")))


def test_log_format_is_json_without_a_terminal(tmp_path: Path) -> None:
    assert stdout_format(options(tmp_path, log_format="pretty")) == "pretty"
    assert stdout_format(options(tmp_path)) == "json"


async def test_health_is_reported_at_its_interval(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with Application("well", options(tmp_path, health_check_interval=10.0)) as app:
            app.report_health()
            await trio.sleep(25)
    assert [entry["process"] for entry in logs if entry["event"] == "health"] == ["well", "well"]
