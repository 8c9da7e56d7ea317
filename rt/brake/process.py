"""The brake process: it disables the lines when the device process dies, hangs or is late.

It is a plain loop around `poll`, without an event loop. Everything is imported at the start,
because the files of a self-extracting executable may be gone when the root is.
"""

import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, Final

from rt.brake.connection import FLAGS, adopt, receive, send
from rt.brake.heartbeat import Heartbeat
from rt.brake.line import MS, Line
from rt.brake.machine import Act, Brake
from rt.brake.protocol import WITH_DESCRIPTOR, Kind, Message, decode
from rt.brake.watch import WAITING, watching

ROLE: Final = "brake"
_PRIORITY: Final = 10
_NICE: Final = -20
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_SETTINGS_TIMEOUT: Final = 5.0
_STOPPED_STATES: Final = frozenset("TtZXx")


def settings(*, channel: int, wakeup: int, memory: int, instance: str) -> bytes:
    """Return the message on the brake's lifeline (JSON): its endpoint and the robot's name."""
    return json.dumps({"fds": [channel, wakeup, memory], "instance": instance}).encode()


def main(arguments: list[str]) -> int:
    """Run the brake.

    Args:
        arguments: The number of the lifeline's file descriptor.

    Returns:
        The exit code.
    """
    faulthandler.enable()
    lifeline = socket.socket(fileno=int(arguments[0]))
    lifeline.set_inheritable(False)
    given = json.loads(_read_settings(lifeline))
    process = _Process(lifeline, given["fds"], given["instance"])
    gc.collect()
    gc.freeze()
    gc.disable()
    _raise_priority()
    return process.run()


