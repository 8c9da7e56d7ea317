"""The executor's service, in the root: which mode the robot is in, and how it gets from one to the next.

The service stands in the root, so that ``idle`` and ``estop`` never depend on a process that runs team code: they revoke the leases
first, which disables every device, and end the team's code afterwards.

A mode runs in a process of its own (`rt.executor.pool`), and a slot of the lease table is open for that process only while its mode
runs. A process that cannot be ended is killed.
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import trio

from rt import log
from rt.buffer import Doorbell, LeaseTable
from rt.buffer.lease import Bar
from rt.errors import DeviceError, ExecutionError, RemoteProtocolError
from rt.executor import commands
from rt.executor.commands import Mode, Requests, RequestSpec
from rt.executor.pool import SEATS, Assignment, ExecutorPool
from rt.remote import Bounds, Handler, route
from rt.remote.caller import Caller, caller
from rt.text import clip

LOAD_LIMIT: Final = 12.0
"""How long a process may take to load the team's code (s); it aborts an import before."""
STALLED: Final = "the robot's main process stood still: start the mode again"
"""Why a mode ends when the root was stopped."""
END_LIMIT: Final = 2.0
"""How long a process may take to end with its mode (s); the supervisor kills it before."""
EXECUTE_BOUNDS: Final = Bounds(message=1 << 14, text=4096, items=256, values=1024)
"""What the arguments of requests may be at most."""
EXIT_LIMIT: Final = 0.1
"""How long a process that has closed its channel may take to end by itself (s)."""
_MESSAGE_PAUSE: Final = 0.01
"""Least time (s) between two messages of a process, which sends two of them unless team code floods its channel."""
_PATH_MAX: Final = 4096
_TEXT_MAX: Final = 4096
_IDLE: Final = "the robot was told to be idle"
BRAKE_LIMIT: Final = 5.0
"""How long a mode waits for a brake that is ready (s)."""
STILL_LIMIT: Final = 0.5
"""How long the devices may take to be told to stop (s)."""
_STILL_PAUSE: Final = 0.002
HANDOVER_LIMIT: Final = 0.2
"""How long the process of a mode may take to end when the next mode is to begin (s); then it is killed."""


class _Session:
    """A mode in its process, as the root sees it.

    Attributes:
        process: Where it runs.
        mode: The mode.
        answered: Set when the code is loaded or refused.
        path: The file of the team's code, once it is loaded.
        over: Set when the mode is over.
        error: What ended it, or None.
        gone: Set when the process has closed its channel.
        ended: Set when the supervisor has seen the end of the process.
    """

    def __init__(self, process: Assignment, mode: Mode) -> None:
        self.process = process
        self.mode = mode
        self.answered = trio.Event()
        self.path = ""
        self.over = trio.Event()
        self.error: ExecutionError | None = None
        self.gone = trio.Event()
        self.ended = trio.Event()

    @property
    def seat(self) -> int:
        """The seat of the process, whose slot of the lease table is open while the mode runs."""
        return SEATS[self.process.child.spec.name]

    def take(self, data: bytes) -> None:
        """Take a message of the process.

        Raises:
            RemoteProtocolError: It is none.
        """
        match commands.decode_answer(data):
            case commands.Loaded(path):
                self.path = self.path or path[:_PATH_MAX]
                self.answered.set()
            case commands.Refused(message, context):
                self.finish(_error(message, context))
            case commands.Over(message, context):
                self.finish(_error(message, context) if message else None)

    def require(self) -> None:
        """See that the code is loaded.

        Raises:
            ExecutionError: It is not; says why.
        """
        if self.error is not None:
            raise self.error
        if not self.path:
            raise ExecutionError("the process did not load the team's code in time: see the log")

    def finish(self, error: ExecutionError | None) -> None:
        """Note how the mode ended; the first time counts."""
        if not self.over.is_set():
            self.error = error
            self.over.set()
            self.answered.set()


class Driver(Protocol):
    """What the dispatcher has to know of the driver."""

    @property
    def is_live(self) -> bool:
        """Whether what the driver sends may move the robot."""

    @property
    def bar(self) -> Bar:
        """Why the driver moves nothing, as the log of the device process states it; `Bar.NONE` while it is live."""

    def begin(self) -> str | None:
        """Begin a mode that the driver commands; what a person has to do before it moves anything, or None."""

    def may_command(self, caller: Caller) -> str | None:
        """Why a caller may not move the robot now, in a sentence, or None."""


