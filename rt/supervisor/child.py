"""A child as a process: carries out what its machine decides, and tells the machine what happens.

The rule of this module: it decides nothing. Every event goes through `Child.feed`, which asks the machine and carries out the
answer at once and without a checkpoint; so no event can come between a decision and its effect.
"""

import contextlib
import errno
import math
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import trio

from rt import log
from rt.limits import explain
from rt.log.throttle import Throttle
from rt.protocol.notify import Notice
from rt.supervisor import group
from rt.supervisor.life import (
    EMERGENCY,
    Alive,
    CancelTimer,
    Effect,
    Event,
    Exited,
    Ready,
    Report,
    SendSignal,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    StartTimer,
    State,
    Timer,
    TimerOver,
    Trouble,
)
from rt.supervisor.machine import Machine
from rt.supervisor.notify import Channel, Listener
from rt.supervisor.output import LOG, OnLine, Output, log_line
from rt.supervisor.spawn import put_down, spawn
from rt.supervisor.spec import ChildSpec, ChildStatus, ExitReport
from rt.supervisor.table import AT_REST

LINGER = 0.5
"""Seconds for which the output of a child that has exited is still read: somebody else may hold its pipes open."""

_BURST = 20
"""How many ends of a child in a row are logged at once."""
_LEVELS = {State.READY: "info", State.STOPPING: "info", State.STOPPED: "info"}
_LEVELS |= {State.KILLING: "warning", State.BACKOFF: "warning", State.FAILED: "error"}

OnChange = Callable[[ChildStatus], None]
"""Called in the event loop each time that something about a child has changed; it may not block or raise."""


