"""A process that kills each brake of a robot as soon as it exists, so that none becomes ready.

Usage: no_brake.py DIRECTORY. It watches the robot of an instance directory until it is killed, and
prints the id of each process that it killed.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

PRIORITY = 5
PAUSE = 0.002
YOUNG = 0.1
"""Time (s) for which a process is rechecked: before exec it resembles its parent."""
ARGUMENTS = b"\0_child\0brake\0"


def main(directory: str) -> None:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    directory_value = f"={directory}".encode()
    seen: dict[str, float] = {}
    while True:
        now = time.monotonic()
        names = os.listdir("/proc")  # noqa: PTH208 - only names are needed
        found = {name for name in names if name.isdecimal()}
        seen = {pid: seen.get(pid, now) for pid in found}
        for pid in [pid for pid, since in seen.items() if now - since < YOUNG]:
            with contextlib.suppress(OSError):
                if (
                    ARGUMENTS in Path(f"/proc/{pid}/cmdline").read_bytes()
                    and directory_value in Path(f"/proc/{pid}/environ").read_bytes()
                ):
                    os.kill(int(pid), signal.SIGKILL)
                    seen[pid] = now - YOUNG
                    print(pid, flush=True)  # noqa: T201 - the output of this program
        time.sleep(PAUSE)


if __name__ == "__main__":
    main(sys.argv[1])
