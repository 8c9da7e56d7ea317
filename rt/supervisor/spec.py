"""The specification, the status and the exit report of a child.

They are msgspec structs, because a status is sent in remote calls.
"""

import re
from collections.abc import Mapping

import msgspec

from rt.errors import ConfigError
from rt.process.lifeline import CHANNEL, LIFELINE, MAX_MESSAGE
from rt.supervisor.policy import Policy
from rt.supervisor.state import State

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")


class ChildSpec(Policy, frozen=True):
    """One child: how to start it, and its time limits and restart policy (`Policy`).

    Attributes:
        name: The name in the log, in the status and of the notify socket.
        command: The program and its arguments. `LIFELINE` in an argument is replaced by the
            descriptor number of the lifeline (`rt.process.lifeline.Lifeline`). The kernel kills the
            group of a command without it when this process dies, unless the command closes
            inherited descriptors that it does not know.
        message: The settings that `Lifeline.read_message` returns; at most `MAX_MESSAGE` bytes, and
            only with `LIFELINE`.
        pass_fds: Descriptors that are inherited under the same numbers.
        env: Added to the environment, which is inherited.
        cwd: The working directory, or None for this process's.
        last: Whether the child is stopped after all others, and not killed together with them. It
            must come first.
        notify: Whether it reports readiness by sd_notify; otherwise it is ready when it has
            started.
        app: The part of the robot in the log; by default the name.
        autostart: Whether it is started with the others; otherwise the event `Start` starts it.
    """

    name: str
    command: tuple[str, ...]
    message: bytes = b""
    pass_fds: tuple[int, ...] = ()
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    notify: bool = True
    app: str = ""
    autostart: bool = True
    last: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            expected = "1 to 32 of A-Z a-z 0-9 _ . - and no leading dot or dash"
            raise ConfigError(
                f"invalid child name {self.name!r}: expected {expected}", name=self.name
            )
        if not self.command:
            raise ConfigError(f"child {self.name} has no command", name=self.name)
        if len(self.message) > MAX_MESSAGE:
            size = len(self.message)
            raise ConfigError(
                f"the settings of child {self.name} take {size} bytes, more than {MAX_MESSAGE}",
                size=size,
            )
        if self.message and not self.has_lifeline:
            raise ConfigError(
                f"child {self.name} has settings but no {LIFELINE} in its command", name=self.name
            )

    @property
    def has_channel(self) -> bool:
        """Whether the child has a channel: a socket pair for messages to and from its owner."""
        return any(CHANNEL in argument for argument in self.command)

    @property
    def has_lifeline(self) -> bool:
        """Whether the child adopts its end of the lifeline."""
        return any(LIFELINE in argument for argument in self.command)


class ExitReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended.

    Attributes:
        code: The exit code, or None if a signal ended it.
        signal: The name of that signal, such as ``SIGKILL``, or None.
        emergency: Whether the code is that of an emergency stop.
        reason: A description, with the reason if it was stopped.
        tail: The last 16 KiB of its output.
        time: The time of the exit (s since 1970).
        uptime: How long it ran (s).
    """

    code: int | None
    signal: str | None
    emergency: bool
    reason: str
    tail: str
    time: float
    uptime: float


class ChildStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of a child.

    Attributes:
        name: The name.
        state: The state.
        reason: The reason for the state.
        pid: The ID of its process, group and session, or None.
        since: When it entered the state (s since 1970).
        restarts: How many restarts there were, without planned ones.
        status: The last status text that it sent, at most 256 characters, or empty.
        last_exit: How its last process ended, or None.
        on_demand: Whether it runs only on request.
    """

    name: str
    state: State
    reason: str
    pid: int | None
    since: float
    restarts: int
    status: str
    last_exit: ExitReport | None
    on_demand: bool = False

    @property
    def ready(self) -> bool:
        """Whether it runs and has reported that it is ready."""
        return self.state is State.READY

    @property
    def settled(self) -> bool:
        """Whether the state is one that lasts: ready, failed or stopped."""
        return self.state in (State.READY, State.FAILED, State.STOPPED)
