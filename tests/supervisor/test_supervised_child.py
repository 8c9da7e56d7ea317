"""Tests of a supervised child with real processes."""

import errno
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from support.supervised import (
    STUBBORN,
    WELL_BEHAVED,
    Watcher,
    is_state,
    program,
    running_child,
    wait_until_exited,
)

from rt.process.lifeline import LIFELINE
from rt.process.output import TAIL
from rt.supervisor.spec import ChildSpec
from rt.supervisor.state import Kill, Restart, Start, State, Stop


def spec_of(body: str, **options: Any) -> ChildSpec:
    return ChildSpec(name="kid", command=program(body), **options)


async def test_child_is_ready_when_it_notifies() -> None:
    watcher = Watcher()
    async with running_child(
        spec_of("notify('READY=1\\nSTATUS=two motors'); time.sleep(1000)"), watcher
    ) as child:
        with trio.fail_after(30):
            status = await child.until(is_state(State.READY))
            status = await child.until(lambda status: status.status != "")
    assert watcher.states("kid")[:3] == [State.SPAWNING, State.STARTING, State.READY]
    assert status.status == "two motors"
    assert status.ready


async def test_program_without_notify_is_ready_when_it_runs() -> None:
    async with running_child(
        ChildSpec(name="kid", command=("sleep", "1000"), notify=False), Watcher()
    ) as child:
        with trio.fail_after(30):
            await child.until(is_state(State.READY))


async def test_child_that_is_not_ready_in_time_is_restarted() -> None:
    watcher = Watcher()
    async with running_child(spec_of("time.sleep(1000)", ready_timeout=0.2), watcher) as child:
        with trio.fail_after(30):
            status = await child.until(
                lambda status: status.restarts == 1 and status.state is State.STARTING
            )
    assert status.last_exit is not None
    assert status.last_exit.reason == "ended by SIGTERM (not ready within 0.2 s)"


async def test_crashed_child_is_restarted_and_its_exit_is_reported() -> None:
    body = (
        "notify('READY=1'); print('so far so good'); sys.stdout.flush(); sys.exit('out of cheese')"
    )
    async with running_child(spec_of(body), Watcher()) as child:
        with trio.fail_after(30):
            status = await child.until(lambda status: status.restarts >= 1)
    assert status.last_exit is not None
    assert status.last_exit.code == 1
    assert status.last_exit.reason == "exited with code 1"
    assert sorted(status.last_exit.tail.splitlines()) == ["out of cheese", "so far so good"]
    assert not status.last_exit.emergency


async def test_killed_child_is_restarted() -> None:
    async with running_child(spec_of(WELL_BEHAVED), Watcher()) as child:
        with trio.fail_after(30):
            status = await child.until(is_state(State.READY))
            assert status.pid is not None
            os.kill(status.pid, signal.SIGKILL)
            status = await child.until(lambda status: status.restarts == 1 and status.ready)
    assert status.last_exit is not None
    assert status.last_exit.signal == "SIGKILL"


async def test_child_that_never_starts_does_not_flood_the_log() -> None:
    spec = ChildSpec(
        name="kid",
        command=("/nonexistent",),
        notify=False,
        gives_up=False,
        backoff=0.001,
        backoff_cap=0.001,
        max_restarts=3,
    )
    with capture_logs() as logs:
        async with running_child(spec, Watcher()) as child:
            with trio.fail_after(30):
                await child.until(lambda status: status.restarts >= 200)
    logged = [entry for entry in logs if entry["event"] == "child is backoff"]
    assert 0 < len(logged) < 100
    assert not [entry for entry in logs if entry["event"] == "child is failed"]


async def test_emergency_stop_is_reported() -> None:
    async with running_child(spec_of("sys.exit(255)", restart="temporary"), Watcher()) as child:
        with trio.fail_after(30):
            status = await child.until(is_state(State.FAILED))
    assert status.last_exit is not None
    assert status.last_exit.emergency
    assert status.reason == "emergency stop (exit code 255)"


async def test_child_that_ignores_sigterm_is_killed_after_the_stop_timeout() -> None:
    watcher = Watcher()
    async with running_child(spec_of(STUBBORN, stop_timeout=0.2), watcher) as child:
        with trio.fail_after(30):
            await child.until(is_state(State.READY))
            child.feed(Stop("enough"))
            status = await child.until(is_state(State.STOPPED))
    assert status.reason == "ended by SIGKILL (enough)"
    assert watcher.states("kid")[-3:] == [State.STOPPING, State.KILLING, State.STOPPED]


async def test_stopped_process_handles_sigterm() -> None:
    async with running_child(spec_of(WELL_BEHAVED, stop_timeout=60.0), Watcher()) as child:
        with trio.fail_after(30):
            status = await child.until(is_state(State.READY))
            assert status.pid is not None
            os.kill(status.pid, signal.SIGSTOP)
            child.feed(Stop("enough"))
            status = await child.until(is_state(State.STOPPED))
    assert status.reason == "ended by SIGTERM (enough)"


