"""A supervised child: its processes, and the effects that its state machine decides.

Invariant: all decisions are made by `rt.supervisor.machine`. Each event goes through `Child.feed`,
which carries out the resulting effects without a checkpoint, so no other event can come between a
decision and its effect.
"""

import contextlib
import errno
import functools
import math
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from rt import log
from rt.instance.stale_files import ENV_DIRECTORY
from rt.log.throttle import Throttle
from rt.process import group
from rt.process.notify import Channel, Listener, Receiver
from rt.process.output import OnLine, Output, log_line
from rt.process.spawn import spawn
from rt.process_limits import explain
from rt.protocol.notify import Notice
from rt.supervisor.machine import Machine
from rt.supervisor.spec import ChildSpec, ChildStatus, ExitReport
from rt.supervisor.state import (
    EMERGENCY,
    Alive,
    CancelTimer,
    Effect,
    Event,
    Exited,
    Ready,
    Report,
    RestartRequested,
    SendSignal,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    StartTimer,
    State,
    Timer,
    TimerOver,
)
from rt.supervisor.transitions import AT_REST

_BURST = 20
"""How many exits of a child in a row are logged at once."""
_LEVELS = {State.READY: "info", State.STOPPING: "info", State.STOPPED: "info"}
_LEVELS |= {State.KILLING: "warning", State.BACKOFF: "warning", State.FAILED: "error"}

OnChange = Callable[[ChildStatus], None]
"""Called in the event loop when the status of a child has changed; may not block or raise."""


