"""Dispatcher, with fake executor processes."""

import contextlib
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from rt.buffer import LeaseTable
from rt.buffer.lease import DRIVER_BARS, Bar
from rt.buffer.wakeup import EXECUTOR_SLOT, FIRST_SESSION_SLOT, SLOTS, STANDBY_SLOT
from rt.buffer.write_event import WriteEvent
from rt.errors import DeviceError, ExecutionError
from rt.executor import messages
from rt.executor.dispatcher import Dispatcher
from rt.executor.messages import Go, Loaded, Over, Prepare, Refused, RequestSpec
from rt.executor.pool import Assignment
from rt.protocol import structs
from rt.remote.caller import Caller, set_caller
from rt.team.api import Mode

PATIENCE = 30


class Process:
    """A fake executor process."""

    def __init__(self, name: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.spec = SimpleNamespace(name=name)
        self.channel: Any = trio.socket.from_stdlib_socket(ours)
        self._theirs = trio.socket.from_stdlib_socket(theirs)
        self.ended: list[str] = []
        self.is_stubborn = self.is_gone = self.killed = False

    async def receive(self, kind: type[Any]) -> Any:
        with trio.fail_after(PATIENCE):
            data = await self._theirs.recv(messages.MAX_MESSAGE)
        message: Any = structs.decode(data, messages.Command)
        assert isinstance(message, kind)
        return message

    async def send(self, message: messages.Answer | bytes) -> None:
        await self._theirs.send(message if isinstance(message, bytes) else messages.encode(message))

    async def until_ended(self) -> None:
        with trio.fail_after(PATIENCE):
            while not self.ended:  # noqa: ASYNC110 - the pool is not asynchronous
                await trio.sleep(0.001)

    def end(self) -> None:
        self._theirs.close()

    def close(self) -> None:
        self._theirs.close()
        self.channel.close()


class Pool:
    """Hands out the fake processes in turn."""

    def __init__(self, *processes: Process) -> None:
        self.free = list(processes)

    async def acquire(self) -> Any:
        await trio.lowlevel.checkpoint()
        if not self.free:
            raise ExecutionError(
                "no process can run team code: the executor is backoff (exited with code 1)"
            )
        return SimpleNamespace(child=self.free.pop(0), pid=1)

    def prepare_next(self) -> None:
        pass

    async def wait_exited(self, _process: Assignment, *, within: float) -> None:
        assert within > 0
        await trio.lowlevel.checkpoint()

    async def wait_reaped(self, process: Any) -> None:
        while not process.child.is_gone:  # noqa: ASYNC110 - the test sets it
            await trio.sleep(0.001)

    def kill(self, process: Any) -> None:
        process.child.killed = process.child.is_gone = True

    def recycle(self, process: Any, reason: str) -> None:
        child = process.child
        if not child.ended:
            child.end()
        child.ended.append(reason)
        child.is_gone = child.is_gone or not child.is_stubborn


class Driver:
    """A driver whose state the test sets."""

    def __init__(self) -> None:
        self.is_live = False
        self.bar_when_absent = Bar.DRIVER
        self.refusal: str | None = None

    @property
    def bar(self) -> Bar:
        return Bar.NONE if self.is_live else self.bar_when_absent

    def begin(self) -> str | None:
        return None if self.is_live else "no gamepad is connected"

    def may_command(self, caller: Caller) -> str | None:
        del caller
        return self.refusal


class Harness:
    """A dispatcher with its lease table, fake processes and a fake driver."""

    def __init__(
        self,
        leases: LeaseTable,
        wakeup: WriteEvent,
        nursery: trio.Nursery,
        *,
        needs_driver: bool,
        insecure: bool,
        **limits: float,
    ) -> None:
        self.leases = leases
        self.nursery = nursery
        self.processes = [Process("executor"), Process("standby"), Process("executor")]
        self.stops: list[bool] = []
        self.mode_changes: list[tuple[bool, bool]] = []
        self.driver = Driver()
        self.moving = False
        self.pool = Pool(*self.processes)
        self.dispatcher = Dispatcher(
            self.pool,  # type: ignore[arg-type]
            leases,
            wakeup,
            needs_driver=needs_driver,
            is_moving=lambda: self.moving,
            on_estop=lambda: self.stops.append(bool(leases.fresh_tokens())),
            time_limit={"lift": 0.5, "teleop_main": 0.05}.get,
            insecure=insecure,
            on_mode=self.record_mode,
            **limits,
        )
        self.dispatcher.driver = self.driver

    def record_mode(self, running: bool) -> None:
        """Bar the slots of sessions as the root does; record whether a mode could move devices."""
        self.mode_changes.append((running, bool(self.leases.fresh_tokens())))
        for slot in range(FIRST_SESSION_SLOT, SLOTS):
            self.leases.bar(slot, Bar.MODE if running else Bar.IDLE)

    def drive(self, *, live: bool) -> None:
        self.driver.is_live = live
        self.dispatcher.driver_changed()

    async def begin(self, mode: str = "auto", process: int = 0) -> Process:
        """Begin a mode and answer for its process until it runs."""
        fake = self.processes[process]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(getattr(self.dispatcher, mode))
            await fake.receive(Prepare)
            await fake.send(Loaded("studentcode.py"))
            await fake.receive(Go)
        return fake

    async def until_idle(self) -> None:
        with trio.fail_after(PATIENCE):
            while self.dispatcher.mode() != "idle":  # noqa: ASYNC110 - the service has no event
                await trio.sleep(0.001)

    def drives(self, slot: int) -> bool:
        """Return whether the process of a slot could move devices now."""
        self.leases.heartbeat()
        return self.leases.lease(slot).begin() and bool(self.leases.fresh_tokens())


@contextlib.asynccontextmanager
async def open_dispatcher(
    prefix: str, *, needs_driver: bool = False, insecure: bool = False, **limits: float
) -> AsyncIterator[Harness]:
    wakeup = WriteEvent()
    try:
        with LeaseTable.open(prefix) as leases:
            async with trio.open_nursery() as nursery:
                harness = Harness(
                    leases, wakeup, nursery, needs_driver=needs_driver, insecure=insecure, **limits
                )
                try:
                    await nursery.start(harness.dispatcher.run)
                    yield harness
                finally:
                    nursery.cancel_scope.cancel()
                    for process in harness.processes:
                        process.close()
    finally:
        wakeup.close()


async def test_process_can_drive_only_while_its_mode_runs(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        assert not harness.drives(EXECUTOR_SLOT)
        await harness.begin()
        assert harness.dispatcher.mode() == "auto"
        assert harness.drives(EXECUTOR_SLOT)
        assert not harness.drives(STANDBY_SLOT)
        await harness.dispatcher.idle()
        assert harness.dispatcher.mode() == "idle"
        assert not harness.drives(EXECUTOR_SLOT)


async def test_code_that_is_loading_cannot_drive(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        process = harness.processes[0]
        harness.nursery.start_soon(harness.dispatcher.auto)
        await process.receive(Prepare)
        assert not harness.drives(EXECUTOR_SLOT)
        assert harness.dispatcher.mode() == "idle"
        await process.send(Loaded("studentcode.py"))
        await process.receive(Go)
        assert harness.drives(EXECUTOR_SLOT)


async def test_idle_revokes_every_lease_before_waiting_for_the_process(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        process = await harness.begin()
        process.end = lambda: None  # type: ignore[method-assign]  # it is stopped or spins
        harness.leases.unbar(FIRST_SESSION_SLOT)  # as the registrar does for a session
        session = harness.leases.lease(FIRST_SESSION_SLOT)
        assert session.begin()
        assert harness.drives(EXECUTOR_SLOT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.dispatcher.idle)
            await trio.testing.wait_all_tasks_blocked()
            assert not harness.leases.fresh_tokens()
            assert not session.renew(), "rt write ends too"
            assert harness.dispatcher.mode() == "idle"
            Process.end(process)


async def test_idle_does_not_wait_forever_for_a_hung_process(prefix: str) -> None:
    async with open_dispatcher(prefix, end_limit=0.01) as harness:
        process = await harness.begin()
        process.end = lambda: None  # type: ignore[method-assign]
        with trio.fail_after(PATIENCE):
            await harness.dispatcher.idle()
        assert process.ended


async def test_estop_bars_every_slot_before_stopping_the_robot(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        await harness.begin()
        assert harness.drives(EXECUTOR_SLOT)
        harness.dispatcher.estop()
        assert harness.stops == [False], "nothing could move when the robot was stopped"
        for slot in (EXECUTOR_SLOT, STANDBY_SLOT, FIRST_SESSION_SLOT):
            assert not harness.drives(slot)
        await harness.dispatcher.idle()
        assert not harness.drives(EXECUTOR_SLOT), "estop is final"


async def test_next_mode_runs_in_another_process(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        first = await harness.begin("auto")
        await harness.begin("teleop", process=1)
        assert first.ended[0] == "teleop begins"
        assert harness.dispatcher.mode() == "teleop"
        assert not harness.drives(EXECUTOR_SLOT)
        assert harness.drives(STANDBY_SLOT)


async def test_load_error_is_returned_to_the_caller(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        process = harness.processes[0]

        async def refuse() -> None:
            await process.receive(Prepare)
            await process.send(Refused("studentcode.py:3: invalid syntax", {"line": 3}))

        harness.nursery.start_soon(refuse)
        with pytest.raises(ExecutionError, match="invalid syntax") as caught:
            await harness.dispatcher.auto()
        assert caught.value.context == {"line": 3}
        assert harness.dispatcher.mode() == "idle"
        assert process.ended
        assert not harness.drives(EXECUTOR_SLOT)


@pytest.mark.parametrize(
    "last",
    [b"\x93\x01", b"", b"\xc1" * 100, b"\x91" * 100_000, b"\x82\xa4type\xa6Loaded\xa4path\xa1\xff"],
    ids=["short", "nothing", "no message", "deep", "not UTF-8"],
)
async def test_crash_or_invalid_message_while_loading_is_an_error(prefix: str, last: bytes) -> None:
    async with open_dispatcher(prefix) as harness:
        process = harness.processes[0]

        async def die() -> None:
            await process.receive(Prepare)
            if last:
                await process.send(last)
            process.end()

        harness.nursery.start_soon(die)
        with pytest.raises(ExecutionError, match=r"has exited|invalid message"):
            await harness.dispatcher.auto()
        assert harness.dispatcher.mode() == "idle"


async def test_death_of_the_process_ends_its_mode(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        process = await harness.begin()
        process.end()
        await harness.until_idle()
        await process.until_ended()
        assert not harness.drives(EXECUTOR_SLOT)


async def test_mode_that_ends_by_itself_makes_the_robot_idle(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        process = await harness.begin()
        await process.send(Over("setup failed"))
        await harness.until_idle()
        assert process.ended == ["it is over"] * len(process.ended)
        assert not harness.drives(EXECUTOR_SLOT)


async def test_blocking_execute_raises_the_error_that_ended_it(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        process = harness.processes[0]

        async def answer() -> None:
            prepare = await process.receive(Prepare)
            assert prepare.mode == Mode.TELEOP
            assert [spec.func for spec in prepare.requests] == ["a", "b"]
            await process.send(Loaded("studentcode.py"))
            await process.receive(Go)
            await process.send(Over("a failed", {"func": "a"}))

        harness.nursery.start_soon(answer)
        with pytest.raises(ExecutionError, match="a failed") as caught:
            await harness.dispatcher.execute([RequestSpec("a"), RequestSpec("b")], block=True)
        assert caught.value.context == {"func": "a"}


async def test_idle_wins_over_a_mode_that_is_starting(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        process = harness.processes[0]
        failures: list[str] = []

        async def begin() -> None:
            try:
                await harness.dispatcher.auto()
            except ExecutionError as error:
                failures.append(error.message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
            await process.receive(Prepare)
            await process.send(Loaded("studentcode.py"))
            await harness.dispatcher.idle()
        assert failures == ["auto did not begin: idle was requested"]
        assert process.ended
        assert not harness.drives(EXECUTOR_SLOT)


async def test_missing_process_is_reported_with_its_reason(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        harness.pool.free.clear()
        with pytest.raises(ExecutionError, match="the executor is backoff"):
            await harness.dispatcher.auto()


async def test_teleop_cannot_drive_without_a_driver(prefix: str) -> None:
    async with open_dispatcher(prefix, needs_driver=True) as harness:
        await harness.begin("teleop")
        assert harness.leases.bar_of(EXECUTOR_SLOT) is Bar.DRIVER
        assert not harness.drives(EXECUTOR_SLOT)
        harness.drive(live=True)
        assert harness.drives(EXECUTOR_SLOT)
        harness.drive(live=False)
        assert not harness.leases.fresh_tokens()
        assert not harness.drives(EXECUTOR_SLOT)
        await harness.dispatcher.idle()
        harness.drive(live=True)
        assert not harness.drives(EXECUTOR_SLOT), "a driver alone does not begin a mode"


@pytest.mark.parametrize("bar_when_absent", sorted(DRIVER_BARS))
async def test_teleop_is_barred_for_the_reason_of_the_driver(
    prefix: str, bar_when_absent: Bar
) -> None:
    async with open_dispatcher(prefix, needs_driver=True) as harness:
        harness.drive(live=True)
        await harness.begin("teleop")
        harness.driver.bar_when_absent = bar_when_absent
        harness.drive(live=False)
        lease = harness.leases.lease(EXECUTOR_SLOT)
        assert (lease.bar, lease.cause) == (bar_when_absent, bar_when_absent)
        harness.drive(live=True)
        assert harness.drives(EXECUTOR_SLOT)


async def test_mode_start_revokes_the_leases_of_commands(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        sessions = [harness.leases.lease(slot) for slot in range(FIRST_SESSION_SLOT, SLOTS)]
        harness.leases.heartbeat()
        for slot, session in enumerate(sessions, FIRST_SESSION_SLOT):
            harness.leases.unbar(slot)
            assert session.begin()
        await harness.begin()
        assert not any(session.renew() for session in sessions)
        assert {session.cause for session in sessions} == {Bar.MODE}


async def test_sessions_stay_barred_until_the_process_is_reaped(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        harness.processes[0].is_stubborn = True
        process = await harness.begin()
        assert harness.mode_changes == [(True, False)], "before the mode may move devices"
        await harness.dispatcher.idle()
        assert process.ended
        assert len(harness.mode_changes) == 1
        process.is_gone = True
        with trio.fail_after(PATIENCE):
            while len(harness.mode_changes) == 1:  # noqa: ASYNC110 - the callback wakes no task
                await trio.sleep(0.001)
        assert harness.mode_changes[1:] == [(False, False)]


async def test_surviving_process_is_killed_before_the_next_mode_moves(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        harness.processes[0].is_stubborn = True
        first = await harness.begin()
        await harness.begin("teleop", 1)
        assert first.killed
        assert harness.mode_changes[-1][0], "no session may move devices during the second mode"
        assert harness.drives(STANDBY_SLOT) or harness.drives(EXECUTOR_SLOT)


@pytest.mark.parametrize("end", ["idle", "by itself"])
async def test_process_of_an_ended_mode_is_killed_before_the_next(prefix: str, end: str) -> None:
    async with open_dispatcher(prefix) as harness:
        harness.processes[0].is_stubborn = True
        first = await harness.begin()
        if end == "idle":
            await harness.dispatcher.idle()
        else:
            await first.send(Over("", {}))
            await harness.until_idle()
        await harness.begin("teleop", 1)
        assert first.killed


async def test_no_mode_begins_while_a_process_cannot_be_killed(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pool, "kill", lambda *_: None)
    async with open_dispatcher(prefix, end_limit=0.01) as harness:
        harness.processes[0].is_stubborn = True
        await harness.begin()
        with pytest.raises(ExecutionError, match="the process of the last mode cannot be killed"):
            await harness.dispatcher.teleop()


async def test_sessions_are_barred_while_code_is_loaded(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        harness.nursery.start_soon(harness.dispatcher.auto)
        await harness.processes[0].receive(Prepare)
        assert harness.mode_changes == [(True, False)]


async def test_memory_overwritten_while_loading_prevents_the_mode(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:

        async def load() -> None:
            await harness.processes[0].receive(Prepare)
            harness.dispatcher.memory_overwritten("a buffer was overwritten")

        harness.nursery.start_soon(load)
        with pytest.raises(ExecutionError, match="a buffer was overwritten"):
            await harness.dispatcher.auto()
        assert harness.processes[0].ended


async def test_immediate_calls_stop_the_mode_and_the_robot(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        process = await harness.begin()
        assert harness.drives(EXECUTOR_SLOT)
        harness.dispatcher.immediate["idle"]()
        assert not harness.drives(EXECUTOR_SLOT)
        assert harness.dispatcher.mode() == "idle"
        assert process.ended
        await harness.dispatcher.idle()
        harness.dispatcher.immediate["estop"]()
        assert harness.stops == [False]


async def test_loss_of_the_brake_ends_the_mode(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        process = await harness.begin()
        assert harness.drives(EXECUTOR_SLOT)
        harness.dispatcher.brake_changed("no brake")
        assert not harness.leases.fresh_tokens()
        assert harness.dispatcher.mode() == "idle"
        assert (
            harness.leases.bar_of(EXECUTOR_SLOT)
            is harness.leases.cause_of(EXECUTOR_SLOT)
            is Bar.BRAKE
        )
        assert process.ended
        await harness.dispatcher.idle()
        assert harness.leases.bar_of(EXECUTOR_SLOT) is Bar.BRAKE
        harness.dispatcher.brake_changed(None)
        assert harness.leases.bar_of(EXECUTOR_SLOT) is Bar.IDLE
        assert not harness.drives(EXECUTOR_SLOT)


async def test_modes_are_refused_without_a_brake(prefix: str) -> None:
    async with open_dispatcher(prefix, brake_limit=0.01) as harness:
        harness.dispatcher.brake_changed("starting")
        harness.dispatcher.brake_changed("failed")
        for begin in (harness.dispatcher.auto, harness.dispatcher.teleop):
            with trio.fail_after(PATIENCE), pytest.raises(ExecutionError, match="failed"):
                await begin()
        with trio.fail_after(PATIENCE), pytest.raises(ExecutionError, match="failed"):
            await harness.dispatcher.execute([RequestSpec("lift")])
        harness.dispatcher.brake_changed(None)
        await harness.begin()
        assert harness.drives(EXECUTOR_SLOT)


async def test_mode_waits_for_a_restarting_brake(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        harness.dispatcher.brake_changed("starting")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.begin)
            await trio.testing.wait_all_tasks_blocked()
            assert not harness.drives(EXECUTOR_SLOT)
            harness.dispatcher.brake_changed(None)
        assert harness.drives(EXECUTOR_SLOT)


async def test_brake_lost_while_loading_prevents_the_mode(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        process = harness.processes[0]
        async with trio.open_nursery() as nursery:

            async def begin() -> None:
                with pytest.raises(ExecutionError, match="no brake"):
                    await harness.dispatcher.auto()

            nursery.start_soon(begin)
            await process.receive(Prepare)
            harness.dispatcher.brake_changed("no brake")
            await process.send(Loaded("studentcode.py"))
        assert harness.dispatcher.mode() == "idle"
        assert process.ended
        assert not harness.drives(EXECUTOR_SLOT)


async def test_ready_brake_opens_no_slot_of_a_stopping_robot(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        await harness.begin()
        harness.dispatcher.brake_changed("no brake")
        harness.dispatcher.close()
        harness.dispatcher.brake_changed(None)
        assert harness.leases.bar_of(EXECUTOR_SLOT) is Bar.STOPPING


async def test_autonomous_needs_no_driver(prefix: str) -> None:
    async with open_dispatcher(prefix, needs_driver=True) as harness:
        await harness.begin("auto")
        assert harness.drives(EXECUTOR_SLOT)
        harness.drive(live=False)
        assert harness.drives(EXECUTOR_SLOT)


async def test_teleop_without_a_gamepad_returns_a_hint(prefix: str) -> None:
    async with open_dispatcher(prefix, needs_driver=True) as harness:
        answers: list[str | None] = []

        async def begin() -> None:
            answers.append(await harness.dispatcher.teleop())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
            await harness.processes[0].receive(Prepare)
            await harness.processes[0].send(Loaded("studentcode.py"))
        assert "no gamepad is connected" in str(answers[0])


async def test_refused_caller_can_still_stop_the_robot(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        await harness.begin()
        harness.driver.refusal = "blue has control of the robot, not red"
        for begin in (harness.dispatcher.auto, harness.dispatcher.teleop):
            with pytest.raises(ExecutionError, match="blue has control"):
                await begin()
        with pytest.raises(ExecutionError, match="blue has control"):
            await harness.dispatcher.execute([RequestSpec("spin")])
        assert harness.dispatcher.mode() == "auto"
        await harness.dispatcher.idle()
        assert harness.dispatcher.mode() == "idle"
        harness.dispatcher.estop()
        assert harness.stops == [False]


LONGER = [("lift", 0.6), ("teleop_main", 3600.0), ("other", 1.1)]


@pytest.mark.parametrize(("func", "asked"), LONGER)
@pytest.mark.parametrize("insecure", [False, True])
async def test_station_cannot_lengthen_a_time_limit(
    prefix: str, func: str, asked: float, *, insecure: bool
) -> None:
    async with open_dispatcher(prefix, insecure=insecure) as harness:
        set_caller(Caller(b"panel" if insecure else b"blue/panel", is_routed=True))
        for requests in (
            [RequestSpec(func, timeout=asked)],
            [RequestSpec("lift"), RequestSpec(func, timeout=asked, periodic=True)],
        ):
            with pytest.raises(
                ExecutionError,
                match=f"{func} has a time limit of .* which a station can only shorten",
            ):
                await harness.dispatcher.execute(requests)
        assert harness.dispatcher.mode() == "idle"


@pytest.mark.parametrize(
    ("peer", "asked"),
    [(b"blue/panel", 0.5), (b"blue/panel", 0.1), (b"blue/panel", None), (b"client-7", 3600.0)],
)
async def test_allowed_time_limit_reaches_the_process(
    prefix: str, peer: bytes, asked: float | None
) -> None:
    async with open_dispatcher(prefix) as harness:
        set_caller(Caller(peer, is_routed=True))
        harness.nursery.start_soon(harness.dispatcher.execute, [RequestSpec("lift", timeout=asked)])
        prepare = await harness.processes[0].receive(Prepare)
        assert [spec.timeout for spec in prepare.requests] == [asked]


async def test_idle_returns_when_the_devices_are_disabled(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        await harness.begin()
        harness.moving = True
        answered = trio.Event()

        async def idle() -> None:
            await harness.dispatcher.idle()
            answered.set()

        harness.nursery.start_soon(idle)
        await harness.until_idle()
        await trio.sleep(0.05)
        assert not answered.is_set()
        harness.moving = False
        with trio.fail_after(PATIENCE):
            await answered.wait()


async def test_idle_raises_if_the_standstill_is_not_confirmed(prefix: str) -> None:
    async with open_dispatcher(prefix, standstill_limit=0.01) as harness:
        harness.moving = True
        with pytest.raises(DeviceError, match="does not confirm"):
            await harness.dispatcher.idle()


async def test_flood_of_messages_does_not_block_other_tasks(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        process = await harness.begin()
        flood = messages.encode(Loaded("x" * 10_000))

        async def send() -> None:
            with contextlib.suppress(OSError, trio.ClosedResourceError):
                while True:
                    await process.send(flood)

        harness.nursery.start_soon(send)
        await trio.sleep(0.1)
        with trio.fail_after(PATIENCE):
            await harness.dispatcher.idle()
        assert harness.dispatcher.mode() == "idle"


async def test_driver_that_becomes_live_during_idle_opens_no_slot(prefix: str) -> None:
    async with open_dispatcher(prefix, needs_driver=True) as harness:
        await harness.begin("teleop")

        async def become_live() -> None:
            for _ in range(20):
                harness.drive(live=True)
                assert not harness.drives(EXECUTOR_SLOT)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.dispatcher.idle)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(become_live)


async def test_stopping_robot_moves_nothing_and_begins_no_mode(prefix: str) -> None:
    async with open_dispatcher(prefix, needs_driver=True) as harness:
        await harness.begin("teleop")
        harness.drive(live=True)
        assert harness.drives(EXECUTOR_SLOT)
        harness.dispatcher.close()
        assert not harness.drives(EXECUTOR_SLOT)
        harness.drive(live=True)
        assert not harness.drives(EXECUTOR_SLOT)
        assert not harness.drives(FIRST_SESSION_SLOT)
        with pytest.raises(ExecutionError, match="is stopping"):
            await harness.dispatcher.auto()


async def test_no_slot_is_open_at_first(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        assert not any(harness.drives(slot) for slot in range(SLOTS))


async def test_execute_returns_what_the_driver_must_do(prefix: str) -> None:
    async with open_dispatcher(prefix, needs_driver=True) as harness:
        answers: list[str | None] = []

        async def execute() -> None:
            answers.append(await harness.dispatcher.execute([RequestSpec("spin")]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(execute)
            await harness.processes[0].receive(Prepare)
            await harness.processes[0].send(Loaded("studentcode.py"))
        assert answers == ["no gamepad is connected"]


async def test_texts_of_team_code_are_cut(prefix: str) -> None:
    async with open_dispatcher(prefix) as harness:
        process = harness.processes[0]

        async def refuse() -> None:
            await process.receive(Prepare)
            await process.send(Refused("x" * 100_000, {"file": "y" * 10_000}))

        harness.nursery.start_soon(refuse)
        with pytest.raises(ExecutionError) as caught:
            await harness.dispatcher.auto()
        assert len(caught.value.message) < 5000
        assert len(caught.value.context["file"]) < 5000
