"""The run delay of a thread: how long it waited for a processor.

It distinguishes a busy machine from a process that was stopped or waits for something else.

Source: `/proc/self/task/TID/schedstat`, whose second number is the time for which the thread was
runnable and did not run (ns; Documentation/scheduler/sched-stats.rst of Linux). A kernel without
this statistic always reports 0.
"""

import contextlib
import os
from os import pread


class RunDelay:
    """The run delay of a thread of this process.

    Args:
        thread: The native thread ID (`threading.get_native_id`), which is the pid for the main
            thread. None for the current thread.
    """

    def __init__(self, thread: int | None = None) -> None:
        self._fd = -1
        thread_directory = "thread-self" if thread is None else f"self/task/{thread}"
        with contextlib.suppress(OSError):
            self._fd = os.open(f"/proc/{thread_directory}/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> float:
        """Return the total run delay (s); 0 if the system does not provide it."""
        try:
            return int(pread(self._fd, 128, 0).split()[1]) / 1e9
        except (OSError, IndexError, ValueError) as error:
            # A traceback with a further frame shows that a signal handler raised the error, for
            # example one of the team.
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
