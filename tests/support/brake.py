"""A brake process and an emulated device process, which can be killed, with its channel."""

import contextlib
import fcntl
import json
import os
import select
import socket
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rt.brake.connection import Connection
from rt.brake.heartbeat import Heartbeat
from rt.brake.process import settings
from rt.brake.protocol import SIZE, Kind, Message, decode, encode
from rt.process.lifeline import open_lifeline

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
MEASURED = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
"""Makes the brake measure its coverage; `conftest` removes this for all other processes."""


@dataclass
class Line:
    """A pseudo-terminal: the board's end, and the port of the device process."""

    number: int
    name: str
    board: int
    port: int
    received: bytes = b""

    def wait_for(self, wanted: bytes) -> None:
        """Wait until the board has received these bytes."""
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.received:
            assert select.select([self.board], [], [], max(0.0, deadline - time.monotonic()))[0], (
                f"only {self.received!r}"
            )
            self.received += os.read(self.board, 4096)

    def is_locked(self) -> bool:
        """Return whether a process holds the port's lock."""
        fd = os.open(self.name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def is_silent(self) -> bool:
        """Return whether the board received nothing; an error means that the port is closed."""
        os.set_blocking(self.board, False)
        try:
            return not os.read(self.board, 4096)
        except OSError:
            return True


@dataclass
class Bench:
    """The brake and everything that it is connected to."""

    connection: Connection
    brake: subprocess.Popen[bytes]
    lifeline: socket.socket
    victim: subprocess.Popen[bytes]
    channel: socket.socket
    heartbeat: Heartbeat
    stack: contextlib.ExitStack
    lines: list[Line] = field(default_factory=list)

    def send(self, kind: Kind, number: int = 0, name: str = "", fd: int | None = None) -> None:
        socket.send_fds(
            self.channel, [encode(Message(kind, number, name))], [] if fd is None else [fd]
        )

    def introduce(self, pid: int, claimed: int | None = None) -> None:
        """Introduce a device process, or one that claims another process id."""
        pidfd = os.pidfd_open(pid)
        self.send(Kind.HELLO, pid if claimed is None else claimed, "", pidfd)
        os.close(pidfd)

    def open(self) -> Line:
        """Open and announce a line."""
        board, port = os.openpty()
        tty.setraw(port)
        os.set_blocking(port, False)
        fcntl.flock(port, fcntl.LOCK_EX)
        line = Line(len(self.lines) + 1, os.ttyname(port), board, port)
        self.lines.append(line)
        self.stack.callback(os.close, board)
        self.send(Kind.LINE, line.number, os.ttyname(port), port)
        return line

    def close_port(self, line: Line) -> None:
        """Close the device process's descriptor of a line."""
        os.close(line.port)

    def wait_for(self, kind: Kind) -> None:
        """Wait for a message of the brake."""
        self.channel.settimeout(PATIENCE)
        while True:
            data, fds, _, _ = socket.recv_fds(self.channel, SIZE, 4)
            for fd in fds:
                os.close(fd)
            message = decode(data)
            if message is not None and message.kind is kind:
                return

    def wait_for_event(self, event: str) -> dict[str, Any]:
        """Wait for an event in the brake's log."""
        assert self.brake.stdout is not None
        for line in self.brake.stdout:
            entry: dict[str, Any] = json.loads(line)
            if entry["event"] == event:
                return entry
        raise AssertionError(f"the brake did not log {event!r}")

    def start_brake(self, **options: Any) -> None:
        """Start another brake; the options are those of `_start`."""
        self.brake, self.lifeline = _start(self.connection, self.stack, **options)

    def replace_brake(self, **options: Any) -> None:
        """Kill the brake and start another one."""
        self.brake.kill()
        self.brake.wait()
        self.start_brake(**options)

    def introduce_lines(self) -> None:
        """Introduce the device process and its lines to a brake that asks."""
        self.wait_for(Kind.ASK)
        self.introduce(self.victim.pid)
        for line in self.lines:
            self.send(Kind.LINE, line.number, line.name, line.port)
        self.send(Kind.ALL)


def _start(
    connection: Connection,
    stack: contextlib.ExitStack,
    *,
    environment: Mapping[str, str] = {},
    pass_fds: Sequence[int] = (),
    preexec: Callable[[], None] | None = None,
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = open_lifeline(settings(**connection.brake._asdict(), instance="bench"))
    with theirs:
        brake = subprocess.Popen(
            [sys.executable, "-P", "-m", "rt", "_child", "brake", str(theirs.fileno())],
            pass_fds=(*connection.brake, theirs.fileno(), *pass_fds),
            stdout=subprocess.PIPE,
            env={**os.environ, **MEASURED, **environment, "PYTHONPATH": str(ROOT)},
            preexec_fn=preexec,  # noqa: PLW1509 - the parent has no other thread
        )
    assert brake.stdout is not None
    stack.callback(brake.stdout.close)
    stack.callback(_end, brake)
    stack.callback(ours.close)
    return brake, ours


def _end(brake: subprocess.Popen[bytes]) -> None:
    """Wait for the exit of a brake whose root and device process have exited."""
    try:
        brake.wait(PATIENCE)
    finally:
        brake.kill()
        brake.wait()


@contextlib.contextmanager
def open_bench() -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        connection = Connection()
        stack.callback(connection.close)
        channel = socket.socket(fileno=os.dup(connection.device.channel))
        stack.callback(channel.close)
        heartbeat = Heartbeat(connection.device.memory)
        stack.callback(heartbeat.close)
        victim = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        stack.callback(victim.wait)
        brake, lifeline = _start(connection, stack)
        stack.callback(victim.kill)
        yield Bench(connection, brake, lifeline, victim, channel, heartbeat, stack)
