"""Many Smart Devices in one process: plain sockets, one loop, precomputed frames.

`python crowd.py PORT COUNT PREFIX` connects COUNT motors. Each answers PING, SUB_REQ, DEV_READ and
HB_REQ like firmware, and reports its five readable parameters every 40 ms while it is subscribed.
The phases are spread evenly over the period. The process reads commands from standard input, one
per line, and answers each with a line of JSON:

- ``measure SECONDS``: the number of frames sent, the number that the device process counted, and
  the age (ms) of each report when it came into the buffer, by the stamp of the device process. A
  device skips a report while the previous one has not arrived.
- ``stop``: exit.
"""

import contextlib
import json
import os
import select
import socket
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.robot import CATALOG, uid_of  # noqa: E402 - found by the line above

from rt.buffer import BufferStore, DeviceBuffer  # noqa: E402
from rt.protocol import frames  # noqa: E402
from rt.protocol.message import DevData, DevRead, HbReq, HbRes, Ping, SubReq, SubRes  # noqa: E402

KIND = "polar-bear"
FIRST = 1000
"""The number in the UID of the first device."""
PERIOD = 0.04
PATIENCE = 1.0
"""How long (s) a device waits for its report to arrive before it sends the next."""
NUMBERS = 500
"""The number of different reports that a device sends in turn."""

_REPORTS = [
    frames.encode(
        DevData(
            *CATALOG[KIND].pack(
                {
                    "duty_cycle": 0.5,
                    "enc_pos": float(number),
                    "enc_vel": 1.5,
                    "motor_current": 0.25,
                    "deadband": 0.125,
                }
            )
        )
    )
    for number in range(NUMBERS)
]


class Motor:
    """One device: its line, its subscription, and its last report."""

    def __init__(self, port: int, number: int) -> None:
        self.uid = uid_of(KIND, FIRST + number)
        self.buffer: DeviceBuffer | None = None
        self.line = socket.create_connection(("127.0.0.1", port))
        self.line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.line.setblocking(False)
        self.params = 0
        self.due = 0.0
        self.number = 0
        self.sent = 0
        self.frames = 0
        self._reader = frames.FrameReader()

    def answer(self) -> bool:
        """Answer received messages, and return False at the end of the line."""
        data = self.line.recv(4096)
        for message in self._reader.feed(data):
            if isinstance(message, SubReq):
                self.params = message.params & CATALOG[KIND].readable if message.interval else 0
            if isinstance(message, Ping | SubReq):
                self._send(frames.encode(SubRes(self.params, 40 if self.params else 0, self.uid)))
            elif isinstance(message, HbReq):
                self._send(frames.encode(HbRes(message.id)))
            elif isinstance(message, DevRead):
                self._send(_REPORTS[0])
        return bool(data)

    def report(self) -> None:
        self.number = (self.number + 1) % NUMBERS
        self.sent = time.monotonic_ns()
        self._send(_REPORTS[self.number])

    def age(self) -> float | None:
        """Return the age (ms) of the last report on arrival in the buffer, or None before that."""
        assert self.buffer is not None
        # Without the lock: no real reader would take it continuously.
        if self.buffer._updates.enc_pos != self.number:
            return None
        return float(self.buffer._header.update_stamp - self.sent) / 1e6

    def _send(self, data: bytes) -> None:
        self.frames += 1
        # If the robot does not read, the frame is lost and counted as lost.
        with contextlib.suppress(BlockingIOError):
            self.line.send(data)


class Crowd:
    """All motors of the process."""

    def __init__(self, port: int, count: int, store: BufferStore) -> None:
        self._store = store
        self._poll = select.epoll()
        self._motors: dict[int, Motor] = {}
        for number in range(count):
            motor = Motor(port, number)
            self._motors[motor.line.fileno()] = motor
            self._poll.register(motor.line, select.EPOLLIN)
        self._ring = list(self._motors.values())
        self._next = 0
        self._due = time.monotonic()
        self._ages: list[float] | None = None

    def play(self, seconds: float) -> None:
        """Emulate the devices for some time (s)."""
        end = time.monotonic() + seconds
        polled = 0.0
        while (now := time.monotonic()) < end:
            while self._due <= now:
                self._turn(self._ring[self._next])
                self._next = (self._next + 1) % len(self._ring)
                self._due += PERIOD / len(self._ring)
            if now - polled >= 0.001:
                polled = now
                for fd, _ in self._poll.poll(0):
                    if not self._motors[fd].answer():
                        self._poll.unregister(fd)
            time.sleep(max(0.0, min(self._due, end) - time.monotonic()))

    def measure(self, seconds: float) -> dict[str, object]:
        """Count sent and received frames for some time (s); all devices must be connected."""
        for motor in self._ring:
            motor.buffer = self._store.get_or_open(motor.uid, create=False)
            motor.sent = 0
        sent, arrived = self._counted()
        self._ages = []
        self.play(seconds)
        ages, self._ages = self._ages, None
        sent, arrived = (
            after - before for after, before in zip(self._counted(), (sent, arrived), strict=True)
        )
        return {"sent": sent, "arrived": arrived, "ages": ages}

    def _counted(self) -> tuple[int, int]:
        """Return the numbers of frames sent and received so far, with none in transit."""
        time.sleep(0.2)
        return (
            sum(motor.frames for motor in self._ring),
            sum(
                motor.buffer.counters.frames_received
                for motor in self._ring
                if motor.buffer is not None
            ),
        )

    def _turn(self, motor: Motor) -> None:
        if not motor.params:
            return
        if self._ages is not None and motor.sent:
            age = motor.age()
            if age is None and time.monotonic_ns() - motor.sent < PATIENCE * 1e9:
                return  # the next report waits for this one, so that its age is known
            self._ages.append(PATIENCE * 1000 if age is None else age)
        motor.report()


def main(port: int, count: int, prefix: str) -> None:
    """Emulate devices until the command ``stop`` or the end of standard input."""
    with BufferStore(CATALOG, prefix, lock_timeout=0.01) as store:
        crowd = Crowd(port, count, store)
        os.set_blocking(0, False)
        rest = b""
        while True:
            crowd.play(0.05)
            try:
                data = os.read(0, 4096)
            except BlockingIOError:
                continue
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                word, *arguments = line.decode().split()
                if word == "stop":
                    return
                sys.stdout.write(json.dumps(crowd.measure(float(arguments[0]))) + "\n")
                sys.stdout.flush()
            if not data:
                return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
