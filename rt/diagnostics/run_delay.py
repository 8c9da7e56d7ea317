"""How long a thread has waited for a processor: tells a busy machine from a process that was stopped or waits for something else.

Source: `/proc/self/task/TID/schedstat`, whose second number is the time (ns) for which the thread
could run and did not (Documentation/scheduler/sched-stats.rst of Linux). A kernel without it always
says 0.
"""

import contextlib
import os
from os import pread


class RunDelay:
    """The time for which a thread has waited for a processor.

    Args:
        thread: The thread of this process (see `threading.get_native_id`); the main thread has the
            number of the process. None for the thread that creates this.
    """

    def __init__(self, thread: int | None = None) -> None:
        self._fd = -1
        thread_directory = "thread-self" if thread is None else f"self/task/{thread}"
        with contextlib.suppress(OSError):
            self._fd = os.open(f"/proc/{thread_directory}/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> float:
        """The time so far (s); 0 if the system does not tell."""
        try:
            return int(pread(self._fd, 128, 0).split()[1]) / 1e9
        except (OSError, IndexError, ValueError) as error:
            # An error with a frame of its own is that of a signal handler, such as the team's,
            # which ran just now.
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                raise
            return 0.0

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()
