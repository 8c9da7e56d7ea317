"""What a child is to be, and what is known of one: the values that the supervisor takes and gives.

They are msgspec structs, because a status travels to whoever asks for it.
"""

import re
from collections.abc import Mapping

import msgspec

from rt.errors import ConfigError
from rt.process.lifeline import CHANNEL, LIFELINE, MAX_MESSAGE
from rt.supervisor.state import Policy, State

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")


class ChildSpec(Policy, frozen=True):
    """One child: how it is started, and (from `Policy`) how long it may take and whether it comes back.

    Attributes:
        name: Its name in the log, the status and the name of its notify socket.
        command: The program and its arguments. `LIFELINE` in an argument becomes the number of a
            file descriptor: the child adopts it (`rt.process.lifeline.Lifeline`). A command without
            it is guarded by the kernel instead: its group is killed when we die, as long as it
            leaves open a descriptor that it does not know of.
        message: The settings that `Lifeline.read_message` gives; at most `MAX_MESSAGE` bytes, and
            only with `LIFELINE`.
        pass_fds: Descriptors that the child inherits under the same numbers.
        env: Added to our whole environment, which is inherited: a frozen child then reuses the
            unpacked files.
        cwd: Where it starts, or None for where we are.
        last: Whether it is spared when all children are killed at once, and stopped when the others
            are gone; it stands first.
        notify: Whether it says by sd_notify when it is ready; otherwise it is ready as soon as it
            exists.
        app: The part of the robot that it is in the log; its name by default.
        autostart: Whether it is started with the others; otherwise an event `Start` starts it.
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
            allowed = "1 to 32 of A-Z a-z 0-9 _ . - and no leading dot or dash"
            raise ConfigError(
                f"{self.name!r} cannot be the name of a child: allowed are {allowed}",
                name=self.name,
            )
        if not self.command:
            raise ConfigError(f"child {self.name} has no command", name=self.name)
        if len(self.message) > MAX_MESSAGE:
            size = len(self.message)
            raise ConfigError(
                f"the settings of child {self.name} are {size} bytes long, more than {MAX_MESSAGE}",
                size=size,
            )
        if self.message and not self.has_lifeline:
            raise ConfigError(
                f"child {self.name} has settings but no {LIFELINE} in its command", name=self.name
            )

    @property
    def has_channel(self) -> bool:
        """Whether the child has a channel: a pair of sockets of its own, over which it exchanges messages with its owner."""
        return any(CHANNEL in argument for argument in self.command)

    @property
    def has_lifeline(self) -> bool:
        """Whether the child itself takes its end of the lifeline."""
        return any(LIFELINE in argument for argument in self.command)


class ExitReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended.

    Attributes:
        code: Its exit code, or None when it was ended by a signal.
        signal: The name of that signal, e.g. ``SIGKILL``, or None.
        emergency: Whether the code says that it stopped in an emergency.
        reason: All of this, and why it was stopped if it was, in words.
        tail: The last 16 KiB that it wrote to stdout and stderr.
        time: When, in seconds since 1970.
        uptime: How long it had run, in seconds.
    """

    code: int | None
    signal: str | None
    emergency: bool
    reason: str
    tail: str
    time: float
    uptime: float


class ChildStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a child.

    Attributes:
        name: Its name.
        state: Where it stands.
        reason: Why it stands there, in words.
        pid: Its process, which is also its group and its session; None when there is none.
        since: When it came to this state, in seconds since 1970.
        restarts: How often a process of it was followed by another one, but for planned restarts.
        status: What it last said about itself, at most 256 characters; empty when nothing.
        last_exit: How its last process ended, or None.
        on_demand: Whether it runs only while it is asked for.
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
        """Whether it runs and has said that it is ready."""
        return self.state is State.READY

    @property
    def settled(self) -> bool:
        """Whether it stands where it stays by itself: ready, failed or stopped."""
        return self.state in (State.READY, State.FAILED, State.STOPPED)
