"""Kills each brake of a robot as soon as it exists, so that none gets ready; a process of its own, which runs before others.

no_brake.py DIRECTORY    do so for the robot of an instance directory until killed; each line is a
process that was killed
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
"""How long (s) a process is looked at again: one that has not executed its program yet looks like its parent."""
MARK = b"\0_child\0brake\0"


def main(directory: str) -> None:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    mark = f"={directory}".encode()
    seen: dict[str, float] = {}
    while True:
        now = time.monotonic()
        found = {pid for pid in os.listdir("/proc") if pid.isdecimal()}  # noqa: PTH208 - names are all that is needed
        seen = {pid: seen.get(pid, now) for pid in found}
        for pid in [pid for pid, since in seen.items() if now - since < YOUNG]:
            with contextlib.suppress(OSError):
                if (
                    MARK in Path(f"/proc/{pid}/cmdline").read_bytes()
                    and mark in Path(f"/proc/{pid}/environ").read_bytes()
                ):
                    os.kill(int(pid), signal.SIGKILL)
                    seen[pid] = now - YOUNG
                    print(pid, flush=True)  # noqa: T201 - what it is for
        time.sleep(PAUSE)


if __name__ == "__main__":
    main(sys.argv[1])