class _Process:
    """The main loop."""

    def __init__(self, lifeline: socket.socket, fds: list[int], instance: str) -> None:
        channel, self._wakeup, memory = adopt(fds)
        self._channel = socket.socket(fileno=channel)
        self._heartbeat = Heartbeat(memory)
        os.close(memory)
        self._lifeline = lifeline
        self._instance = instance
        self._brake = Brake()
        self._lines: dict[tuple[int, int], Line] = {}
        self._generation = 0
        self._announced: set[int] = set()
        self._pid = 0
        self._pidfd = -1
        self._own_pidfd = os.pidfd_open(os.getpid())
        self._period = int(os.environ.get("WATCHDOG_USEC", "0")) * 1000 // 2
        self._next_watchdog = 0
        self._root = _open_notify()
        self._last_status = ""
        self._action: tuple[int, str] | None = None
        self._outcomes: dict[str, str] = {}
        self._knows_all_lines = False
        self._settling = 0
        self._heartbeat.set_pending(0)  # clear the value of an earlier brake
        self._connected = True
        self._running = True
        self._signals, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _receive)
        self._events = _open_log()
        self._poll = select.poll()
        for fd in (self._channel.fileno(), self._wakeup, self._lifeline.fileno(), self._signals):
            self._poll.register(fd, select.POLLIN)

    def run(self) -> int:
        """Run until the brake exits, and return the exit code."""
        self._drain_channel(discard=True)
        self._send(Kind.ASK, self._own_pidfd)
        self._notify("READY=1")
        while self._running:
            ready = {fd for fd, _ in self._poll.poll(self._timeout())}
            self._drain_channel()
            if self._wakeup in ready:
                _discard(self._wakeup)
            if self._pidfd in ready:
                self._perform(self._brake.device_exited(), self._heartbeat.stamp)
                self._poll.unregister(self._pidfd)
                os.close(self._pidfd)
                self._pidfd = -1
            if self._lifeline.fileno() in ready:
                self._poll.unregister(self._lifeline.fileno())
                self._brake.root_exited(_now())
            if self._signals in ready:
                _discard(self._signals)
                self._perform(self._brake.stop(_now()))
            self._advance_lines()
            stamp, expiry = self._heartbeat.stamp, self._heartbeat.expiry
            acts = self._brake.check(
                _now(), stamp, len(self._lines), self._is_device_stopped, expiry
            )
            # A device process that is not late clears its stamp itself.
            self._perform(acts, stamp if Act.WARN in acts and self._brake.is_silent else 0)
            if acts:
                self._advance_lines()
            self._publish()
            self._log_outcome()
            self._send_status()
        return 0

    def _timeout(self) -> float | None:
        """Return the time to wait in ms."""
        now = _now()
        times = [line.due(now) for line in self._lines.values()]
        times.append(
            self._brake.due(self._heartbeat.stamp, len(self._lines), self._heartbeat.expiry)
        )
        if self._period:
            times.append(self._next_watchdog)
        due = min((time for time in times if time is not None), default=None)
        return None if due is None else max(0.0, (due - now) / MS)

    def _perform(self, acts: list[Act], stamp: int = 0) -> None:
        """Perform actions.

        Args:
            acts: The actions.
            stamp: The stamp of the device process after which it has written nothing; 0 for
                unknown.
        """
        for act in acts:
            match act:
                case Act.DISABLE | Act.RELEASE:
                    now = _now()
                    self._settling = stamp if self._knows_all_lines else 0
                    for (generation, _), line in self._lines.items():
                        if generation == self._generation:
                            line.disable(
                                now, release=act is Act.RELEASE, still_used=self._brake.still_used
                            )
                    self._publish_pending()
                    if self._lines and self._action is None and not self._brake.repeats:
                        self._action = now, self._brake.reason  # for the log
                        self._outcomes.clear()
                case Act.KILL:
                    self._log(
                        "warning",
                        "device process killed",
                        reason=self._brake.reason,
                        killed=self._pid,
                    )
                    with contextlib.suppress(OSError):  # it has exited
                        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                case Act.WARN:
                    self._send(Kind.BRAKED)
                case Act.EXIT:  # pragma: no branch - there are no other actions
                    self._running = False

    def _advance_lines(self) -> None:
        """Write pending frames, and close the lines that are finished."""
        now = _now()
        for key, line in list(self._lines.items()):
            is_written = line.pending
            busy = line.advance(now)
            if is_written and line.outcome:
                self._outcomes[line.name] = line.outcome
                if line.outcome == "refused":
                    self._settling = 0
            if line.releasing and not busy:
                del self._lines[key]
                line.close()

    def _publish_pending(self) -> None:
        self._heartbeat.set_pending(sum(line.pending for line in self._lines.values()))

    def _publish(self) -> None:
        """Publish the number of pending lines, and the end of an action."""
        if self._settling and not any(line.pending for line in self._lines.values()):
            self._heartbeat.settle(self._settling)
            self._settling = 0
        self._publish_pending()

    def _log_outcome(self) -> None:
        """Log an action when every line has a result."""
        if self._action is None or any(line.pending for line in self._lines.values()):
            return
        began, reason = self._action
        self._action = None
        took = round((_now() - began) / MS, 1)
        self._log(
            "warning", "devices disabled by the brake", reason=reason, ms=took, lines=self._outcomes
        )

    def _drain_channel(self, *, discard: bool = False) -> None:
        """Handle all pending messages, or discard those from before the first ASK."""
        while True:
            try:
                data, fds = receive(self._channel)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:  # the root and the device process have exited
                if self._connected:
                    self._connected = False
                    self._poll.unregister(self._channel.fileno())
                return
            message = decode(data)
            if (
                not discard
                and message is not None
                and len(fds) == (message.kind in WITH_DESCRIPTOR)
            ):
                self._handle_message(message, fds)
            else:
                for fd in fds:
                    os.close(fd)

    def _handle_message(self, message: Message, fds: list[int]) -> None:
        key = self._generation, message.number
        match message.kind:
            case Kind.HELLO:
                self._handle_hello(message.number, fds[0])
            case Kind.LINE if self._brake.alive:
                self._announced.add(message.number)
                if key in self._lines:
                    os.close(fds[0])
                else:
                    self._lines[key] = Line(message.name, fds[0])
            case Kind.ALL:
                self._knows_all_lines = True
                for generation, number in list(self._lines):
                    if generation == self._generation and number not in self._announced:
                        self._lines.pop((generation, number)).close()
            case Kind.CLOSED if key in self._lines:
                self._lines.pop(key).close()
            case _:
                for fd in fds:
                    os.close(fd)

    def _handle_hello(self, pid: int, pidfd: int) -> None:
        self._announced.clear()
        self._knows_all_lines = False
        if self._brake.alive and pid == self._pid:
            os.close(pidfd)
            return
        self._perform(self._brake.device_started())
        if self._pidfd >= 0:
            self._poll.unregister(self._pidfd)
            os.close(self._pidfd)
        self._pid, self._pidfd = pid, pidfd
        self._generation += 1
        self._poll.register(pidfd, select.POLLIN)
        self._send(Kind.ASK, self._own_pidfd)

    def _send(self, kind: Kind, fd: int | None = None) -> None:
        # A device process that does not read has exited, or is killed soon.
        with contextlib.suppress(OSError):
            send(self._channel, Message(kind, os.getpid()), fd)

    def _is_device_stopped(self) -> bool:
        """Return whether the device process is stopped, traced or dead."""
        try:
            stat = Path(f"/proc/{self._pid}/stat").read_bytes()
            return stat.rpartition(b")")[2].split()[0].decode() in _STOPPED_STATES
        except (OSError, IndexError):
            return True

    def _send_status(self) -> None:
        now = _now()
        status = watching(len(self._lines)) if self._knows_all_lines else WAITING
        if status != self._last_status:
            self._last_status = status
            self._notify(f"STATUS={status}")
        if self._period and now >= self._next_watchdog:
            self._next_watchdog = now + self._period
            self._notify("WATCHDOG=1")

    def _notify(self, text: str) -> None:
        if self._root is not None:
            with contextlib.suppress(OSError):  # the root may have exited
                self._root.send(text.encode(), FLAGS)

    def _log(self, level: str, event_name: str, **context: Any) -> None:
        """Send an event to the root (`rt.protocol.logevent`); drop it if the root does not read."""
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        stamp = (
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            + f".{nanoseconds // 1000:06d}Z"
        )
        event = {
            "event": event_name,
            "level": level,
            "timestamp": stamp,
            "app": ROLE,
            "pid": os.getpid(),
        }
        event |= {"instance": self._instance, **context}
        with contextlib.suppress(OSError):
            os.write(self._events, json.dumps(event).encode() + b"\n")


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _receive(_number: int, _frame: object) -> None:
    """Handle a signal; the wakeup descriptor reports it."""


