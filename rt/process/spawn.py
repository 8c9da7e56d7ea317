"""The start of a child process: lifeline, log pipe, environment and session.

A child inherits the environment, so that a child from a one-file executable reuses the unpacked
files. Variables for this process alone, such as those of its watchdog, are removed.
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import trio

from rt.process.lifeline import CHANNEL, LIFELINE, arm, open_lifeline
from rt.process.logpipe import LOG, enlarge, open_log_pipe
from rt.process.logpipe import VARIABLE as LOG_VARIABLE
from rt.process.notify import FD_VARIABLE, VARIABLE
from rt.process.orphans import open_process

_NOT_INHERITED = (
    VARIABLE,
    FD_VARIABLE,
    LOG_VARIABLE,
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
)


class Spawned(NamedTuple):
    """A started process.

    Attributes:
        process: The leader of its own session.
        streams: Its output by name: ``stdout``, ``stderr`` and `LOG`, as far as they are pipes.
    """

    process: trio.Process
    streams: dict[str, trio.abc.ReceiveStream]


def child_command(role: str) -> tuple[str, ...]:
    """Return the command that starts this executable again as a child with a role."""
    if getattr(sys, "frozen", False):
        return (sys.executable, "_child", role, LIFELINE)
    return (sys.executable, "-P", "-m", "rt", "_child", role, LIFELINE)


async def spawn(
    command: Sequence[str],
    stack: contextlib.ExitStack,
    *,
    message: bytes | None = None,
    channel: socket.socket | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    pass_fds: Sequence[int] = (),
    stdout: int | None = subprocess.PIPE,
    stderr: int | None = subprocess.PIPE,
    log_pipe: bool = True,
) -> Spawned:
    """Start a process as the leader of its own session.

    Shielded from cancels while the process is being started, so that every process has an owner.

    Args:
        command: The program and its arguments. `LIFELINE` and `CHANNEL` in them are replaced by
            descriptor numbers. The kernel kills the group of a command without `LIFELINE` when
            this process dies.
        stack: Closes the parent's end of the lifeline, which stops the child, and the log pipe.
        message: The message on the lifeline; only with `LIFELINE`.
        channel: The child's end of its channel.
        env: Added to the environment, which is inherited.
        cwd: The working directory, or None for this process's.
        pass_fds: Descriptors that are inherited under the same numbers.
        stdout: `subprocess.PIPE`, `subprocess.DEVNULL`, or None to inherit stdout.
        stderr: Likewise for stderr.
        log_pipe: Whether a child that is rt itself, which is one with a lifeline, gets a log pipe.

    Raises:
        LocalProtocolError: The message does not fit into the lifeline.
        OSError: The process cannot be started.
        ValueError: The command contains an invalid value, such as a null byte.
        subprocess.SubprocessError: The process ended before it executed the program.
    """
    own_program = any(LIFELINE in argument for argument in command)
    ours, theirs = open_lifeline(message if own_program else None)
    stack.callback(ours.close)
    fds = {LIFELINE: theirs.fileno()} | ({} if channel is None else {CHANNEL: channel.fileno()})
    variables = {**inherited(), **(env or {})}
    passed = [*pass_fds, *fds.values()]
    streams: dict[str, trio.abc.ReceiveStream] = {}
    with theirs, contextlib.ExitStack() as inherited_fds:
        if own_program and log_pipe:
            events, log_fd = open_log_pipe()
            streams[LOG] = events
            inherited_fds.callback(os.close, log_fd)
            stack.callback(events.close)
            variables[LOG_VARIABLE] = str(log_fd)
            passed.append(log_fd)
        with trio.CancelScope(shield=True):
            process = await open_process(
                [_fill_in(argument, fds) for argument in command],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=variables,
                cwd=cwd,
                start_new_session=True,
                pass_fds=passed,
            )
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            if stream is not None:
                streams[name] = stream
            if isinstance(stream, trio.lowlevel.FdStream):
                enlarge(stream.fileno())
        if not own_program:
            with contextlib.suppress(OSError):  # the process has already exited
                arm(theirs, process.pid)
    return Spawned(process, streams)


def _fill_in(argument: str, fds: Mapping[str, int]) -> str:
    for placeholder, fd in fds.items():
        argument = argument.replace(placeholder, str(fd))
    return argument


def inherited() -> dict[str, str]:
    """Return the environment without the variables for this process alone."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
