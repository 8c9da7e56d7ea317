"""How long a thread has waited for a processor: tells a busy machine from a process that was stopped or waits for something else.

Source: `/proc/thread-self/schedstat`, whose second number is the time (ns) for which the thread could run and did not
(Documentation/scheduler/sched-stats.rst of Linux). A kernel without it always says 0.
"""

import contextlib
import os


class RunDelay:
    """The time for which the thread that creates this has waited for a processor."""

    def __init__(self) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> float:
        """The time so far (s)."""
        try:
            return int(os.pread(self._fd, 128, 0).split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()
