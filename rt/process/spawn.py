"""Starts a process of rt: lifeline, log pipe, environment and session.

A child inherits the whole environment, because a frozen child then reuses the unpacked files.
Variables that were meant for this process alone (its own watchdog, its own sockets) are removed.
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

from rt.process import group
from rt.process.lifeline import CHANNEL, LIFELINE, arm, open_lifeline
from rt.process.logpipe import VARIABLE as LOG_VARIABLE
from rt.process.logpipe import enlarge, open_log_pipe
from rt.process.notify import FD_VARIABLE, VARIABLE
from rt.process.orphans import open_process

_LAST_RESORT = 0.3
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
    """A process that has started.

    Attributes:
        process: The leader of a session of its own.
        events: The reading end of its log pipe, or None if it has none.
    """

    process: trio.Process
    events: trio.abc.ReceiveStream | None


def child_command(role: str) -> tuple[str, ...]:
    """Return the command that starts this executable again as a child with a role."""
    if getattr(sys, "frozen", False):
        return (sys.executable, "_child", role, LIFELINE)
    return (sys.executable, "-P", "-m", "rt", "_child", role, LIFELINE)


def has_lifeline(command: Sequence[str]) -> bool:
    """Return whether the child itself takes its end of the lifeline."""
    return any(LIFELINE in argument for argument in command)


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
    """Start a process as leader of a session of its own.

    A checkpoint only in that it may be cancelled before it starts the process; after that a cancel
    is delivered late, so that no process is without an owner.

    Args:
        command: The program and its arguments. `LIFELINE` and `CHANNEL` in them become numbers of
            descriptors. The kernel kills the group of a command without `LIFELINE` when this
            process dies.
        stack: Keeps our end of the lifeline; closing it tells the child to end. Keeps the log pipe
            too.
        message: What the lifeline carries; only with `LIFELINE`.
        channel: The child's end of its channel.
        env: Added to the environment that it inherits.
        cwd: Its working directory, or None for ours.
        pass_fds: Descriptors that it inherits under the same numbers.
        stdout: `subprocess.PIPE`, `subprocess.DEVNULL` or None to inherit ours.
        stderr: The same.
        log_pipe: Whether a child of our own program, which is one with a lifeline, gets a log pipe.

    Raises:
        LocalProtocolError: The message does not fit into the lifeline.
        OSError: The process cannot be started.
        ValueError: The command contains a null byte or another value that no command can contain.
        subprocess.SubprocessError: The process ended before it executed the program.
    """
    own_program = has_lifeline(command)
    ours, theirs = open_lifeline(message if own_program else None)
    stack.callback(ours.close)
    fds = {LIFELINE: theirs.fileno()} | ({} if channel is None else {CHANNEL: channel.fileno()})
    variables = {**inherited(), **(env or {})}
    passed = [*pass_fds, *fds.values()]
    events: trio.lowlevel.FdStream | None = None
    with theirs, contextlib.ExitStack() as inherited_fds:
        if own_program and log_pipe:
            events, log_fd = open_log_pipe()
            inherited_fds.callback(os.close, log_fd)
            stack.callback(events.close)
            variables[LOG_VARIABLE] = str(log_fd)
            passed.append(log_fd)
        with trio.CancelScope(shield=True):
            process = await open_process(
                [_filled(argument, fds) for argument in command],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=variables,
                cwd=cwd,
                start_new_session=True,
                pass_fds=passed,
            )
        for stream in (process.stdout, process.stderr):
            if isinstance(stream, trio.lowlevel.FdStream):
                enlarge(stream.fileno())
        if not own_program:
            with contextlib.suppress(OSError):  # the process has exited already
                arm(theirs, process.pid)
    return Spawned(process, events)


def _filled(argument: str, fds: Mapping[str, int]) -> str:
    for placeholder, fd in fds.items():
        argument = argument.replace(placeholder, str(fd))
    return argument


def inherited() -> dict[str, str]:
    """Return our environment without the variables that were meant for this process alone."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}


async def kill_tree(process: trio.Process) -> None:
    """Kill a process and all of its group and session, unless it was reaped before. Bounded, and cannot be cancelled."""
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)  # noqa: ASYNC222 - does not wait
    except ChildProcessError:  # reaped and swept already
        return
    with trio.move_on_after(_LAST_RESORT, shield=True):
        await group.kill_remaining(process.pid)
        await process.wait()