def _discard(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 64)


def _open_notify() -> socket.socket | None:
    """Return the socket to the supervisor (`rt.process.notify`); None without a supervisor."""
    fd, _, inode = os.environ.get("RT_NOTIFY", "").partition(":")
    with contextlib.suppress(OSError, ValueError):
        if str(os.fstat(int(fd)).st_ino) == inode:
            os.set_inheritable(int(fd), False)
            return socket.socket(fileno=int(fd))
    return None


def _open_log() -> int:
    """Return the descriptor for log events (`rt.process.logpipe`) or stdout; non-blocking."""
    number = os.environ.pop("RT_LOG_FD", "")
    fd = sys.stdout.fileno()
    with contextlib.suppress(OSError, ValueError):
        os.set_inheritable(int(number), False)
        fd = int(number)
    os.set_blocking(fd, False)
    return fd


def _read_settings(lifeline: socket.socket) -> bytes:
    """Read the message of `rt.process.lifeline`."""
    lifeline.settimeout(_SETTINGS_TIMEOUT)
    with lifeline.makefile("rb", buffering=0) as file:
        (length,) = struct.unpack("<I", _read_exactly(file, 4))
        data = _read_exactly(file, length)
    lifeline.setblocking(False)
    return data


def _read_exactly(file: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (chunk := file.read(size - len(data))):
            raise EOFError("the root exited before it sent the settings of the brake")
        data += chunk
    return data


def _raise_priority() -> None:
    """Run before other processes and lock the memory, as far as the system permits.

    The brake works without, but later.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(_PRIORITY))
    except OSError:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)