async def test_silent_child_leaves_a_traceback_and_is_restarted() -> None:
    body = "import faulthandler; faulthandler.enable(); notify('READY=1'); time.sleep(1000)"
    async with running_child(spec_of(body, watchdog=0.2), Watcher()) as child:
        with trio.fail_after(30):
            status = await child.until(lambda status: status.restarts == 1)
    assert status.last_exit is not None
    assert status.last_exit.reason == "ended by SIGABRT (no watchdog notice for 0.2 s)"
    assert "Fatal Python error: Aborted" in status.last_exit.tail


async def test_child_that_sends_watchdog_notices_is_not_restarted() -> None:
    body = """
        period = int(os.environ["WATCHDOG_USEC"]) / 2e6
        notify("READY=1")
        for turn in range(6):
            time.sleep(period / 2)
            notify("WATCHDOG=1")
        print("lived 1", flush=True)
        time.sleep(1000)
    """
    watcher = Watcher()
    async with running_child(spec_of(body, watchdog=0.8), watcher) as child:
        with trio.fail_after(30):
            await watcher.number("lived ")
        assert child.status.restarts == 0


async def test_descendants_of_a_stopped_child_are_killed() -> None:
    body = """
        print(f"group {sleeper().pid}", flush=True)
        print(f"session {sleeper(process_group=0).pid}", flush=True)
        notify("READY=1")
        time.sleep(1000)
    """
    watcher = Watcher()
    async with running_child(spec_of(body), watcher) as child:
        with trio.fail_after(30):
            group, session = await watcher.number("group "), await watcher.number("session ")
            await child.until(is_state(State.READY))
            child.feed(Stop("enough"))
            await child.until(is_state(State.STOPPED))
            await wait_until_exited(group)
            await wait_until_exited(session)


async def test_descendants_of_a_crashed_child_are_killed() -> None:
    body = """
        print(f'group {sleeper().pid}')
        print(f'session {sleeper(process_group=0).pid}')
        sys.exit(3)
    """
    watcher = Watcher()
    async with running_child(spec_of(body, restart="temporary"), watcher) as child:
        with trio.fail_after(30):
            await child.until(is_state(State.FAILED))
            await wait_until_exited(await watcher.number("group "))
            await wait_until_exited(await watcher.number("session "))


async def test_child_that_exits_without_a_free_descriptor_is_restarted() -> None:
    watcher = Watcher()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with running_child(spec_of(WELL_BEHAVED, backoff=0.05), watcher) as child:
        with trio.fail_after(20):
            pid = (await child.until(is_state(State.READY))).pid
            assert pid is not None
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            try:
                os.kill(pid, signal.SIGKILL)
                status = await child.until(lambda status: "cannot be started" in status.reason)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert os.strerror(errno.EMFILE) in status.reason
            assert (await child.until(is_state(State.READY))).restarts >= 1


async def test_process_that_holds_the_pipes_delays_the_exit_briefly() -> None:
    body = "print(f'away {sleeper(start_new_session=True).pid}', flush=True); sys.exit(3)"
    watcher = Watcher()
    async with running_child(spec_of(body, restart="temporary"), watcher) as child:
        with trio.fail_after(30):
            remote = await watcher.number("away ")
            try:
                await child.until(is_state(State.FAILED))
            finally:
                os.kill(remote, signal.SIGKILL)
            await wait_until_exited(remote)


async def test_missing_program_is_not_tried_again() -> None:
    spec = ChildSpec(name="kid", command=("/nonexistent/program",))
    async with running_child(spec, Watcher()) as child:
        with trio.fail_after(30):
            status = await child.until(is_state(State.FAILED))
    assert status.reason == "cannot be started: No such file or directory: /nonexistent/program"
    assert status.restarts == 0


async def test_file_that_is_not_executable_is_not_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.touch(mode=0o600)
    async with running_child(ChildSpec(name="kid", command=(str(path),)), Watcher()) as child:
        with trio.fail_after(30):
            status = await child.until(is_state(State.FAILED))
    assert status.reason == f"cannot be started: Permission denied: {path}"


async def test_invalid_command_is_not_tried_again() -> None:
    async with running_child(ChildSpec(name="kid", command=("nul\0",)), Watcher()) as child:
        with trio.fail_after(30):
            await child.until(is_state(State.FAILED))


async def test_failed_child_can_be_started_manually(tmp_path: Path) -> None:
    path = tmp_path / "program"
    async with running_child(
        ChildSpec(name="kid", command=(str(path),), notify=False), Watcher()
    ) as child:
        with trio.fail_after(30):
            await child.until(is_state(State.FAILED))
            path.symlink_to("/bin/cat" if sys.stdin is None else "/bin/true")
            child.feed(Start("now it is there"))
            await child.until(lambda status: status.last_exit is not None)


async def test_stop_wins_over_a_pending_restart() -> None:
    watcher = Watcher()
    async with running_child(
        spec_of("sys.exit(1)", backoff=60.0, backoff_cap=60.0), watcher
    ) as child:
        with trio.fail_after(30):
            await child.until(is_state(State.BACKOFF))
            child.feed(Stop("enough"))
        assert child.status.state is State.STOPPED
        assert child.status.restarts == 0


