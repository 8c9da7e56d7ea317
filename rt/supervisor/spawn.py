"""How a child's process is made, and how it is put down when nothing else can be done.

The whole environment is inherited, since a frozen child then reuses the unpacked files; what in it was meant for us alone
(our own watchdog, our own sockets) is taken out.
"""

import contextlib
import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import trio

from rt.instance import ENV_DIRECTORY
from rt.supervisor import group
from rt.supervisor.lifeline import arm, open_lifeline
from rt.supervisor.logpipe import VARIABLE as LOG_VARIABLE
from rt.supervisor.logpipe import enlarge, open_log_pipe
from rt.supervisor.notify import FD_VARIABLE, VARIABLE, Channel, Listener
from rt.supervisor.orphans import open_process
from rt.supervisor.spec import CHANNEL, LIFELINE, ChildSpec

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


async def spawn(
    spec: ChildSpec,
    directory: Path,
    listener: Channel | Listener,
    stack: contextlib.ExitStack,
    channel: socket.socket | None = None,
) -> tuple[trio.Process, trio.abc.ReceiveStream | None]:
    """Make the process, as leader of a session of its own, with pipes for its output.

    Args:
        spec: What it is to be.
        directory: That of the instance.
        listener: Where its parent listens.
        stack: Keeps our end of its lifeline; closing it tells the child that it is not wanted any more.
        channel: The child's end of its channel, if it has one.

    Returns:
        The process, and its log pipe if it is a child of our own program, that is one with a lifeline.

    Raises:
        OSError: The process cannot be made.
        ValueError: The command contains what no command can.
        subprocess.SubprocessError: The process ended before it became the program.
    """
    ours, theirs = open_lifeline(spec.message if spec.has_lifeline else None)
    stack.callback(ours.close)
    events: trio.lowlevel.FdStream | None = None
    with theirs, contextlib.ExitStack() as inherited_fds:
        fd = theirs.fileno()
        fds = {LIFELINE: fd} if channel is None else {LIFELINE: fd, CHANNEL: channel.fileno()}
        env = environment(spec, directory) | listener.environment()
        pass_fds = [*spec.pass_fds, *listener.fds, *fds.values()]
        if spec.has_lifeline:
            events, log_fd = open_log_pipe()
            inherited_fds.callback(os.close, log_fd)
            stack.callback(events.close)
            env[LOG_VARIABLE] = str(log_fd)
            pass_fds.append(log_fd)
        with trio.CancelScope(shield=True):  # a process that is made while we leave would have no owner
            process = await open_process(
                [_filled(argument, fds) for argument in spec.command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=env,
                cwd=spec.cwd,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        listener.started()
        for stream in (process.stdout, process.stderr):
            if isinstance(stream, trio.lowlevel.FdStream):
                enlarge(stream.fileno())
        if not spec.has_lifeline:
            with contextlib.suppress(OSError):  # it has exited already
                arm(theirs, process.pid)
    return process, events


def _filled(argument: str, fds: Mapping[str, int]) -> str:
    for placeholder, fd in fds.items():
        argument = argument.replace(placeholder, str(fd))
    return argument


def environment(spec: ChildSpec, directory: Path) -> dict[str, str]:
    """The environment of a child: ours, what the spec adds, its robot, and how often it has to say that it is alive."""
    env = {**inherited(), **(spec.env or {})}
    env[ENV_DIRECTORY] = os.fspath(directory)
    if spec.watchdog is not None:
        env["WATCHDOG_USEC"] = str(round(spec.watchdog * 1e6))
    return env


def inherited() -> dict[str, str]:
    """Our environment, without what in it was meant for us alone."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}


async def put_down(process: trio.Process) -> None:
    """Kill a process and all of its group and session, unless it was reaped before. Bounded, and cannot be cancelled."""
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)  # noqa: ASYNC222 - does not wait
    except ChildProcessError:  # reaped and swept already
        return
    with trio.move_on_after(_LAST_RESORT, shield=True):
        await group.sweep(process.pid)
        await process.wait()
