"""The executor's service in the root: the robot's mode and how it changes.

The service runs in the root so that ``idle`` and ``estop`` never depend on a process that runs team
code. They revoke the leases first, which disables every device, and end the team code afterwards.

Invariant: each mode runs in a process of its own (`rt.executor.pool`), and the process's slot of
the lease table is open only while its mode runs. A process that does not end is killed.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import trio

from rt import log
from rt.buffer import LeaseTable
from rt.buffer.lease import Bar
from rt.buffer.write_event import WriteEvent
from rt.errors import DeviceError, ExecutionError, RemoteProtocolError
from rt.executor import messages
from rt.executor.messages import Requests, RequestSpec
from rt.executor.pool import EXECUTOR_SLOTS, Assignment, ExecutorPool
from rt.protocol import structs
from rt.remote import Bounds, Handler, route
from rt.remote.caller import Caller, caller
from rt.team.api import Mode
from rt.text import clip

LOAD_LIMIT: Final = 12.0
"""How long a process may take to load team code, in s; it aborts an import before that."""
STALLED: Final = "the robot's main process was suspended: start the mode again"
"""Why a mode ends after the root was stalled."""
END_LIMIT: Final = 2.0
"""How long a process may take to end with its mode, in s; the supervisor kills it before that."""
EXECUTE_BOUNDS: Final = Bounds(message=1 << 14, text=4096, items=256, values=1024)
"""Bounds of the arguments of requests."""
EXIT_LIMIT: Final = 0.1
"""How long a process that has closed its channel may take to exit by itself, in s."""
_MESSAGE_PAUSE: Final = 0.01
"""Minimum time between two messages of a process, in s.

