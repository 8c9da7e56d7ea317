"""A command as a process that is run once.

The rules of this module: what the process leaves of its session is killed when it has ended, a
signal goes to its group only while the group's number is certainly its own (until it is reaped),
and the kernel kills the group when we are dead.
"""

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import trio

from rt import log
from rt.errors import ProcessStateError
from rt.process import group
from rt.process.output import LOG, LineSplitter, OnLine, log_line
from rt.process.spawn import spawn

LINGER = 0.5
"""Seconds for which the output of a process that has ended is still read: somebody else may hold its pipes open."""

_CHUNK = 8192
_BREATH = 32
"""After so many lines others may run."""


class CommandProcess:
    """One run of a command: made, started, waited for.

    Its output is read while somebody waits for it; nobody's waiting lets a process that writes much
    stand still. An async context manager starts it and, whatever happens, leaves nothing of it:
    what still runs at the end of the block is killed.

    Args:
        command: The program and its arguments. `rt.process.lifeline.LIFELINE` in an argument
            becomes the number of the descriptor of its lifeline; a command without it is killed by
            the kernel when we die, as long as it leaves open a descriptor that it does not know of.
        name: What it is called in the log; by default the name of the program.
        message: What its lifeline carries, at most `rt.process.lifeline.MAX_MESSAGE` bytes; only
            with `LIFELINE`.
        cwd: Where it starts, or None for where we are.
        env: Added to our environment, which it inherits.
        pass_fds: Descriptors that it inherits under the same numbers.
        on_line: Called in the event loop for each line that it writes, with the name, ``stdout`` or
            ``stderr``, and the line; by default it goes to our log. None lets it write where we do.
            The log events of a process of our own program, that is one with a lifeline, come as
            lines of JSON of the stream ``log``.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str | None = None,
        message: bytes | None = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        on_line: OnLine | None = log_line,
    ) -> None:
        if not command:
            raise ValueError("a process needs a command")
        self.name = name or Path(command[0]).name
        self._command = tuple(command)
        self._message = message
        self._cwd = cwd
        self._env = dict(env or {})
        self._pass_fds = tuple(pass_fds)
        self._on_line = on_line
        self._stack = contextlib.ExitStack()
        self._process: trio.Process | None = None
        self._starting = False
        self._streams: list[tuple[trio.abc.ReceiveStream, str, LineSplitter]] = []
        self._attending = trio.Lock()
        self._attended = False
        self._returncode: int | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {shlex.join(self._command)}>"

    @property
    def pid(self) -> int | None:
        """Its number, which is also that of its group and session; None before it was started."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """Its exit code, minus the number of the signal that ended it, or None as long as it has not ended."""
        if self._returncode is None and self._process is not None:
            self._returncode = _peek(self._process.pid)
        return self._returncode

    async def start(self) -> None:
        """Start it. A checkpoint; a cancel comes before it is started, or not at all.

        Raises:
            ProcessStateError: It was started before.
            OSError: The process cannot be made.
            LocalProtocolError: The message does not fit into a lifeline.
        """
        if self._starting:
            raise ProcessStateError(
                f"process {self.name} is started once; make another one", process=self.name
            )
        await trio.lowlevel.checkpoint_if_cancelled()
        self._starting = True
        pipe = None if self._on_line is None else subprocess.PIPE
        with contextlib.ExitStack() as stack:
            process, events = await spawn(
                self._command,
                stack,
                message=self._message,
                env=self._env,
                cwd=self._cwd,
                pass_fds=self._pass_fds,
                stdout=pipe,
                stderr=pipe,
                log_pipe=pipe is not None,
            )
            self._process = process
            self._stack = stack.pop_all()
        if events is not None:
            self._streams.append((events, LOG, LineSplitter()))
        for stream, name in ((process.stdout, "stdout"), (process.stderr, "stderr")):
            if stream is not None:
                self._streams.append((stream, name, LineSplitter()))

    async def wait(self) -> int:
        """Wait until it has ended, and nothing is left of its session; its returncode. Several tasks may wait.

        A checkpoint; a cancel changes nothing, and whoever waits next goes on where this one was.

        Raises:
            ProcessStateError: It was not started.
        """
        if self._process is None:
            raise ProcessStateError(
                f"process {self.name} cannot be waited for before it is started", process=self.name
            )
        async with self._attending:
            if not self._attended:
                await self._attend(self._process)
                self._attended = True
                self._stack.close()
        assert self._returncode is not None
        return self._returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to it and its group; nothing if it has ended.

        Raises:
            ProcessStateError: It was not started.
        """
        if self._process is None:
            raise ProcessStateError(
                f"process {self.name} cannot be ended before it is started", process=self.name
            )
        if self.returncode is None:
            group.signal_group(self._process.pid, number)

    def terminate(self) -> None:
        """Ask it and its group to end, by SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and its group, by SIGKILL."""
        self.send_signal(signal.SIGKILL)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._process is not None
        self.kill()
        with trio.CancelScope(shield=True):
            try:
                await self.wait()
            except Exception:
                await self.wait()  # whoever reads its lines has failed, and is not asked again
                raise

    async def _attend(self, process: trio.Process) -> None:
        pidfd = os.pidfd_open(process.pid)
        try:
            async with trio.open_nursery() as nursery:
                read: list[trio.Event] = []
                for stream, name, cutter in self._streams:
                    read.append(trio.Event())
                    nursery.start_soon(self._read, stream, name, cutter, read[-1])
                await trio.lowlevel.wait_readable(pidfd)
                # From here on nobody signals it any more.
                self._returncode = _peek(process.pid)
                # Not reaped yet: until everything is swept, the kernel gives the number of the
                # group to nobody else.
                if strays := await group.kill_remaining(process.pid):
                    log.get_logger().warning(
                        "process left others behind; they were killed",
                        process=self.name,
                        processes=strays,
                    )
                with trio.move_on_after(LINGER):
                    for event in read:
                        await event.wait()
                nursery.cancel_scope.cancel("the process has ended")
        except BaseExceptionGroup as group_of_errors:
            # What a reader of lines raised is what went wrong, not that there are two of them.
            if len(group_of_errors.exceptions) == 1:
                raise group_of_errors.exceptions[0] from None
            raise
        finally:
            trio.lowlevel.notify_closing(pidfd)
            os.close(pidfd)
        for stream, name, cutter in self._streams:
            if (last := cutter.finish()) is not None:
                self._say(name, last)
            await trio.aclose_forcefully(stream)
        with trio.CancelScope(shield=True):  # it has ended: nothing is waited for
            returncode = await process.wait()
        if self._returncode is None:  # somebody else reaped it
            self._returncode = returncode

    async def _read(
        self, stream: trio.abc.ReceiveStream, name: str, cutter: LineSplitter, read: trio.Event
    ) -> None:
        while chunk := await stream.receive_some(_CHUNK):
            for count, line in enumerate(cutter.feed(chunk), 1):
                self._say(name, line)
                if count % _BREATH == 0:
                    await trio.lowlevel.checkpoint()
        read.set()

    def _say(self, stream: str, line: str) -> None:
        on_line = self._on_line
        if on_line is None:
            return
        self._on_line = None  # one that raises is told of once, and is not asked again
        on_line(self.name, stream, line)
        self._on_line = on_line


def _peek(pid: int) -> int | None:
    """How a process ended, without reaping it; None while it runs."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:  # reaped by somebody who will say
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