class Dispatcher(Handler):
    """Starts and ends modes.

    Args:
        pool: The processes in which modes run.
        leases: Where the slots of those processes are opened and barred.
        doorbell: Has the device process look at the leases.
        needs_driver: Whether teleop moves devices only while the driver is live.
        is_moving: Whether a device may still move, as the device process states it.
        on_estop: Called at an emergency stop, when every lease has ended: has to end the robot.
        time_limit: The time limit or period of a function by its name (s), or None; a station can only shorten it.
        insecure: Whether the robot is open to the network without keys, so that any caller may be another computer.

    Attributes:
        driver: The driver, once the broker knows of one.
    """

    bounds = Bounds(message=1024)

    def __init__(
        self,
        pool: ExecutorPool,
        leases: LeaseTable,
        doorbell: Doorbell,
        *,
        needs_driver: bool,
        is_moving: Callable[[], bool],
        on_estop: Callable[[], None],
        time_limit: Callable[[str], float | None],
        insecure: bool,
        on_mode: Callable[[bool], None] = lambda _running: None,
    ) -> None:
        self._pool = pool
        self._leases = leases
        self._doorbell = doorbell
        self._needs_driver = needs_driver
        self._is_moving = is_moving
        self._on_estop = on_estop
        self._time_limit = time_limit
        self._is_insecure = insecure
        self._on_mode = on_mode
        self._living: set[_Session] = set()
        self.driver: Driver | None = None
        self._changing = trio.Lock()
        self._begins: set[trio.CancelScope] = set()
        self._nursery: trio.Nursery | None = None
        self._session: _Session | None = None
        self._hint: str | None = None
        self._closed = False
        self._unbraked: str | None = None
        self._braked = trio.Event()
        self._braked.set()
        self._log = log.get_logger()
        leases.bar_all(Bar.IDLE)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the modes until cancelled; then every lease has ended."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._stop_motion()

    def close(self) -> None:
        """Let nothing move any more, for the end of the robot. Returns at once."""
        self._closed = True
        self._leases.bar_all(Bar.STOPPING)
        self._doorbell.ring()

    def brake_changed(self, refusal: str | None) -> None:
        """Let no mode move devices for want of a brake, or let modes begin again. Returns at once.

        Args:
            refusal: Why nothing may move and what to do, in a sentence; None if a brake is ready.
        """
        was, self._unbraked = self._unbraked, refusal
        if (was is None) == (refusal is None) or self._closed:
            return
        if refusal is None:
            self._braked.set()
        else:
            self._braked = trio.Event()
            if (session := self._session) is not None:
                session.finish(ExecutionError(refusal))
                self._close(session, "no brake is ready")
        for seat in SEATS.values():
            self._leases.bar(seat, self._rest)
        self._doorbell.ring()

    def memory_overwritten(self, reason: str) -> None:
        """End the mode, one whose code is being loaded too, and the leases of commands, because a buffer was overwritten.

        Returns at once.
        """
        for session in tuple(self._living):
            session.finish(ExecutionError(reason))
            self._close(session, reason)
        if not self._closed:
            self._stop_motion(Bar.DAMAGED)

    def end_mode(self, reason: str) -> None:
        """End the mode that runs, if there is one. Returns at once."""
        if (session := self._session) is not None:
            session.finish(ExecutionError(reason))
            self._close(session, reason)

    @property
    def _rest(self) -> Bar:
        """Why a slot is barred in which no mode runs."""
        return Bar.IDLE if self._unbraked is None else Bar.BRAKE

    def driver_changed(self) -> None:
        """Let teleop move devices, or not: the driver is live now, or no longer. Returns at once."""
        if self._session is not None:
            self._permit(self._session)

    @route(starts=True)
    async def auto(self) -> None:
        """Begin autonomous: autonomous_setup once, then autonomous_main at its period; gamepads read neutral."""
        await self._begin_standard(Mode.AUTO, "autonomous", gamepads=False)

    @route(starts=True)
    async def teleop(self) -> str | None:
        """Begin teleop: teleop_setup once, then teleop_main at its period.

        The result says what the driver has to do before anything moves, or is null.
        """
        await self._begin_standard(Mode.TELEOP, "teleop", gamepads=True)
        return self._hint

    @route(urgent=True)
    async def idle(self) -> None:
        """End what runs, and what is about to; every device is disabled, also those of `rt write`.

        The answer comes when the devices have been told to stop and the mode has ended.

        Raises:
            DeviceError: The device process has not confirmed in time that the devices have been told to stop.
        """
        self.stop_at_once()
        ending = tuple(self._living)
        async with self._changing:
            with trio.move_on_after(END_LIMIT, shield=True):
                for session in ending:
                    await session.gone.wait()
        with trio.move_on_after(STILL_LIMIT):
            while self._is_moving():  # noqa: ASYNC110 - the device process states it in shared memory
                await trio.sleep(_STILL_PAUSE)
            return
        raise DeviceError("the devices were told to stop, and the device process does not confirm it: see the log")

    @property
    def at_once(self) -> dict[str, Callable[[], None]]:
        """What the router calls as soon as it reads a call that stops the robot, however many calls wait before that one."""
        return {"idle": self.stop_at_once, "estop": self.estop}

    def stop_at_once(self) -> None:
        """Do what `idle` does before it waits: end every lease and the mode, and keep a mode from beginning."""
        self._stop_motion()
        if self._session is not None:
            self._close(self._session, _IDLE)  # before anything else runs: nothing opens its slot again
        for scope in self._begins:
            scope.cancel(_IDLE)

    @route(inline=True, urgent=True)
    def estop(self) -> None:
        """Emergency stop: every device is disabled and the robot stops running."""
        self._leases.bar_all(Bar.ESTOP)
        self._doorbell.ring()
        self._on_estop()

    @route(inline=True)
    def mode(self) -> str:
        """The mode that the robot is in: idle, auto or teleop."""
        return (Mode.IDLE if self._session is None else self._session.mode).name.lower()

    @route(starts=True, limit=math.inf, bounds=EXECUTE_BOUNDS)
    async def execute(self, requests: Requests, block: bool = False, enable_gamepads: bool = True) -> str | None:
        """Execute functions of the team's code in order; when all have been executed, the robot is idle.

        With gamepads they move devices only while the driver is live, as in teleop. The result says what the driver has to do before
        anything moves, or is null.

        As a command: rt call execute '[{"func": "wave"}]'

        Args:
            requests: What to execute: func (a name), args, timeout (s; a station can only shorten the robot's), periodic.
            block: Whether to answer only when all have been executed.
            enable_gamepads: Whether gamepads can be read.

        Raises:
            ExecutionError: The code cannot be loaded or has not what is asked for, or a request that is not the last one is
                periodic; with ``block`` also when a function failed.
        """
        self._check_limits(requests)
        mode = Mode.TELEOP if enable_gamepads else Mode.AUTO
        session = await self._begin(mode, requests, gamepads=enable_gamepads, partial=False)
        if block:
            await session.over.wait()
            if session.error is not None:
                raise session.error
        return self._hint

    def _check_limits(self, specs: Sequence[RequestSpec]) -> None:
        """Refuse a time limit by which a station lets code that hangs hold its lease for longer than the robot's options say."""
        if not caller().may_be_remote(insecure=self._is_insecure):
            return
        for spec in specs:
            if spec.timeout is None:
                continue
            limit = self._time_limit(spec.func) or commands.DEFAULT_TIMEOUT
            if spec.timeout > limit:
                raise ExecutionError(
                    f"{clip(spec.func)} has a time limit of {limit:g} s, which a station can only shorten, because it decides when"
                    " devices stop: set exec_timeout at the robot",
                    func=spec.func,
                    limit=limit,
                )

    def _require_brake(self) -> None:
        """Refuse to begin a mode without a brake.

        Raises:
            ExecutionError: No brake is ready; says what to do.
        """
        if self._unbraked is not None:
            raise ExecutionError(self._unbraked)

    async def _begin_standard(self, mode: Mode, prefix: str, *, gamepads: bool) -> None:
        specs = [RequestSpec(f"{prefix}_setup"), RequestSpec(f"{prefix}_main", periodic=True)]
        try:
            await self._begin(mode, specs, gamepads=gamepads, partial=True)
        except ExecutionError as error:
            self._log.error(error.message, mode=mode.name.lower())
            raise

    async def _begin(self, mode: Mode, specs: Sequence[RequestSpec], *, gamepads: bool, partial: bool) -> _Session:
        if self._closed:
            raise ExecutionError("the robot is being stopped")
        refusal = None if self.driver is None else self.driver.may_command(caller())
        if refusal is not None:
            raise ExecutionError(refusal)
        with trio.CancelScope() as scope:
            self._begins.add(scope)
            try:
                with trio.move_on_after(BRAKE_LIMIT):
                    await self._braked.wait()
                self._require_brake()
                async with self._changing:
                    await self._end(f"{mode.name.lower()} begins", within=HANDOVER_LIMIT)
                    prepare = commands.Prepare(int(mode), list(specs), gamepads, partial)
                    return await self._open(mode, commands.encode(prepare))
            finally:
                self._begins.discard(scope)
        raise ExecutionError(f"{mode.name.lower()} has not begun: {_IDLE}")

    async def _open(self, mode: Mode, prepare: bytes) -> _Session:
        """Load the team's code in a process and let the mode begin; a cancel ends the process."""
        assert self._nursery is not None, "a dispatcher is running while it serves"
        session = _Session(await self._pool.acquire(), mode)
        channel = session.process.child.channel
        assert channel is not None, "a process that is free has its channel"
        # From here on the process runs team code, which may try to take part as a command does.
        self._living.add(session)
        self._on_mode(True)
        try:
            self._nursery.start_soon(self._attend, session, channel)
            with trio.move_on_after(LOAD_LIMIT), contextlib.suppress(OSError, trio.ClosedResourceError):
                await channel.send(prepare)
                await session.answered.wait()
            await trio.lowlevel.checkpoint()  # `idle` may have come meanwhile, or the process ended
            session.require()
            self._require_brake()
            self._session = session
            self._hint = self.driver.begin() if self.driver is not None and self._driven_by_gamepad(mode) else None
            self._permit(session)
            self._log.info("mode began", mode=mode.name.lower(), code=session.path)
            with contextlib.suppress(OSError, trio.ClosedResourceError):
                await channel.send(commands.encode(commands.Go()))
        except BaseException:
            self._close(session, "its mode has not begun")
            raise
        self._pool.prepare_next()
        return session

    async def _attend(self, session: _Session, channel: trio.socket.SocketType) -> None:
        """Listen to the process of a mode until it is gone."""
        try:
            while data := await channel.recv(commands.MAX_MESSAGE):
                session.take(data)
                if session.over.is_set():
                    self._close(session, "its mode is over")
                await trio.sleep(_MESSAGE_PAUSE)
        except RemoteProtocolError as error:
            self._log.error("a message of the executor process cannot be read", reason=str(error))
            self._close(session, "its messages cannot be read")
        except (OSError, trio.ClosedResourceError):
            pass
        finally:
            session.gone.set()
            session.finish(ExecutionError("the process that ran the team's code has ended"))
            self._leave(session)
            # If it has crashed, that is what its supervisor is to see.
            await self._pool.ended(session.process, within=EXIT_LIMIT)
            self._close(session, "it has closed its channel")
            # Until then team code may take part as a visitor does.
            await self._pool.gone(session.process)
            self._living.discard(session)
            session.ended.set()
            if not self._living:
                self._on_mode(False)

    def _permit(self, session: _Session) -> None:
        """Let a mode move devices, unless its driver is silent."""
        if self._closed:
            return
        bar = Bar.DRIVER if self.driver is None else self.driver.bar
        if self._driven_by_gamepad(session.mode) and bar is not Bar.NONE:
            self._leases.bar(session.seat, bar)
            self._doorbell.ring()
        else:
            self._leases.unbar(session.seat)

    def _driven_by_gamepad(self, mode: Mode) -> bool:
        return self._needs_driver and mode is Mode.TELEOP

    def _stop_motion(self, cause: Bar = Bar.NONE) -> None:
        """End every lease, whoever holds it; the device process disables what was moved."""
        self._leases.revoke_all(cause)
        for seat in SEATS.values():
            self._leases.bar(seat, self._rest)
        self._doorbell.ring()

    def _leave(self, session: _Session) -> None:
        """Let a mode move nothing any more; idempotent."""
        if self._session is session:
            self._session = None
            self._leases.bar(session.seat, self._rest)
            self._doorbell.ring()
            about = {"reason": session.error.message} if session.error is not None else {}
            self._log.info("mode ended", mode=session.mode.name.lower(), **about)

    def _close(self, session: _Session, reason: str) -> None:
        """End a mode and its process; idempotent."""
        self._leave(session)
        session.finish(ExecutionError(f"{session.mode.name.lower()} was ended: {reason}"))
        self._pool.recycle(session.process, reason)

    async def _end(self, reason: str, *, within: float) -> None:
        """End the mode that runs, and the processes of all modes that have ended; each is killed if it takes longer than that (s).

        Raises:
            ExecutionError: A process of another mode is still there.
        """
        if self._session is not None:
            self._close(self._session, reason)
        with trio.CancelScope(shield=True):
            await self._all_gone(within)
            for session in self._living:
                self._pool.kill(session.process)
            await self._all_gone(END_LIMIT)
        if self._living:
            raise ExecutionError("the process of the last mode cannot be ended; stop the robot and start it again")

    async def _all_gone(self, within: float) -> None:
        """Wait so long (s) until no process of a mode is left."""
        with trio.move_on_after(within):
            for session in tuple(self._living):
                await session.ended.wait()


def _error(message: str, context: Mapping[str, Any]) -> ExecutionError:
    """The error of a process, whose texts may be of team code: bounded."""
    plain = {clip(key): clip(value) if isinstance(value, str) else value for key, value in context.items()}
    return ExecutionError(clip(message, _TEXT_MAX), **plain)