async def test_stop_wins_over_a_requested_restart() -> None:
    async with running_child(spec_of(WELL_BEHAVED), Watcher()) as child:
        with trio.fail_after(30):
            await child.until(is_state(State.READY))
            child.feed(Restart("new code"))
            child.feed(Stop("enough"))
            child.feed(Restart("newer code"))
            status = await child.until(
                lambda status: status.state in (State.STOPPED, State.SPAWNING)
            )
    assert status.state is State.STOPPED


async def test_stop_reaches_a_process_that_is_being_started() -> None:
    async with running_child(spec_of(WELL_BEHAVED), Watcher()) as child:
        with trio.fail_after(30):
            await child.until(is_state(State.SPAWNING))
            child.feed(Stop("changed our mind"))
            await child.until(is_state(State.STOPPED))


async def test_restart_starts_a_new_process() -> None:
    async with running_child(spec_of(WELL_BEHAVED), Watcher()) as child:
        with trio.fail_after(30):
            first = await child.until(is_state(State.READY))
            child.feed(Restart("new code"))
            second = await child.until(lambda status: status.ready and status.pid != first.pid)
    assert second.restarts == 1
    assert second.last_exit is not None
    assert second.last_exit.reason == "ended by SIGTERM (new code)"


async def test_flood_of_output_is_read_and_its_tail_is_kept() -> None:
    body = """
        for number in range(20000):
            print(f"line {number}")
        sys.stderr.write("the end")
    """
    watcher = Watcher()
    turns = 0
    async with running_child(spec_of(body, restart="temporary"), watcher) as child:
        with trio.fail_after(30):
            await watcher.until(lambda: watcher.lines)
            while not child.status.settled:
                turns += 1
                await trio.sleep(0.001)
    assert sum(stream == "stdout" for _, stream, _ in watcher.lines) == 20000
    assert ("kid", "stderr", "the end") in watcher.lines
    assert child.status.last_exit is not None
    assert len(child.status.last_exit.tail) == TAIL
    assert turns > 3, "other tasks ran in the meantime"


async def test_child_gets_settings_environment_and_lifeline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEAM", "42")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    body = """
        lifeline = socket.socket(fileno=int(sys.argv[1]))
        length = int.from_bytes(lifeline.recv(4), "little")
        env = os.environ
        settings = lifeline.recv(length).decode()
        own = env["TEAM"], env["MORE"], env["RT_INSTANCE_DIR"]
        print(settings, *own, env.get("WATCHDOG_PID"), env.get("WATCHDOG_USEC"), flush=True)
        os.write(int(env["RT_NOTIFY"].partition(":")[0]), b"READY=1")
        lifeline.recv(1)
        print("alone 1", flush=True)
    """
    watcher = Watcher()
    spec = ChildSpec(
        name="kid",
        command=program(body, LIFELINE),
        message=b"hello",
        env={"MORE": "1"},
        restart="temporary",
    )
    async with running_child(spec, watcher) as child:
        with trio.fail_after(30):
            await child.until(is_state(State.READY))
            _, _, line = await watcher.until(lambda: watcher.lines and watcher.lines[0])
            directory = line.split()[3]
            assert line == f"hello 42 1 {directory} None None"
            assert not await trio.to_thread.run_sync(os.listdir, directory), (
                "it needs no socket file"
            )
            child.feed(Kill("enough"))
            await child.until(is_state(State.STOPPED))
    assert ("kid", "stdout", "alone 1") not in watcher.lines


async def test_cancelled_child_leaves_no_process() -> None:
    watcher = Watcher()
    body = "print(f'pid {os.getpid()}', flush=True); " + STUBBORN
    with trio.fail_after(30):
        async with running_child(spec_of(body), watcher) as child:
            async with trio.open_nursery() as nursery:
                pid = await watcher.number("pid ")
                assert child._nursery is not None
                child._nursery.cancel_scope.cancel()
                nursery.start_soon(child.finished.wait)
            await wait_until_exited(pid)


async def test_removed_socket_does_not_trigger_the_watchdog() -> None:
    body = """
    notify('READY=1')
    while True:
        time.sleep(0.1)
        try: notify('WATCHDOG=1')
        except OSError: pass
    """
    async with running_child(spec_of(body, watchdog=0.4), Watcher()) as child:
        with trio.fail_after(30):
            await child.until(is_state(State.READY))
            (child._directory / "notify-kid.sock").unlink()
            await trio.sleep(1.2)
        assert child.status.restarts == 0
        assert child.status.ready


async def test_pause_of_the_parent_does_not_trigger_the_watchdog() -> None:
    body = """
    notify('READY=1')
    while True:
        time.sleep(0.1)
        notify('WATCHDOG=1')
    """
    async with running_child(spec_of(body, watchdog=0.5), Watcher()) as child:
        with trio.fail_after(30):
            await child.until(is_state(State.READY))
            time.sleep(0.9)  # noqa: ASYNC251 - blocks the event loop
            await trio.sleep(0.3)
        assert child.status.ready
        assert child.status.restarts == 0