A process sends two messages, unless team code floods its channel.
"""
_PATH_MAX: Final = 4096
_TEXT_MAX: Final = 4096
_IDLE: Final = "idle was requested"
BRAKE_LIMIT: Final = 5.0
"""How long a mode waits for a ready brake, in s."""
STANDSTILL_LIMIT: Final = 0.5
"""How long the device process may take to confirm that it has disabled the devices, in s."""
_STANDSTILL_POLL: Final = 0.002
HANDOVER_LIMIT: Final = 0.2
"""How long a process may take to exit before the next mode begins, in s; then it is killed."""


class _ModeRun:
    """A mode and its process, as the root sees them.

    Attributes:
        process: The process.
        mode: The mode.
        answered: Set when the code is loaded or refused.
        path: The file of the team code, once it is loaded.
        over: Set when the mode is over.
        error: What ended the mode, or None.
        channel_closed: Set when the process has closed its channel.
        reaped: Set when the supervisor has reaped the process.
    """

    def __init__(self, process: Assignment, mode: Mode) -> None:
        self.process = process
        self.mode = mode
        self.answered = trio.Event()
        self.path = ""
        self.over = trio.Event()
        self.error: ExecutionError | None = None
        self.channel_closed = trio.Event()
        self.reaped = trio.Event()

    @property
    def slot(self) -> int:
        """The slot of the lease table that is open for the process while the mode runs."""
        return EXECUTOR_SLOTS[self.process.child.spec.name]

    def handle(self, data: bytes) -> None:
        """Handle a message of the process.

        Raises:
            RemoteProtocolError: The message is invalid.
        """
        answer: messages.Answer = structs.decode(data, messages.Answer)
        match answer:
            case messages.Loaded(path):
                self.path = self.path or path[:_PATH_MAX]
                self.answered.set()
            case messages.Refused(message, context):
                self.finish(_error(message, context))
            case messages.Over(message, context):
                self.finish(_error(message, context) if message else None)

    def raise_unless_loaded(self) -> None:
        """Raise if the code is not loaded.

        Raises:
            ExecutionError: Why.
        """
        if self.error is not None:
            raise self.error
        if not self.path:
            raise ExecutionError("team code was not loaded in time: see the log")

    def finish(self, error: ExecutionError | None) -> None:
        """Record how the mode ended; only the first call counts."""
        if not self.over.is_set():
            self.error = error
            self.over.set()
            self.answered.set()


class Driver(Protocol):
    """The state of the driver that the dispatcher needs."""

    @property
    def bar(self) -> Bar:
        """Why the driver cannot move the robot, for the log; `Bar.NONE` while live."""

    def begin(self) -> str | None:
        """Begin a mode that the driver commands.

        Returns:
            What a person must do before anything moves, or None.
        """

    def may_command(self, caller: Caller) -> str | None:
        """Return why a caller may not move the robot now, or None."""


class Dispatcher(Handler):
    """Starts and ends modes.

    Args:
        pool: The processes in which modes run.
        leases: The lease table, where the processes' slots are opened and barred.
        write_event: Wakes the device process, which then checks the leases.
        needs_driver: Whether teleop moves devices only while the driver is live.
        is_moving: Returns whether a device may still move, as the device process reports it.
        on_estop: Called at an emergency stop, when every lease has ended; must stop the robot.
        time_limit: Returns the time limit or period of a function in s, or None; a station can only
            shorten it.
        insecure: Whether the robot is open to the network without keys, so that any caller may be
            remote.
        on_mode: Called with True before a mode may move devices, and with False when no process of
            a mode is left.
        end_limit: See `END_LIMIT`.
        brake_limit: See `BRAKE_LIMIT`.
        standstill_limit: See `STANDSTILL_LIMIT`.

    Attributes:
        driver: The driver, once the broker has set it.
    """

    bounds = Bounds(message=1024)

    def __init__(
        self,
        pool: ExecutorPool,
        leases: LeaseTable,
        write_event: WriteEvent,
        *,
        needs_driver: bool,
        is_moving: Callable[[], bool],
        on_estop: Callable[[], None],
        time_limit: Callable[[str], float | None],
        insecure: bool,
        on_mode: Callable[[bool], None] = lambda _running: None,
        end_limit: float = END_LIMIT,
        brake_limit: float = BRAKE_LIMIT,
        standstill_limit: float = STANDSTILL_LIMIT,
    ) -> None:
        self._pool = pool
        self._leases = leases
        self._write_event = write_event
        self._needs_driver = needs_driver
        self._is_moving = is_moving
        self._on_estop = on_estop
        self._time_limit = time_limit
        self._is_insecure = insecure
        self._on_mode = on_mode
        self._end_limit = end_limit
        self._brake_limit = brake_limit
        self._standstill_limit = standstill_limit
        self._unreaped: set[_ModeRun] = set()
        self.driver: Driver | None = None
        self._lock = trio.Lock()
        self._pending_starts: set[trio.CancelScope] = set()
        self._nursery: trio.Nursery | None = None
        self._current: _ModeRun | None = None
        self._hint: str | None = None
        self._closed = False
        self._brake_refusal: str | None = None
        self._brake_waiters = trio.lowlevel.ParkingLot()
        self._log = log.get_logger()
        leases.bar_all(Bar.IDLE)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the modes until cancelled; then end every lease."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._stop_motion()

    def close(self) -> None:
        """Bar every lease, because the robot is stopping. Returns at once."""
        self._closed = True
        self._leases.bar_all(Bar.STOPPING)
        self._write_event.signal()

    def brake_changed(self, refusal: str | None) -> None:
        """Bar all modes while no brake is ready. Returns at once.

        Args:
            refusal: Why nothing may move and what to do; None if a brake is ready.
        """
        was, self._brake_refusal = self._brake_refusal, refusal
        if (was is None) == (refusal is None) or self._closed:
            return
        if refusal is None:
            self._brake_waiters.unpark_all()
        else:
            self.end_mode(refusal)
        self._bar_idle()

    def memory_overwritten(self, reason: str) -> None:
        """End the mode, also one that is starting, and every lease: a buffer was overwritten.

        Returns at once.
        """
        for mode_run in tuple(self._unreaped):
            self._abort(mode_run, reason)
        if not self._closed:
            self._stop_motion(Bar.DAMAGED)

    def end_mode(self, reason: str) -> None:
        """End the current mode, if any. Returns at once."""
        if self._current is not None:
            self._abort(self._current, reason)

    def driver_changed(self) -> None:
        """Open or bar teleop's slot after the driver's state changed. Returns at once."""
        if self._current is not None:
            self._update_bar(self._current)

    @route(starts=True)
    async def auto(self) -> None:
        """Begin autonomous: call autonomous_setup once, then autonomous_main at its period.

        Gamepads read neutral.
        """
        await self._begin_standard(Mode.AUTO, "autonomous", gamepads=False)

    @route(starts=True)
    async def teleop(self) -> str | None:
        """Begin teleop: call teleop_setup once, then teleop_main at its period.

        The result says what the driver must do before anything moves, or is null.
        """
        await self._begin_standard(Mode.TELEOP, "teleop", gamepads=True)
        return self._hint

    @route(urgent=True)
    async def idle(self) -> None:
        """End the mode and any mode that is starting, and disable every device.

        This includes devices that `rt write` moves. Returns when the devices are disabled and the
        mode has ended.

        Raises:
            DeviceError: The device process has not confirmed in time that the devices are disabled.
        """
        self.stop_immediately()
        ending = tuple(self._unreaped)
        async with self._lock:
            with trio.move_on_after(self._end_limit, shield=True):
                for mode_run in ending:
                    await mode_run.channel_closed.wait()
        with trio.move_on_after(self._standstill_limit):
            while self._is_moving():  # noqa: ASYNC110 - the state is in shared memory
                await trio.sleep(_STANDSTILL_POLL)
            return
        raise DeviceError(
            "the device process does not confirm that the devices are disabled: see the log"
        )

    @property
    def immediate(self) -> dict[str, Callable[[], None]]:
        """The functions for `rt.remote.Router.set_immediate_calls`, by the name of the method."""
        return {"idle": self.stop_immediately, "estop": self.estop}

    def stop_immediately(self) -> None:
        """End every lease, the mode and any mode that is starting: `idle` without the waiting."""
        self._stop_motion()
        if self._current is not None:
            # Before any checkpoint, so that nothing opens its slot again.
            self._stop_mode(self._current, _IDLE)
        for scope in self._pending_starts:
            scope.cancel(_IDLE)

    @route(inline=True, urgent=True)
    def estop(self) -> None:
        """Disable every device and stop the robot (emergency stop)."""
        self._leases.bar_all(Bar.ESTOP)
        self._write_event.signal()
        self._on_estop()

    @route(inline=True)
    def mode(self) -> str:
        """Return the robot's mode: idle, auto or teleop."""
        return (Mode.IDLE if self._current is None else self._current.mode).name.lower()

    @route(starts=True, limit=math.inf, bounds=EXECUTE_BOUNDS)
    async def execute(
        self, requests: Requests, block: bool = False, enable_gamepads: bool = True
    ) -> str | None:
        """Execute functions of team code in order; then the robot is idle.

        With gamepads, the functions move devices only while the driver is live, as in teleop. The
        result says what the driver must do before anything moves, or is null.

        As a command: rt call execute '[{"func": "wave"}]'

        Args:
            requests: What to execute: func (a name), args, timeout (s; a station can only shorten
                the robot's limit), periodic.
            block: Whether to return only when all have been executed.
            enable_gamepads: Whether gamepads can be read.

        Raises:
            ExecutionError: The code cannot be loaded or lacks a function, or a request that is not
                the last is periodic; with ``block`` also if a function failed.
        """
        self._check_limits(requests)
        mode = Mode.TELEOP if enable_gamepads else Mode.AUTO
        mode_run = await self._begin(mode, requests, gamepads=enable_gamepads, partial=False)
        if block:
            await mode_run.over.wait()
            if mode_run.error is not None:
                raise mode_run.error
        return self._hint

    def _check_limits(self, specs: Sequence[RequestSpec]) -> None:
        """Raise if a station asks for a longer time limit than the robot's options allow.

        A longer limit would let code that hangs hold its lease for longer.
        """
        if not caller().may_be_remote(insecure=self._is_insecure):
            return
        for spec in specs:
            if spec.timeout is None:
                continue
            limit = self._time_limit(spec.func) or messages.DEFAULT_TIMEOUT
            if spec.timeout > limit:
                raise ExecutionError(
                    f"{clip(spec.func)} has a time limit of {limit:g} s, which a station can only"
                    " shorten; set exec_timeout on the robot",
                    func=spec.func,
                    limit=limit,
                )

    def _require_brake(self) -> None:
        """Raise if no brake is ready.

        Raises:
            ExecutionError: What to do.
        """
        if self._brake_refusal is not None:
            raise ExecutionError(self._brake_refusal)

    async def _begin_standard(self, mode: Mode, prefix: str, *, gamepads: bool) -> None:
        specs = [RequestSpec(f"{prefix}_setup"), RequestSpec(f"{prefix}_main", periodic=True)]
        try:
            await self._begin(mode, specs, gamepads=gamepads, partial=True)
        except ExecutionError as error:
            self._log.error(error.message, mode=mode.name.lower())
            raise

    async def _begin(
        self, mode: Mode, specs: Sequence[RequestSpec], *, gamepads: bool, partial: bool
    ) -> _ModeRun:
        if self._closed:
            raise ExecutionError("the robot is stopping")
        refusal = None if self.driver is None else self.driver.may_command(caller())
        if refusal is not None:
            raise ExecutionError(refusal)
        with trio.CancelScope() as scope:
            self._pending_starts.add(scope)
            try:
                with trio.move_on_after(self._brake_limit):
                    while self._brake_refusal is not None:
                        await self._brake_waiters.park()
                self._require_brake()
                async with self._lock:
                    await self._stop_current(f"{mode.name.lower()} begins", within=HANDOVER_LIMIT)
                    prepare = messages.Prepare(int(mode), list(specs), gamepads, partial)
                    return await self._open(mode, messages.encode(prepare))
            finally:
                self._pending_starts.discard(scope)
        raise ExecutionError(f"{mode.name.lower()} did not begin: {_IDLE}")

    async def _open(self, mode: Mode, prepare: bytes) -> _ModeRun:
        """Load team code in a process and begin the mode; a cancel ends the process."""
        assert self._nursery is not None, "`run` is running"
        mode_run = _ModeRun(await self._pool.acquire(), mode)
        channel = mode_run.process.child.channel
        assert channel is not None, "a ready process has a channel"
        # From here on the process runs team code, which could use the slot of a session.
        self._unreaped.add(mode_run)
        self._on_mode(True)
        try:
            self._nursery.start_soon(self._attend, mode_run, channel)
            with (
                trio.move_on_after(LOAD_LIMIT),
                contextlib.suppress(OSError, trio.ClosedResourceError),
            ):
                await channel.send(prepare)
                await mode_run.answered.wait()
            # Let a pending `idle` cancel this, and `_attend` notice that the process has ended.
            await trio.lowlevel.checkpoint()
            mode_run.raise_unless_loaded()
            self._require_brake()
            self._current = mode_run
            self._hint = (
                self.driver.begin()
                if self.driver is not None and self._driven_by_gamepad(mode)
                else None
            )
            self._update_bar(mode_run)
            self._log.info("mode began", mode=mode.name.lower(), code=mode_run.path)
            with contextlib.suppress(OSError, trio.ClosedResourceError):
                await channel.send(messages.encode(messages.Go()))
        except BaseException:
            self._stop_mode(mode_run, "it did not begin")
            raise
        self._pool.prepare_next()
        return mode_run

    async def _attend(self, mode_run: _ModeRun, channel: trio.socket.SocketType) -> None:
        """Receive the messages of a mode's process until it closes its channel."""
        try:
            while data := await channel.recv(messages.MAX_MESSAGE):
                mode_run.handle(data)
                if mode_run.over.is_set():
                    self._stop_mode(mode_run, "it is over")
                await trio.sleep(_MESSAGE_PAUSE)
        except RemoteProtocolError as error:
            self._log.error("invalid message from the executor process", reason=str(error))
            self._stop_mode(mode_run, "its process sent an invalid message")
        except (OSError, trio.ClosedResourceError):
            pass
        finally:
            mode_run.channel_closed.set()
            mode_run.finish(ExecutionError("the process that ran team code has exited"))
            self._close_slot(mode_run)
            # If it has crashed, its supervisor must see the crash and not a planned end.
            await self._pool.wait_exited(mode_run.process, within=EXIT_LIMIT)
            self._stop_mode(mode_run, "its process closed the channel")
            # While the process exists, team code could use the slot of a session.
            await self._pool.wait_reaped(mode_run.process)
            self._unreaped.discard(mode_run)
            mode_run.reaped.set()
            if not self._unreaped:
                self._on_mode(False)

    def _update_bar(self, mode_run: _ModeRun) -> None:
        """Open a mode's slot, or bar it while its driver is not live."""
        if self._closed:
            return
        bar = Bar.DRIVER if self.driver is None else self.driver.bar
        if self._driven_by_gamepad(mode_run.mode) and bar is not Bar.NONE:
            self._leases.bar(mode_run.slot, bar)
            self._write_event.signal()
        else:
            self._leases.unbar(mode_run.slot)

    def _driven_by_gamepad(self, mode: Mode) -> bool:
        return self._needs_driver and mode is Mode.TELEOP

    def _stop_motion(self, cause: Bar = Bar.NONE) -> None:
        """Revoke every lease; the device process then disables what was moved."""
        self._leases.revoke_all(cause)
        self._bar_idle()

    def _bar_idle(self, slots: Iterable[int] = EXECUTOR_SLOTS.values()) -> None:
        """Bar slots in which no mode runs."""
        for slot in slots:
            self._leases.bar(slot, Bar.IDLE if self._brake_refusal is None else Bar.BRAKE)
        self._write_event.signal()

    def _close_slot(self, mode_run: _ModeRun) -> None:
        """End a mode's lease and bar its slot; idempotent."""
        if self._current is mode_run:
            self._current = None
            self._bar_idle([mode_run.slot])
            context = {"reason": mode_run.error.message} if mode_run.error is not None else {}
            self._log.info("mode ended", mode=mode_run.mode.name.lower(), **context)

    def _abort(self, mode_run: _ModeRun, reason: str) -> None:
        """End a mode because of an error."""
        mode_run.finish(ExecutionError(reason))
        self._stop_mode(mode_run, reason)

    def _stop_mode(self, mode_run: _ModeRun, reason: str) -> None:
        """End a mode and its process; idempotent."""
        self._close_slot(mode_run)
        mode_run.finish(ExecutionError(f"{mode_run.mode.name.lower()} ended: {reason}"))
        self._pool.recycle(mode_run.process, reason)

    async def _stop_current(self, reason: str, *, within: float) -> None:
        """End the current mode and wait until no process of a mode is left.

        Args:
            reason: Why the mode ends.
            within: How long the processes may take to exit before they are killed, in s.

        Raises:
            ExecutionError: A process is left.
        """
        if self._current is not None:
            self._stop_mode(self._current, reason)
        with trio.CancelScope(shield=True):
            await self._wait_all_reaped(within)
            for mode_run in self._unreaped:
                self._pool.kill(mode_run.process)
            await self._wait_all_reaped(self._end_limit)
        if self._unreaped:
            raise ExecutionError(
                "the process of the last mode cannot be killed; stop the robot and start it again"
            )

    async def _wait_all_reaped(self, within: float) -> None:
        """Wait, for at most a time in s, until no process of a mode is left."""
        with trio.move_on_after(within):
            for mode_run in tuple(self._unreaped):
                await mode_run.reaped.wait()


def _error(message: str, context: Mapping[str, Any]) -> ExecutionError:
    """Create the error that a process reported, with its texts cut: team code may have set them."""
    plain = {
        clip(key): clip(value) if isinstance(value, str) else value
        for key, value in context.items()
    }
    return ExecutionError(clip(message, _TEXT_MAX), **plain)
