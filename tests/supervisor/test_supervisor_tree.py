"""Tests of the supervisor: children start together and stop in reverse order."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing
from support.supervised import (
    STUBBORN,
    WELL_BEHAVED,
    Watcher,
    assert_no_children,
    is_state,
    open_fds,
    place,
    program,
)

from rt.errors import ConfigError, RuntimeBaseException
from rt.supervisor.spec import ChildSpec
from rt.supervisor.state import Restart, Start, State, Stop
from rt.supervisor.tree import Supervisor

TIMEOUT = 30.0
GRACE = 10 * TIMEOUT
"""A stop timeout longer than the timeout of a test."""


def child(name: str, body: str = WELL_BEHAVED, **options: float) -> ChildSpec:
    return ChildSpec(name=name, command=program(body), **options)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def supervising(
    watcher: Watcher, *specs: ChildSpec, stop_timeout: float = 5.0
) -> AsyncIterator[Supervisor]:
    """Run a supervisor, and check that no process and no descriptor remains."""
    with place() as directory:
        before = open_fds()
        supervisor = Supervisor(
            specs,
            directory,
            on_line=watcher.on_line,
            on_change=watcher.on_change,
            stop_timeout=stop_timeout,
        )
        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                await nursery.start(supervisor.run)
                yield supervisor
                supervisor.shutdown("the test is over")
        assert open_fds() <= before
        assert_no_children()


async def test_supervisor_is_started_when_all_children_are_ready() -> None:
    watcher = Watcher()
    async with supervising(watcher, child("device"), child("executor")) as supervisor:
        assert [(status.name, status.ready) for status in supervisor.status()] == [
            ("device", True),
            ("executor", True),
        ]


async def test_children_start_together(tmp_path: Path) -> None:
    # Each child is ready when all of them run.
    body = f"""
        open(r"{tmp_path}/" + str(os.getpid()), "w").close()
        while len(os.listdir(r"{tmp_path}")) < 4:
            time.sleep(0.01)
        notify("READY=1")
        time.sleep(1000)
    """
    async with supervising(
        Watcher(), *(child(f"kid{number}", body) for number in range(4))
    ) as supervisor:
        assert all(status.ready for status in supervisor.status())


async def test_children_stop_one_after_another_in_reverse_order() -> None:
    watcher = Watcher()
    kids = [child(name, stop_timeout=GRACE) for name in ("device", "executor", "challenge")]
    async with supervising(watcher, *kids, stop_timeout=GRACE) as supervisor:
        supervisor.shutdown("received SIGTERM")
    stops = [
        (status.name, status.state)
        for status in watcher.statuses
        if status.reason.find("received SIGTERM") >= 0
    ]
    order = list(dict.fromkeys(stops))
    assert order == [
        (name, state)
        for name in ("challenge", "executor", "device")
        for state in (State.STOPPING, State.STOPPED)
    ]


async def test_reason_of_a_cancel_is_the_reason_of_every_stop() -> None:
    watcher = Watcher()
    with place() as directory, trio.fail_after(20):
        supervisor = Supervisor([child("device")], directory, on_line=watcher.on_line)
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            nursery.cancel_scope.cancel("the battery is empty")
    (status,) = supervisor.status()
    assert status.reason == "ended by SIGTERM (the battery is empty)"
    assert_no_children()


async def test_cancel_during_the_start_leaves_no_process() -> None:
    for turn in range(5):
        with place() as directory, trio.fail_after(20):
            supervisor = Supervisor([child("device"), child("executor")], directory)
            with trio.move_on_after(turn * 0.01):
                await supervisor.run()
        assert all(status.state is State.STOPPED for status in supervisor.status())
        assert_no_children()


async def test_shutdown_during_the_start_stops_the_children() -> None:
    with place() as directory, trio.fail_after(20):
        supervisor = Supervisor([child("device", "time.sleep(1000)")], directory)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            await trio.testing.wait_all_tasks_blocked(0.01)
            supervisor.shutdown("changed our mind")
    assert_no_children()


async def test_stop_timeout_bounds_all_children_together() -> None:
    watcher = Watcher()
    stubborn = [child(f"kid{number}", STUBBORN, stop_timeout=GRACE) for number in range(3)]
    async with supervising(watcher, *stubborn, stop_timeout=0.5) as supervisor:
        supervisor.shutdown("enough")
    assert all(
        status.last_exit and status.last_exit.signal == "SIGKILL" for status in supervisor.status()
    )


async def test_slow_child_leaves_time_for_the_others_to_stop() -> None:
    tidy = """
        def leave(*_):
            print("disabled 1", flush=True)
            sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
        notify("READY=1")
        time.sleep(1000)
    """
    watcher = Watcher()
    stubborn = child("executor", STUBBORN, stop_timeout=30.0)
    async with supervising(
        watcher, child("device", tidy), stubborn, stop_timeout=0.2
    ) as supervisor:
        supervisor.shutdown("enough")
    device, executor = supervisor.status()
    assert device.reason == "exited with code 0 (enough)"
    assert ("device", "stdout", "disabled 1") in watcher.lines
    assert executor.reason.startswith("ended by SIGKILL")


async def test_kill_overrides_an_orderly_stop() -> None:
    watcher = Watcher()
    stubborn = [child(f"kid{number}", STUBBORN, stop_timeout=GRACE) for number in range(3)]
    async with supervising(watcher, *stubborn, stop_timeout=GRACE) as supervisor:
        supervisor.shutdown("received SIGINT")
        await watcher.until(lambda: State.STOPPING in watcher.states("kid2"))
        supervisor.kill("received SIGINT again")


async def test_child_that_exits_during_the_stop_is_not_restarted() -> None:
    watcher = Watcher()
    async with supervising(
        watcher, child("device"), child("executor", STUBBORN, stop_timeout=0.5)
    ) as supervisor:
        device, _ = supervisor.status()
        supervisor.shutdown("enough")
        await watcher.until(lambda: State.STOPPING in watcher.states("executor"))
        assert device.pid is not None
        os.kill(device.pid, signal.SIGKILL)
    device, _ = supervisor.status()
    assert device.restarts == 0
    assert device.reason == "ended by SIGKILL"


async def test_failed_child_does_not_prevent_the_start_of_others() -> None:
    lame = ChildSpec(name="lame", command=("/nonexistent/program",))
    async with supervising(Watcher(), lame, child("device")) as supervisor:
        assert [status.state for status in supervisor.status()] == [State.FAILED, State.READY]


async def test_one_child_is_stopped_started_and_restarted() -> None:
    async with supervising(Watcher(), child("device"), child("executor")) as supervisor:
        device, first = supervisor.status()
        executor = supervisor.child("executor")
        executor.feed(Restart("new code"))
        await executor.until(lambda status: status.ready and status.pid != first.pid)
        executor.feed(Stop("not needed"))
        stopped = await executor.until(is_state(State.STOPPED))
        assert stopped.reason == "ended by SIGTERM (not needed)"
        executor.feed(Start("needed after all"))
        await executor.until(is_state(State.READY))
        assert supervisor.status()[0].pid == device.pid


async def test_unknown_name_is_an_error_that_lists_the_children() -> None:
    async with supervising(Watcher(), child("device")) as supervisor:
        with pytest.raises(RuntimeBaseException, match="no child named 'devise'; there are device"):
            supervisor.child("devise")


@pytest.mark.parametrize("name", ["", ".x", "a/b", "a" * 33, "-x", "ü"])
def test_invalid_child_name_is_rejected(name: str) -> None:
    with pytest.raises(ConfigError, match="invalid child name"):
        ChildSpec(name=name, command=("true",))


def test_duplicate_child_name_is_rejected() -> None:
    with place() as directory, pytest.raises(ConfigError, match="two children"):
        Supervisor([child("device"), child("device")], directory)


def test_settings_need_a_lifeline() -> None:
    with pytest.raises(ConfigError, match=r"no .lifeline. in its command"):
        ChildSpec(name="device", command=("true",), message=b"hello")


async def test_last_child_is_stopped_after_the_others_are_killed() -> None:
    watcher = Watcher()
    last = ChildSpec(name="brake", command=program(WELL_BEHAVED), last=True)
    async with supervising(
        watcher, last, child("device", STUBBORN), child("executor", STUBBORN)
    ) as supervisor:
        supervisor.kill("received SIGINT again")
    ends = {
        status.name: status.last_exit.signal for status in supervisor.status() if status.last_exit
    }
    assert ends == {"brake": "SIGTERM", "device": "SIGKILL", "executor": "SIGKILL"}
    stopping = next(
        status
        for status in watcher.statuses
        if (status.name, status.state) == ("brake", State.STOPPING)
    )
    ended = [
        status.name
        for status in watcher.statuses[: watcher.statuses.index(stopping)]
        if status.last_exit
    ]
    assert {"device", "executor"} <= set(ended)


@pytest.mark.parametrize("others", [WELL_BEHAVED, STUBBORN])
async def test_last_child_has_its_own_stop_timeout(others: str) -> None:
    slow = """
        def leave(*_):
            time.sleep(1.5)
            print("done", flush=True)
            raise SystemExit
        signal.signal(signal.SIGTERM, leave)
        notify('READY=1'); time.sleep(1000)
    """
    watcher = Watcher()
    last = ChildSpec(name="brake", command=program(slow), last=True, stop_timeout=GRACE)
    async with supervising(watcher, last, child("device", others), stop_timeout=0.2) as supervisor:
        supervisor.shutdown("enough")
    assert ("brake", "stdout", "done") in watcher.lines
    assert supervisor.status()[0].reason == "exited with code 0 (enough)"


async def test_on_shutdown_is_called_once_before_the_first_stop() -> None:
    watcher = Watcher()
    announced: list[list[State]] = []
    with place() as directory, trio.fail_after(TIMEOUT):
        supervisor = Supervisor(
            [child("device")],
            directory,
            on_change=watcher.on_change,
            on_shutdown=lambda: announced.append(watcher.states("device")),
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            supervisor.shutdown("enough")
            supervisor.shutdown("enough of it")
    (states,) = announced
    assert State.STOPPING not in states
    assert_no_children()