class Child:
    """One child, from its first process to its last.

    Args:
        spec: What it is to be.
        directory: That of the instance, where the notify socket of a program that is not rt's own is made.
        on_line: Called for each line that it writes.
        on_change: Called when its status has changed.
        jitter: Gives a number between 0 and 1 for each back-off.

    Attributes:
        channel: Our end of the channel of the process that runs, or None; of type SOCK_SEQPACKET, closed with the process.
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
        self._begun = trio.Event()
        self._directory = directory
        self._on_line = on_line
        self._on_change = on_change
        self._jitter = jitter
        self._machine = Machine(spec)
        self._timers: dict[Timer, float] = {}
        self._poke = trio.Event()
        self._news = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._listener: Channel | Listener | None = None
        self._pid: int | None = None
        self._leader: int | None = None  # the pid while it may be signalled: not exited and therefore not reaped
        self._since = time.time()
        self._said = ""
        self._last_exit: ExitReport | None = None
        self._log = log.get_logger(child=spec.name)
        self._throttle = Throttle(burst=_BURST, clock=trio.current_time)

    @property
    def status(self) -> ChildStatus:
        """What is known of it now."""
        return ChildStatus(
            name=self.spec.name,
            state=self._machine.state,
            reason=self._machine.reason,
            pid=self._pid,
            since=self._since,
            restarts=self._machine.restarts,
            status=self._said,
            last_exit=self._last_exit,
            on_demand=not self.spec.autostart,
        )

    async def run(self) -> None:
        """Start the child and look after it until a final stop has ended it. `finished` is set when this returns.

        A cancel is a last resort: the whole group is killed at once.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                if self.spec.autostart:
                    self.feed(Start())
                self._begun.set()
                while not (self._machine.closed and self._machine.state in AT_REST):
                    with trio.move_on_at(min(self._timers.values(), default=math.inf)):
                        await self._poke.wait()
                    self._poke = trio.Event()
                    for timer, deadline in list(self._timers.items()):
                        if deadline <= trio.current_time() and timer in (Timer.WATCHDOG, Timer.READY):
                            self._hear_all(timer)
                        # A timer that an earlier one of this round has cancelled does not run out.
                        if deadline <= trio.current_time() and self._timers.get(timer) == deadline:
                            del self._timers[timer]
                            self.feed(TimerOver(timer))
        finally:
            self.finished.set()
            self._tell()

    def feed(self, event: Event) -> None:
        """Take an event and carry out what follows; no checkpoint."""
        for effect in self._machine.handle(event, trio.current_time(), self._jitter()):
            self._perform(effect)
        self._poke.set()

    def kill_process(self, pid: int) -> None:
        """Kill a process of this child and its group, unless it has ended; what the child is wanted for does not change."""
        if self._leader == pid:
            group.signal_group(pid, signal.SIGKILL)

    async def until(self, condition: Callable[[ChildStatus], bool]) -> ChildStatus:
        """Wait until `run` has begun, and then until the status meets a condition or the child is finished.

        A state that passes quickly may be missed.
        """
        await self._begun.wait()
        while not condition(self.status) and not self.finished.is_set():
            await self._news.wait()
        await trio.lowlevel.checkpoint()
        return self.status

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Spawn():
                assert self._nursery is not None, "a child is started by its own run()"
                self._nursery.start_soon(self._live, name=f"child {self.spec.name}")
            case SendSignal(name):
                # Without a leader the process has exited on its own, and its group is being swept.
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
                    level = "debug"  # part of the end of everything, which is said once for all, or of the child's work
                self._say(level, state, reason)
                self._tell()

    def _say(self, level: str, state: State, reason: str) -> None:
        write = getattr(self._log, level)
        if state is State.BACKOFF:  # a child that cannot live is started again and again
            self._throttle.log(write, f"child is {state}", reason=reason, pid=self._pid)
        else:
            self._throttle.flush()
            write(f"child is {state}", reason=reason, pid=self._pid)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()
        if self._on_change is not None:
            self._on_change(self.status)

    async def _live(self) -> None:
        with contextlib.ExitStack() as stack:
            ending = await self._one_life(stack)
        # Told only now, since the next process takes the place of this one's socket.
        self._pid = None
        self.feed(ending)

    async def _one_life(self, stack: contextlib.ExitStack) -> SpawnFailed | Exited:
        self._said = ""
        began = trio.current_time()
        path = self._directory / f"notify-{self.spec.name}.sock"
        try:
            listener: Channel | Listener = Channel() if self.spec.has_lifeline else Listener(path)
            stack.enter_context(listener)
            channel = self._open_channel(stack)
        except OSError as error:
            # Not the command's fault: another try may find the directory usable again.
            return SpawnFailed(errno.EAGAIN, f"{explain(error)}: {path}")
        try:
            process, events = await spawn(self.spec, self._directory, listener, stack, channel)
        except OSError as error:
            return SpawnFailed(error.errno or 0, f"{explain(error)}: {error.filename or self.spec.command[0]}")
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
            returncode = await self._attend(process, listener, output, events)
        except BaseException:
            self._leader = None
            await put_down(process)
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
            uptime=trio.current_time() - began,
        )
        return exited

    def _open_channel(self, stack: contextlib.ExitStack) -> socket.socket | None:
        """Open a channel if the child has one; our end becomes `channel`, the child's is returned."""
        if not self.spec.has_channel:
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = stack.enter_context(trio.socket.from_stdlib_socket(ours))
        stack.callback(setattr, self, "channel", None)
        return theirs

    def _hear_all(self, timer: Timer) -> None:
        """Take in what the child has said before its silence is judged: it may be we who did not listen for a while."""
        listener = self._listener
        if listener is None:
            return
        while (notice := listener.receive_nowait()) is not None:
            self._heed(notice)
        if timer in self._timers and listener.unreachable():
            # It could not reach us, so its silence says nothing: its time begins anew.
            seconds = self.spec.ready_timeout if timer is Timer.READY else self.spec.watchdog
            self._timers[timer] = trio.current_time() + (seconds or 0.0)

    async def _attend(
        self,
        process: trio.Process,
        listener: Channel | Listener,
        output: Output,
        events: trio.abc.ReceiveStream | None,
    ) -> int:
        pidfd = os.pidfd_open(process.pid)
        self._listener = listener
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listener.hear, self._heed)
                drained = trio.Event()
                nursery.start_soon(_drain, process, output, events, drained)
                await trio.lowlevel.wait_readable(pidfd)
                self._leader = None
                # Not reaped yet: until everything is swept, the kernel gives the number of the group to nobody else.
                if strays := await group.sweep(process.pid):
                    self._log.warning("child left processes behind; they were killed", processes=strays)
                returncode = await process.wait()
                while (notice := listener.receive_nowait()) is not None:
                    self._heed(Notice(status=notice.status))  # its last words
                with trio.move_on_after(LINGER):
                    await drained.wait()
                nursery.cancel_scope.cancel("the process has exited")
        finally:
            self._listener = None
            trio.lowlevel.notify_closing(pidfd)
            os.close(pidfd)
        return returncode

    def _heed(self, notice: Notice) -> None:
        if notice.status is not None and notice.status != self._said:
            self._said = notice.status
            self._tell()
        if notice.ready:
            self.feed(Ready())
        if notice.watchdog:
            self.feed(Alive())
        if notice.trouble:
            self.feed(Trouble())


async def _drain(
    process: trio.Process, output: Output, events: trio.abc.ReceiveStream | None, drained: trio.Event
) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.drain, process.stdout, "stdout")
        nursery.start_soon(output.drain, process.stderr, "stderr")
        if events is not None:
            nursery.start_soon(output.drain, events, LOG)
    drained.set()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