class Child:
    """One child, from its first process to its last.

    Args:
        spec: The specification.
        directory: The instance directory, for the notify socket of a program other than rt.
        on_line: Called for each line of output.
        on_change: Called when the status has changed.
        jitter: Returns a number between 0 and 1 for each backoff.

    Attributes:
        finished: Set when `run` has returned.
        channel: The parent's end of the running process's channel (SOCK_SEQPACKET), or None.
            Closed when the process ends.
    """

    def __init__(
        self,
        spec: ChildSpec,
        directory: Path,
        *,
        on_line: OnLine = log_line,
        on_change: OnChange | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.spec = spec
        self.finished = trio.Event()
        self.channel: trio.socket.SocketType | None = None
        self._started = trio.Event()
        self._directory = directory
        self._on_line = on_line
        self._on_change = on_change
        self._jitter = jitter
        self._machine = Machine(spec)
        self._timers: dict[Timer, float] = {}
        self._timers_changed = trio.lowlevel.ParkingLot()
        self._status_changed = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None
        self._listener: Receiver | None = None
        self._pid: int | None = None
        # The pid while the process may be signalled, which is until it exits.
        self._leader: int | None = None
        self._since = time.time()
        self._status_text = ""
        self._last_exit: ExitReport | None = None
        self._log = log.get_logger(child=spec.name)
        self._throttle = Throttle(burst=_BURST, clock=trio.current_time)

    @property
    def status(self) -> ChildStatus:
        """The present status."""
        return ChildStatus(
            name=self.spec.name,
            state=self._machine.state,
            reason=self._machine.reason,
            pid=self._pid,
            since=self._since,
            restarts=self._machine.restarts,
            status=self._status_text,
            last_exit=self._last_exit,
            on_demand=not self.spec.autostart,
        )

    async def run(self) -> None:
        """Start the child, and restart it as its policy says, until a final stop has ended it.

        A cancel kills the process group at once.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                if self.spec.autostart:
                    self.feed(Start())
                self._started.set()
                while not (self._machine.closed and self._machine.state in AT_REST):
                    with trio.move_on_at(min(self._timers.values(), default=math.inf)):
                        await self._timers_changed.park()
                    self._expire_timers()
        finally:
            self.finished.set()
            self._publish_status()

    def feed(self, event: Event) -> None:
        """Handle an event and carry out its effects, without a checkpoint."""
        for effect in self._machine.handle(event, trio.current_time(), self._jitter()):
            self._perform(effect)
        self._timers_changed.unpark_all()

    def kill_process(self, pid: int) -> None:
        """Kill a process of this child and its group, unless it has ended.

        Whether the child should run does not change.
        """
        if self._leader == pid:
            group.signal_group(pid, signal.SIGKILL)

    async def until(self, condition: Callable[[ChildStatus], bool]) -> ChildStatus:
        """Wait until the status meets a condition or the child is finished; return the status.

        The condition is first checked when `run` has begun. It may miss a short state.
        """
        await self._started.wait()
        while not condition(self.status) and not self.finished.is_set():
            await self._status_changed.park()
        await trio.lowlevel.checkpoint()
        return self.status

    def _expire_timers(self) -> None:
        for timer, deadline in list(self._timers.items()):
            if deadline <= trio.current_time() and timer in (Timer.WATCHDOG, Timer.READY):
                self._handle_queued_notices(timer)
            # An earlier timer may have cancelled or restarted this one.
            if deadline <= trio.current_time() and self._timers.get(timer) == deadline:
                del self._timers[timer]
                self.feed(TimerOver(timer))

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Spawn():
                assert self._nursery is not None, "the child is started by its own run()"
                self._nursery.start_soon(self._run_process, name=f"child {self.spec.name}")
            case SendSignal(name):
                # Without a leader the process has exited, and its group is being killed.
                if self._leader is not None:
                    group.signal_group(self._leader, signal.Signals[f"SIG{name}"])
            case StartTimer(timer, seconds):
                self._timers[timer] = trio.current_time() + seconds
            case CancelTimer(timer):
                self._timers.pop(timer, None)
            case Report(state, reason):
                self._since = time.time()
                level = _LEVELS.get(state, "debug")
                routine = self._machine.closed or self._machine.planned or not self.spec.autostart
                if routine and state in (State.STOPPING, State.STOPPED):
                    level = "debug"  # the supervisor logs the stop of all children once
                self._log_state(level, state, reason)
                self._publish_status()

    def _log_state(self, level: str, state: State, reason: str) -> None:
        write = getattr(self._log, level)
        if state is State.BACKOFF:  # may repeat without end
            self._throttle.log(write, f"child is {state}", reason=reason, pid=self._pid)
        else:
            self._throttle.flush()
            write(f"child is {state}", reason=reason, pid=self._pid)

    def _publish_status(self) -> None:
        self._status_changed.unpark_all()
        if self._on_change is not None:
            self._on_change(self.status)

    async def _run_process(self) -> None:
        with contextlib.ExitStack() as stack:
            event = await self._spawn_and_attend(stack)
        # Only after the stack is closed, because the next process uses the same socket path.
        self._pid = None
        self.feed(event)

    async def _spawn_and_attend(self, stack: contextlib.ExitStack) -> SpawnFailed | Exited:
        self._status_text = ""
        started = trio.current_time()
        path = self._directory / f"notify-{self.spec.name}.sock"
        try:
            listener: Receiver = Channel() if self.spec.has_lifeline else Listener(path)
            stack.enter_context(listener)
            channel = self._open_channel(stack)
        except OSError as error:
            # Not an error of the command: the next attempt may succeed.
            return SpawnFailed(errno.EAGAIN, f"{explain(error)}: {path}")
        try:
            spec = self.spec
            process, streams = await spawn(
                spec.command,
                stack,
                message=spec.message,
                channel=channel,
                env=self._environment() | listener.environment(),
                cwd=spec.cwd,
                pass_fds=[*spec.pass_fds, *listener.fds],
            )
            listener.started()
        except OSError as error:
            return SpawnFailed(
                error.errno or 0, f"{explain(error)}: {error.filename or self.spec.command[0]}"
            )
        except (ValueError, subprocess.SubprocessError) as error:
            return SpawnFailed(errno.EINVAL, f"{error}: {self.spec.command[0]!r}")
        finally:
            if channel is not None:
                channel.close()
        self._pid = self._leader = process.pid
        output = Output(self.spec.name, self._on_line, process.pid, self.spec.app)
        try:
            self.feed(Spawned())
            if not self.spec.notify:
                self.feed(Ready())
            returncode = await self._attend(process, listener, output, streams)
        except BaseException:
            self._leader = None
            await group.kill_tree(process)
            raise
        code, name = (returncode, None) if returncode >= 0 else (None, _signal_name(-returncode))
        exited = Exited(code, name)
        cause = self._machine.cause
        self._last_exit = ExitReport(
            code=code,
            signal=name,
            emergency=code == EMERGENCY,
            reason=exited.describe() + (f" ({cause})" if cause else ""),
            tail=output.tail,
            time=time.time(),
            uptime=trio.current_time() - started,
        )
        return exited

    def _environment(self) -> dict[str, str]:
        """Return the child's own environment variables, with its robot and watchdog timeout."""
        env = {**(self.spec.env or {}), ENV_DIRECTORY: os.fspath(self._directory)}
        if self.spec.watchdog is not None:
            env["WATCHDOG_USEC"] = str(round(self.spec.watchdog * 1e6))
        return env

    def _open_channel(self, stack: contextlib.ExitStack) -> socket.socket | None:
        """Create a channel if the child has one: set `channel`, and return the child's end."""
        if not self.spec.has_channel:
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = stack.enter_context(trio.socket.from_stdlib_socket(ours))
        stack.callback(setattr, self, "channel", None)
        return theirs

    def _handle_queued_notices(self, timer: Timer) -> None:
        """Handle queued notices before a timer expires, because this process may have been slow."""
        listener = self._listener
        if listener is None:
            return
        while (notice := listener.receive_nowait()) is not None:
            self._handle_notice(notice)
        if timer in self._timers and listener.was_unreachable():
            # The child could not send notices, so the timer starts again.
            seconds = self.spec.ready_timeout if timer is Timer.READY else self.spec.watchdog
            self._timers[timer] = trio.current_time() + (seconds or 0.0)

    async def _attend(
        self,
        process: trio.Process,
        listener: Receiver,
        output: Output,
        streams: Mapping[str, trio.abc.ReceiveStream],
    ) -> int:
        def on_exit() -> None:
            self._leader = None
            output.lift_limit()

        readers = [
            functools.partial(output.drain, stream, name) for name, stream in streams.items()
        ]
        self._listener = listener
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listener.receive_all, self._handle_notice)
                await group.attend(process, readers, on_exit=on_exit, logger=self._log)
                nursery.cancel_scope.cancel("the process has exited")
            returncode = await process.wait()
            while (notice := listener.receive_nowait()) is not None:
                self._handle_notice(Notice(status=notice.status))
        finally:
            self._listener = None
        return returncode

    def _handle_notice(self, notice: Notice) -> None:
        if notice.status is not None and notice.status != self._status_text:
            self._status_text = notice.status
            self._publish_status()
        if notice.ready:
            self.feed(Ready())
        if notice.watchdog:
            self.feed(Alive())
        if notice.trouble:
            self.feed(RestartRequested())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
