"""A command as a process that runs once.

Invariant: signals go to the process group only until the process is reaped. When the process has
exited, the rest of its session is killed, and the kernel kills the group when this process dies.
"""

import contextlib
import functools
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
from rt.process.output import LineSplitter, OnLine, log_line
from rt.process.spawn import spawn

_CHUNK = 8192
_YIELD_EVERY = 32
"""How many lines are handled between two checkpoints."""


class CommandProcess:
    """One run of a command.

    Its output is read only while a task is in `wait`; otherwise a process that writes much blocks.
    As an async context manager it starts the process, and kills it at the end of the block if it
    still runs.

    Args:
        command: The program and its arguments. `rt.process.lifeline.LIFELINE` in an argument is
            replaced by the descriptor number of its lifeline. The kernel kills the group of a
            command without `LIFELINE` when this process dies, unless the command closes inherited
            descriptors that it does not know.
        name: The name in the log; by default the name of the program.
        message: The message on the lifeline, at most `rt.process.lifeline.MAX_MESSAGE` bytes; only
            with `LIFELINE`.
        cwd: The working directory, or None for this process's.
        env: Added to the environment, which is inherited.
        pass_fds: Descriptors that are inherited under the same numbers.
        on_line: Called in the event loop for each line of output with the name, ``stdout`` or
            ``stderr``, and the line. By default the lines are logged. With None, the process
            inherits stdout and stderr. A process of rt itself, which is one with a lifeline, writes
            its log events as JSON lines of the stream ``log``.
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
            raise ValueError("the command of a process is empty")
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
        self._wait_lock = trio.Lock()
        self._is_reaped = False
        self._returncode: int | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {shlex.join(self._command)}>"

    @property
    def pid(self) -> int | None:
        """The process ID, also of the group and the session; None before the start."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal number, or None while the process runs."""
        if self._returncode is None and self._process is not None:
            self._returncode = _peek(self._process.pid)
        return self._returncode

    async def start(self) -> None:
        """Start the process.

        A checkpoint; a cancel takes effect before the process is started, or not at all.

        Raises:
            ProcessStateError: The process was started before.
            OSError: The process cannot be started.
            LocalProtocolError: The message does not fit into the lifeline.
        """
        if self._starting:
            raise ProcessStateError(
                f"process {self.name} was started before; create another one", process=self.name
            )
        await trio.lowlevel.checkpoint_if_cancelled()
        self._starting = True
        pipe = None if self._on_line is None else subprocess.PIPE
        with contextlib.ExitStack() as stack:
            process, streams = await spawn(
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
        self._streams = [(stream, name, LineSplitter()) for name, stream in streams.items()]

    async def wait(self) -> int:
        """Wait until the process has exited and its session is empty; return `returncode`.

        Several tasks may wait. A checkpoint; after a cancel, the next call continues the wait.

        Raises:
            ProcessStateError: The process was not started.
        """
        if self._process is None:
            raise ProcessStateError(f"process {self.name} is not started", process=self.name)
        async with self._wait_lock:
            if not self._is_reaped:
                await self._attend(self._process)
                self._is_reaped = True
                self._stack.close()
        assert self._returncode is not None
        return self._returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process group, unless the process has exited.

        Raises:
            ProcessStateError: The process was not started.
        """
        if self._process is None:
            raise ProcessStateError(f"process {self.name} is not started", process=self.name)
        if self.returncode is None:
            group.signal_group(self._process.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM to the process group."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the process group."""
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
                await self.wait()  # `on_line` failed, and is not called again
                raise

    async def _attend(self, process: trio.Process) -> None:
        def on_exit() -> None:
            self._returncode = _peek(process.pid)

        readers = [functools.partial(self._read, *each) for each in self._streams]
        try:
            await group.attend(
                process, readers, on_exit=on_exit, logger=log.get_logger(process=self.name)
            )
        except BaseExceptionGroup as errors:
            # The caller gets the error of `on_line` itself, not the group of the nursery.
            if len(errors.exceptions) == 1:
                raise errors.exceptions[0] from None
            raise
        for stream, name, splitter in self._streams:
            if (last := splitter.finish()) is not None:
                self._emit(name, last)
            await trio.aclose_forcefully(stream)
        with trio.CancelScope(shield=True):  # the process has exited, so this does not wait
            returncode = await process.wait()
        if self._returncode is None:  # other code reaped the process
            self._returncode = returncode

    async def _read(
        self, stream: trio.abc.ReceiveStream, name: str, splitter: LineSplitter
    ) -> None:
        while chunk := await stream.receive_some(_CHUNK):
            for count, line in enumerate(splitter.feed(chunk), 1):
                self._emit(name, line)
                if count % _YIELD_EVERY == 0:
                    await trio.lowlevel.checkpoint()

    def _emit(self, stream: str, line: str) -> None:
        on_line = self._on_line
        if on_line is None:
            return
        self._on_line = None  # a callback that raises is not called again
        on_line(self.name, stream, line)
        self._on_line = on_line


def _peek(pid: int) -> int | None:
    """Return how a process ended without reaping it; None while it runs or if it was reaped."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
