"""A separate process that emulates a board on a pseudo-terminal that never stops by itself.

``motion_board.py PATH UID`` emulates a polar-bear at PATH until killed. Each line of output is a
time stamp (ns of CLOCK_MONOTONIC) and the speed from then on.
"""

import contextlib
import os
import select
import sys
import time
import tty
from pathlib import Path

from rt import catalog
from rt.emulator.firmware import EmulatedDevice
from rt.protocol import frames
from rt.protocol.message import DevDisable, DevWrite, Message

PARAMETER = "duty_cycle"
PRIORITY = 20


def main(path: Path, uid: int) -> None:
    board = EmulatedDevice(
        catalog.load()["polar-bear"], uid, on_message=lambda message: report(board, message)
    )
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    path.symlink_to(os.ttyname(slave))
    reader = frames.FrameReader()
    poll = select.poll()
    poll.register(master, select.POLLIN)
    while True:
        now = time.monotonic()
        answers = board.due(now)
        if poll.poll(max(0.0, min(board.next_due - now, 1.0)) * 1000):
            with contextlib.suppress(OSError):
                for item in reader.feed(os.read(master, 4096)):
                    answers += board.handle(item, now)
        with contextlib.suppress(BlockingIOError):
            for answer in answers:
                os.write(master, frames.encode(answer))


def report(board: EmulatedDevice, message: Message) -> None:
    """Print what moves or stops the board."""
    speed: float | None = None
    if isinstance(message, DevDisable):
        speed = 0.0
    elif isinstance(message, DevWrite):
        speed = board.peripheral.unpack(message.params, message.data).get(PARAMETER)
    if speed is not None:
        print(time.monotonic_ns(), speed, flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
