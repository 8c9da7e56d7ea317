"""The dispatcher, with the event loop of the test and the main thread's executor not running."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from rt import catalog
from rt.buffer import BufferStore, Doorbell, LeaseTable
from rt.errors import ExecutionError
from rt.executor import dispatcher as module
from rt.executor.actions import AsyncExecutor
from rt.executor.api import Field, Gamepad, Robot
from rt.executor.dispatcher import Dispatcher
from rt.executor.lease import LeaseKeeper
from rt.executor.program import RequestSpec
from rt.executor.report import Reporter
from rt.executor.sync import SyncExecutor


@pytest.fixture
def table(prefix: str) -> Iterator[LeaseTable]:
    with LeaseTable.open(prefix) as table:
        table.beat()
        yield table


@pytest.fixture
def bell() -> Iterator[Doorbell]:
    bell = Doorbell()
    yield bell
    bell.close()


def make(table: LeaseTable, bell: Doorbell, directory: Path) -> tuple[Dispatcher, LeaseKeeper]:
    token = trio.lowlevel.current_trio_token()
    reporter = Reporter()
    store = BufferStore(catalog.load(), "", shared=False)
    keeper = LeaseKeeper(table.slot(0), bell)
    made = Dispatcher(
        sync=SyncExecutor(reporter.report, str(directory)),
        actions=AsyncExecutor(token, reporter.report),
        keeper=keeper,
        token=token,
        robot=Robot(store, {}),
        gamepad=Gamepad(store),
        field=Field(),
        time_limit=lambda _name: None,
        exec_module="studentcode",
        directory=directory,
        reporter=reporter,
    )
    return made, keeper


async def test_an_emergency_stop_disables_first_answers_and_then_ends(
    table: LeaseTable, bell: Doorbell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, ended, codes = trio.lowlevel.current_trio_token(), trio.Event(), list[Any]()

    def leave(code: int) -> None:
        codes.append(code)
        token.run_sync_soon(ended.set)

    monkeypatch.setattr(os, "_exit", leave)
    dispatcher, keeper = make(table, bell, tmp_path)
    keeper.beat()
    keeper.grant()
    assert table.fresh()
    dispatcher.estop()
    assert not table.fresh()
    with trio.fail_after(module.ANSWER_TIME + 5):
        await ended.wait()
    assert codes == [255]


async def test_a_periodic_request_that_is_not_the_last_is_refused(
    table: LeaseTable, bell: Doorbell, tmp_path: Path, nursery: trio.Nursery
) -> None:
    dispatcher, _ = make(table, bell, tmp_path)
    await nursery.start(dispatcher.run)
    with pytest.raises(ExecutionError, match="has to be the last"):
        await dispatcher.execute([RequestSpec("a", periodic=True), RequestSpec("b")])
    nursery.cancel_scope.cancel()
