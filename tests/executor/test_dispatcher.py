"""The dispatcher in the root, with executor processes that the test plays."""

import contextlib
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from rt.buffer import Doorbell, LeaseTable
from rt.buffer.bells import EXECUTOR_SEAT, FIRST_VISITOR_SEAT, STANDBY_SEAT
from rt.buffer.lease import DRIVER_BARS, SLOTS, Bar
from rt.errors import DeviceError, ExecutionError
from rt.executor import commands, dispatcher
from rt.executor.commands import Go, Loaded, Mode, Over, Prepare, Refused, RequestSpec
from rt.executor.dispatcher import Dispatcher
from rt.executor.pool import Assignment
from rt.remote.caller import Caller, set_caller

PATIENCE = 30


class Process:
    """An executor process that the test plays."""

    def __init__(self, name: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.spec = SimpleNamespace(name=name)
        self.channel: Any = trio.socket.from_stdlib_socket(ours)
        self._theirs = trio.socket.from_stdlib_socket(theirs)
        self.ended: list[str] = []
        self.is_stubborn = self.is_gone = self.killed = False

    async def hears(self, kind: type[Any]) -> Any:
        with trio.fail_after(PATIENCE):
            message = commands.decode_command(await self._theirs.recv(commands.MAX_MESSAGE))
        assert isinstance(message, kind)
        return message

    async def say(self, message: commands.Answer | bytes) -> None:
        await self._theirs.send(message if isinstance(message, bytes) else commands.encode(message))

    def end(self) -> None:
        self._theirs.close()

    def close(self) -> None:
        self._theirs.close()
        self.channel.close()


class Pool:
    """Gives the played processes in turn."""

    def __init__(self, *processes: Process) -> None:
        self.free = list(processes)

    async def acquire(self) -> Any:
        await trio.lowlevel.checkpoint()
        if not self.free:
            raise ExecutionError("no process can run the team's code: the executor is backoff (exited with code 1)")
        return SimpleNamespace(child=self.free.pop(0), pid=1)

    def prepare_next(self) -> None:
        pass

    async def ended(self, _process: Assignment, *, within: float) -> None:
        assert within > 0
        await trio.lowlevel.checkpoint()

    async def gone(self, process: Any) -> None:
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
    """A driver who is live or not, as the test says."""

    def __init__(self) -> None:
        self.is_live = False
        self.absence = Bar.DRIVER
        self.refusal: str | None = None

    @property
    def bar(self) -> Bar:
        return Bar.NONE if self.is_live else self.absence

    def begin(self) -> str | None:
        return None if self.is_live else "no gamepad is connected"

    def may_command(self, caller: Caller) -> str | None:
        del caller
        return self.refusal


class Stage:
    def __init__(
        self, leases: LeaseTable, bell: Doorbell, nursery: trio.Nursery, *, needs_driver: bool, insecure: bool
    ) -> None:
        self.leases = leases
        self.nursery = nursery
        self.processes = [Process("executor"), Process("standby"), Process("executor")]
        self.stops: list[bool] = []
        self.noted: list[tuple[bool, bool]] = []
        self.driver = Driver()
        self.moving = False
        self.pool = Pool(*self.processes)
        self.dispatcher = Dispatcher(
            self.pool,  # type: ignore[arg-type]
            leases,
            bell,
            needs_driver=needs_driver,
            is_moving=lambda: self.moving,
            on_estop=lambda: self.stops.append(bool(leases.fresh())),
            time_limit={"lift": 0.5, "teleop_main": 0.05}.get,
            insecure=insecure,
            on_mode=self.note_mode,
        )
        self.dispatcher.driver = self.driver

    def note_mode(self, running: bool) -> None:
        """Bar the slots of visitors as the root does, and note whether a mode could move devices just then."""
        self.noted.append((running, bool(self.leases.fresh())))
        for seat in range(FIRST_VISITOR_SEAT, SLOTS):
            self.leases.bar(seat, Bar.MODE if running else Bar.IDLE)

    def drive(self, *, live: bool) -> None:
        self.driver.is_live = live
        self.dispatcher.driver_changed()

    async def begin(self, mode: str = "auto", process: int = 0) -> Process:
        """Begin a mode and play its process until it runs."""
        played = self.processes[process]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(getattr(self.dispatcher, mode))
            await played.hears(Prepare)
            await played.say(Loaded("studentcode.py"))
            await played.hears(Go)
        return played

    async def until_idle(self) -> None:
        with trio.fail_after(PATIENCE):
            while self.dispatcher.mode() != "idle":  # noqa: ASYNC110 - the service answers and tells nobody
                await trio.sleep(0.001)

    def drives(self, seat: int) -> bool:
        """Whether a process of that seat could move devices now."""
        self.leases.beat()
        return self.leases.slot(seat).begin() and bool(self.leases.fresh())


@contextlib.asynccontextmanager
async def open_stage(prefix: str, *, needs_driver: bool = False, insecure: bool = False) -> AsyncIterator[Stage]:
    bell = Doorbell()
    try:
        with LeaseTable.open(prefix) as leases:
            async with trio.open_nursery() as nursery:
                stage = Stage(leases, bell, nursery, needs_driver=needs_driver, insecure=insecure)
                try:
                    await nursery.start(stage.dispatcher.run)
                    yield stage
                finally:
                    nursery.cancel_scope.cancel()
                    for process in stage.processes:
                        process.close()
    finally:
        bell.close()


async def test_a_process_can_drive_only_while_its_mode_runs(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        assert not stage.drives(EXECUTOR_SEAT)
        await stage.begin()
        assert stage.dispatcher.mode() == "auto"
        assert stage.drives(EXECUTOR_SEAT)
        assert not stage.drives(STANDBY_SEAT)
        await stage.dispatcher.idle()
        assert stage.dispatcher.mode() == "idle"
        assert not stage.drives(EXECUTOR_SEAT)


async def test_code_that_is_being_loaded_cannot_drive(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        process = stage.processes[0]
        stage.nursery.start_soon(stage.dispatcher.auto)
        await process.hears(Prepare)
        assert not stage.drives(EXECUTOR_SEAT)
        assert stage.dispatcher.mode() == "idle"
        await process.say(Loaded("studentcode.py"))
        await process.hears(Go)
        assert stage.drives(EXECUTOR_SEAT)


async def test_idle_ends_every_lease_before_it_waits_for_the_process(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        process = await stage.begin()
        process.end = lambda: None  # type: ignore[method-assign]  # it is stopped, or spins
        stage.leases.unbar(FIRST_VISITOR_SEAT)  # as the desk does for a visitor
        visitor = stage.leases.slot(FIRST_VISITOR_SEAT)
        assert visitor.begin()
        assert stage.drives(EXECUTOR_SEAT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.dispatcher.idle)
            await trio.testing.wait_all_tasks_blocked()
            assert not stage.leases.fresh()
            assert not visitor.renew(), "rt write ends too"
            assert stage.dispatcher.mode() == "idle"
            Process.end(process)


async def test_idle_does_not_wait_for_ever_for_a_process_that_hangs(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "END_LIMIT", 0.01)
    async with open_stage(prefix) as stage:
        process = await stage.begin()
        process.end = lambda: None  # type: ignore[method-assign]
        with trio.fail_after(PATIENCE):
            await stage.dispatcher.idle()
        assert process.ended


async def test_an_emergency_stop_bars_every_slot_first_and_then_ends_the_robot(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        await stage.begin()
        assert stage.drives(EXECUTOR_SEAT)
        stage.dispatcher.estop()
        assert stage.stops == [False], "nothing could move when the robot was told to end"
        for seat in (EXECUTOR_SEAT, STANDBY_SEAT, FIRST_VISITOR_SEAT):
            assert not stage.drives(seat)
        await stage.dispatcher.idle()
        assert not stage.drives(EXECUTOR_SEAT), "it is final"


async def test_the_next_mode_runs_in_another_process(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        first = await stage.begin("auto")
        await stage.begin("teleop", process=1)
        assert first.ended[0] == "teleop begins"
        assert stage.dispatcher.mode() == "teleop"
        assert not stage.drives(EXECUTOR_SEAT)
        assert stage.drives(STANDBY_SEAT)


async def test_code_that_cannot_be_loaded_is_the_callers_answer(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        process = stage.processes[0]

        async def refuse() -> None:
            await process.hears(Prepare)
            await process.say(Refused("studentcode.py:3: invalid syntax", {"line": 3}))

        stage.nursery.start_soon(refuse)
        with pytest.raises(ExecutionError, match="invalid syntax") as caught:
            await stage.dispatcher.auto()
        assert caught.value.context == {"line": 3}
        assert stage.dispatcher.mode() == "idle"
        assert process.ended
        assert not stage.drives(EXECUTOR_SEAT)


@pytest.mark.parametrize(
    "last",
    [b"\x93\x01", b"", b"\xc1" * 100, b"\x91" * 100_000, b"\x82\xa4type\xa6Loaded\xa4path\xa1\xff"],
    ids=["short", "nothing", "no message", "deep", "not UTF-8"],
)
async def test_a_process_that_dies_or_talks_nonsense_while_it_loads_is_an_error(prefix: str, last: bytes) -> None:
    async with open_stage(prefix) as stage:
        process = stage.processes[0]

        async def die() -> None:
            await process.hears(Prepare)
            if last:
                await process.say(last)
            process.end()

        stage.nursery.start_soon(die)
        with pytest.raises(ExecutionError, match=r"has ended|cannot be read"):
            await stage.dispatcher.auto()
        assert stage.dispatcher.mode() == "idle"


async def test_a_process_that_dies_ends_its_mode(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        process = await stage.begin()
        process.end()
        await stage.until_idle()
        assert process.ended
        assert not stage.drives(EXECUTOR_SEAT)


async def test_a_mode_that_ends_by_itself_makes_the_robot_idle(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        process = await stage.begin()
        await process.say(Over("setup failed: the mode ends"))
        await stage.until_idle()
        assert process.ended == ["its mode is over"] * len(process.ended)
        assert not stage.drives(EXECUTOR_SEAT)


async def test_a_blocking_execute_answers_with_the_error_that_ended_it(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        process = stage.processes[0]

        async def play() -> None:
            prepare = await process.hears(Prepare)
            assert prepare.mode == Mode.TELEOP
            assert [spec.func for spec in prepare.requests] == ["a", "b"]
            await process.say(Loaded("studentcode.py"))
            await process.hears(Go)
            await process.say(Over("a failed: the mode ends", {"func": "a"}))

        stage.nursery.start_soon(play)
        with pytest.raises(ExecutionError, match="a failed") as caught:
            await stage.dispatcher.execute([RequestSpec("a"), RequestSpec("b")], block=True)
        assert caught.value.context == {"func": "a"}


async def test_idle_wins_over_a_mode_that_is_about_to_begin(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        process = stage.processes[0]
        failures: list[str] = []

        async def begin() -> None:
            try:
                await stage.dispatcher.auto()
            except ExecutionError as error:
                failures.append(error.message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
            await process.hears(Prepare)
            await process.say(Loaded("studentcode.py"))
            await stage.dispatcher.idle()
        assert failures == ["auto has not begun: the robot was told to be idle"]
        assert process.ended
        assert not stage.drives(EXECUTOR_SEAT)


async def test_without_a_process_the_caller_is_told_why(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        stage.pool.free.clear()
        with pytest.raises(ExecutionError, match="the executor is backoff"):
            await stage.dispatcher.auto()


async def test_teleop_cannot_drive_without_a_driver(prefix: str) -> None:
    async with open_stage(prefix, needs_driver=True) as stage:
        await stage.begin("teleop")
        assert stage.leases.bar_of(EXECUTOR_SEAT) is Bar.DRIVER
        assert not stage.drives(EXECUTOR_SEAT)
        stage.drive(live=True)
        assert stage.drives(EXECUTOR_SEAT)
        stage.drive(live=False)
        assert not stage.leases.fresh()
        assert not stage.drives(EXECUTOR_SEAT)
        await stage.dispatcher.idle()
        stage.drive(live=True)
        assert not stage.drives(EXECUTOR_SEAT), "a driver alone begins no mode"


@pytest.mark.parametrize("absence", sorted(DRIVER_BARS))
async def test_teleop_is_barred_for_the_reason_of_the_driver(prefix: str, absence: Bar) -> None:
    async with open_stage(prefix, needs_driver=True) as stage:
        stage.drive(live=True)
        await stage.begin("teleop")
        stage.driver.absence = absence
        stage.drive(live=False)
        lease = stage.leases.slot(EXECUTOR_SEAT)
        assert (lease.bar, lease.cause) == (absence, absence)
        stage.drive(live=True)
        assert stage.drives(EXECUTOR_SEAT)


async def test_a_mode_that_begins_ends_the_leases_of_commands(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        visitors = [stage.leases.slot(seat) for seat in range(FIRST_VISITOR_SEAT, SLOTS)]
        stage.leases.beat()
        for seat, visitor in enumerate(visitors, FIRST_VISITOR_SEAT):
            stage.leases.unbar(seat)
            assert visitor.begin()
        await stage.begin()
        assert not any(visitor.renew() for visitor in visitors)
        assert {visitor.cause for visitor in visitors} == {Bar.MODE}


async def test_no_visitor_moves_devices_until_the_process_of_the_mode_is_gone(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        stage.processes[0].is_stubborn = True
        process = await stage.begin()
        assert stage.noted == [(True, False)], "before the mode may move devices"
        await stage.dispatcher.idle()
        assert process.ended
        assert len(stage.noted) == 1
        process.is_gone = True
        with trio.fail_after(PATIENCE):
            while len(stage.noted) == 1:  # noqa: ASYNC110 - the callback wakes no task
                await trio.sleep(0.001)
        assert stage.noted[1:] == [(False, False)]


async def test_process_that_outlives_its_mode_is_killed_before_the_next_one_may_move_devices(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        stage.processes[0].is_stubborn = True
        first = await stage.begin()
        await stage.begin("teleop", 1)
        assert first.killed
        assert stage.noted[-1][0], "no visitor may move devices beside the second mode"
        assert stage.drives(STANDBY_SEAT) or stage.drives(EXECUTOR_SEAT)


@pytest.mark.parametrize("end", ["idle", "by itself"])
async def test_process_of_a_mode_that_has_ended_is_killed_before_the_next_one_begins(prefix: str, end: str) -> None:
    async with open_stage(prefix) as stage:
        stage.processes[0].is_stubborn = True
        first = await stage.begin()
        if end == "idle":
            await stage.dispatcher.idle()
        else:
            await first.say(Over("", {}))
            await stage.until_idle()
        await stage.begin("teleop", 1)
        assert first.killed


async def test_no_mode_begins_beside_a_process_that_cannot_be_killed(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "END_LIMIT", 0.01)
    monkeypatch.setattr(Pool, "kill", lambda *_: None)
    async with open_stage(prefix) as stage:
        stage.processes[0].is_stubborn = True
        await stage.begin()
        with pytest.raises(ExecutionError, match="the process of the last mode cannot be ended"):
            await stage.dispatcher.teleop()


async def test_commands_are_barred_while_code_is_loaded(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        stage.nursery.start_soon(stage.dispatcher.auto)
        await stage.processes[0].hears(Prepare)
        assert stage.noted == [(True, False)]


async def test_memory_that_is_overwritten_while_code_is_loaded_begins_no_mode(prefix: str) -> None:
    async with open_stage(prefix) as stage:

        async def load() -> None:
            await stage.processes[0].hears(Prepare)
            stage.dispatcher.memory_overwritten("a buffer was overwritten")

        stage.nursery.start_soon(load)
        with pytest.raises(ExecutionError, match="a buffer was overwritten"):
            await stage.dispatcher.auto()
        assert stage.processes[0].ended


async def test_a_call_to_stop_acts_before_its_turn(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        process = await stage.begin()
        assert stage.drives(EXECUTOR_SEAT)
        stage.dispatcher.at_once["idle"]()
        assert not stage.drives(EXECUTOR_SEAT)
        assert stage.dispatcher.mode() == "idle"
        assert process.ended
        await stage.dispatcher.idle()
        stage.dispatcher.at_once["estop"]()
        assert stage.stops == [False]


async def test_a_mode_ends_for_want_of_a_brake(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        process = await stage.begin()
        assert stage.drives(EXECUTOR_SEAT)
        stage.dispatcher.brake_changed("no brake")
        assert not stage.leases.fresh()
        assert stage.dispatcher.mode() == "idle"
        assert stage.leases.bar_of(EXECUTOR_SEAT) is stage.leases.cause_of(EXECUTOR_SEAT) is Bar.BRAKE
        assert process.ended
        await stage.dispatcher.idle()
        assert stage.leases.bar_of(EXECUTOR_SEAT) is Bar.BRAKE
        stage.dispatcher.brake_changed(None)
        assert stage.leases.bar_of(EXECUTOR_SEAT) is Bar.IDLE
        assert not stage.drives(EXECUTOR_SEAT)


async def test_without_a_brake_modes_are_refused_with_the_reason(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "BRAKE_LIMIT", 0.01)
    async with open_stage(prefix) as stage:
        stage.dispatcher.brake_changed("it is started")
        stage.dispatcher.brake_changed("it has failed")
        for begin in (stage.dispatcher.auto, stage.dispatcher.teleop):
            with trio.fail_after(PATIENCE), pytest.raises(ExecutionError, match="it has failed"):
                await begin()
        with trio.fail_after(PATIENCE), pytest.raises(ExecutionError, match="it has failed"):
            await stage.dispatcher.execute([RequestSpec("lift")])
        stage.dispatcher.brake_changed(None)
        await stage.begin()
        assert stage.drives(EXECUTOR_SEAT)


async def test_a_mode_waits_for_a_brake_that_restarts(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        stage.dispatcher.brake_changed("it is started")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.begin)
            await trio.testing.wait_all_tasks_blocked()
            assert not stage.drives(EXECUTOR_SEAT)
            stage.dispatcher.brake_changed(None)
        assert stage.drives(EXECUTOR_SEAT)


async def test_a_brake_that_is_lost_while_code_is_loaded_begins_no_mode(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        process = stage.processes[0]
        async with trio.open_nursery() as nursery:

            async def begin() -> None:
                with pytest.raises(ExecutionError, match="no brake"):
                    await stage.dispatcher.auto()

            nursery.start_soon(begin)
            await process.hears(Prepare)
            stage.dispatcher.brake_changed("no brake")
            await process.say(Loaded("studentcode.py"))
        assert stage.dispatcher.mode() == "idle"
        assert process.ended
        assert not stage.drives(EXECUTOR_SEAT)


async def test_a_robot_that_is_being_stopped_is_not_opened_by_its_brake(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        await stage.begin()
        stage.dispatcher.brake_changed("no brake")
        stage.dispatcher.close()
        stage.dispatcher.brake_changed(None)
        assert stage.leases.bar_of(EXECUTOR_SEAT) is Bar.STOPPING


async def test_autonomous_needs_no_driver(prefix: str) -> None:
    async with open_stage(prefix, needs_driver=True) as stage:
        await stage.begin("auto")
        assert stage.drives(EXECUTOR_SEAT)
        stage.drive(live=False)
        assert stage.drives(EXECUTOR_SEAT)


async def test_teleop_without_a_gamepad_says_so(prefix: str) -> None:
    async with open_stage(prefix, needs_driver=True) as stage:
        answers: list[str | None] = []

        async def begin() -> None:
            answers.append(await stage.dispatcher.teleop())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
            await stage.processes[0].hears(Prepare)
            await stage.processes[0].say(Loaded("studentcode.py"))
        assert "no gamepad is connected" in str(answers[0])


async def test_who_may_not_command_is_told_why_and_may_still_stop_the_robot(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        await stage.begin()
        stage.driver.refusal = "blue has control of the robot, not red"
        for begin in (stage.dispatcher.auto, stage.dispatcher.teleop):
            with pytest.raises(ExecutionError, match="blue has control"):
                await begin()
        with pytest.raises(ExecutionError, match="blue has control"):
            await stage.dispatcher.execute([RequestSpec("spin")])
        assert stage.dispatcher.mode() == "auto"
        await stage.dispatcher.idle()
        assert stage.dispatcher.mode() == "idle"
        stage.dispatcher.estop()
        assert stage.stops == [False]


LONGER = [("lift", 0.6), ("teleop_main", 3600.0), ("other", 1.1)]


@pytest.mark.parametrize(("func", "asked"), LONGER)
@pytest.mark.parametrize("insecure", [False, True])
async def test_no_station_lengthens_a_time_limit(prefix: str, func: str, asked: float, *, insecure: bool) -> None:
    async with open_stage(prefix, insecure=insecure) as stage:
        set_caller(Caller(b"panel" if insecure else b"blue/panel", is_routed=True))
        for requests in (
            [RequestSpec(func, timeout=asked)],
            [RequestSpec("lift"), RequestSpec(func, timeout=asked, periodic=True)],
        ):
            with pytest.raises(ExecutionError, match=f"{func} has a time limit of .* which a station can only shorten"):
                await stage.dispatcher.execute(requests)
        assert stage.dispatcher.mode() == "idle"


@pytest.mark.parametrize(
    ("peer", "asked"), [(b"blue/panel", 0.5), (b"blue/panel", 0.1), (b"blue/panel", None), (b"client-7", 3600.0)]
)
async def test_a_time_limit_that_a_caller_may_choose_reaches_the_process(
    prefix: str, peer: bytes, asked: float | None
) -> None:
    async with open_stage(prefix) as stage:
        set_caller(Caller(peer, is_routed=True))
        stage.nursery.start_soon(stage.dispatcher.execute, [RequestSpec("lift", timeout=asked)])
        prepare = await stage.processes[0].hears(Prepare)
        assert [spec.timeout for spec in prepare.requests] == [asked]


async def test_idle_answers_when_the_devices_have_been_told_to_stop(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        await stage.begin()
        stage.moving = True
        answered = trio.Event()

        async def idle() -> None:
            await stage.dispatcher.idle()
            answered.set()

        stage.nursery.start_soon(idle)
        await stage.until_idle()
        await trio.sleep(0.05)
        assert not answered.is_set()
        stage.moving = False
        with trio.fail_after(PATIENCE):
            await answered.wait()


async def test_idle_says_so_if_the_devices_were_not_seen_to_stop(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "STILL_LIMIT", 0.01)
    async with open_stage(prefix) as stage:
        stage.moving = True
        with pytest.raises(DeviceError, match="does not confirm"):
            await stage.dispatcher.idle()


async def test_a_flood_of_messages_keeps_no_other_task_from_running(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        process = await stage.begin()
        flood = commands.encode(Loaded("x" * 10_000))

        async def send() -> None:
            with contextlib.suppress(OSError, trio.ClosedResourceError):
                while True:
                    await process.say(flood)

        stage.nursery.start_soon(send)
        await trio.sleep(0.1)
        with trio.fail_after(PATIENCE):
            await stage.dispatcher.idle()
        assert stage.dispatcher.mode() == "idle"


async def test_a_driver_who_becomes_live_while_the_robot_becomes_idle_opens_nothing(prefix: str) -> None:
    async with open_stage(prefix, needs_driver=True) as stage:
        await stage.begin("teleop")

        async def come() -> None:
            for _ in range(20):
                stage.drive(live=True)
                assert not stage.drives(EXECUTOR_SEAT)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.dispatcher.idle)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(come)


async def test_a_robot_that_is_being_stopped_moves_nothing_and_begins_no_mode(prefix: str) -> None:
    async with open_stage(prefix, needs_driver=True) as stage:
        await stage.begin("teleop")
        stage.drive(live=True)
        assert stage.drives(EXECUTOR_SEAT)
        stage.dispatcher.close()
        assert not stage.drives(EXECUTOR_SEAT)
        stage.drive(live=True)
        assert not stage.drives(EXECUTOR_SEAT)
        assert not stage.drives(FIRST_VISITOR_SEAT)
        with pytest.raises(ExecutionError, match="is being stopped"):
            await stage.dispatcher.auto()


async def test_at_first_no_slot_is_open(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        assert not any(stage.drives(seat) for seat in range(SLOTS))


async def test_execute_says_what_the_driver_has_to_do(prefix: str) -> None:
    async with open_stage(prefix, needs_driver=True) as stage:
        answers: list[str | None] = []

        async def execute() -> None:
            answers.append(await stage.dispatcher.execute([RequestSpec("spin")]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(execute)
            await stage.processes[0].hears(Prepare)
            await stage.processes[0].say(Loaded("studentcode.py"))
        assert answers == ["no gamepad is connected"]


async def test_what_team_code_says_is_clipped(prefix: str) -> None:
    async with open_stage(prefix) as stage:
        process = stage.processes[0]

        async def refuse() -> None:
            await process.hears(Prepare)
            await process.say(Refused("x" * 100_000, {"file": "y" * 10_000}))

        stage.nursery.start_soon(refuse)
        with pytest.raises(ExecutionError) as caught:
            await stage.dispatcher.auto()
        assert len(caught.value.message) < 5000
        assert len(caught.value.context["file"]) < 5000
