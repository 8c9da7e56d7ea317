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
from collections.abc import Iterator
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

    def introduce(self, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        self.send(Kind.HELLO, pid, "", pidfd)
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

    def start_brake(self) -> None:
        """Start another brake."""
        self.brake, self.lifeline = _start(self.connection, self.stack)


def _start(
    connection: Connection, stack: contextlib.ExitStack
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = open_lifeline(settings(**connection.brake._asdict(), instance="bench"))
    with theirs:
        brake = subprocess.Popen(
            [sys.executable, "-P", "-m", "rt", "_child", "brake", str(theirs.fileno())],
            pass_fds=(*connection.brake, theirs.fileno()),
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    assert brake.stdout is not None
    stack.callback(brake.stdout.close)
    stack.callback(brake.wait)
    stack.callback(brake.kill)
    stack.callback(ours.close)
    return brake, ours


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
        stack.callback(victim.kill)
        brake, lifeline = _start(connection, stack)
        yield Bench(connection, brake, lifeline, victim, channel, heartbeat, stack)
