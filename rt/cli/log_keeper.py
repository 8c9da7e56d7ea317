"""Keeps the log of the root in its file, without ever letting the root wait for the disk.

The rules of this module: a line is written as soon as it comes, many that come at once are written together, and a disk that is
full, slow or gone costs lines, which are counted, said once, and said again when it is over.
"""

from collections.abc import Mapping
from typing import Any

import trio

from rt import log
from rt.config import Config
from rt.instance.log_place import log_path
from rt.instance.logfile import LogFile
from rt.protocol.logevent import encode_line
from rt.remote.logqueue import LogQueue

WRITE_INTERVAL = 0.05
"""Least time between two writes (s)."""
RETRY_INTERVAL = 1.0
"""Time after a write that failed until the next (s)."""
CLOSE_TIMEOUT = 1.0
"""How long the last lines may take (s)."""


class LogKeeper:
    """Writes the events of this process into a file.

    Args:
        file: Where they go.
        retry_interval: Time after a write that failed until the next (s).

    Attributes:
        path: The newest file.
        lost: Lines that were lost so far.
    """

    def __init__(self, file: LogFile, retry_interval: float = RETRY_INTERVAL) -> None:
        self.path = file.path
        self.lost = 0
        self._file = file
        self._retry_interval = retry_interval
        self._queue: LogQueue[bytes] = LogQueue()
        self._threads = trio.CapacityLimiter(1)
        self._failing = False
        self._unsaid = 0
        self._log = log.get_logger()

    @classmethod
    def of(cls, config: Config) -> "LogKeeper | None":
        """The keeper that the options ask for, or None."""
        path = log_path(config.log_file, config.instance)
        return None if path is None else cls(LogFile(path, config.log_file_size, config.log_file_count))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled, and then what is left, for which there are `CLOSE_TIMEOUT` seconds."""
        with log.tapped(self._tap):
            task_status.started()
            try:
                while True:
                    await self._write(await self._queue.take())
                    await trio.sleep(self._retry_interval if self._failing else WRITE_INTERVAL)
            finally:
                with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                    await self._write(self._queue.take_nowait())
                    await trio.to_thread.run_sync(self._file.close, abandon_on_cancel=True)

    def _tap(self, event: Mapping[str, Any]) -> None:
        line = encode_line(event)
        self._queue.put(line, len(line))

    async def _write(self, lines: list[bytes]) -> None:
        # A disk may hang for good: then the thread is left behind. What is next in the file waits for it, this task does not.
        written = await trio.to_thread.run_sync(self._file.write, lines, abandon_on_cancel=True, limiter=self._threads)
        lost = len(lines) - written + self._queue.dropped
        self._queue.dropped = 0
        self.lost += lost
        self._unsaid += lost
        error = self._file.error
        if error is not None and not self._failing:
            self._failing = True
            self._log.warning(
                f"the log file takes no lines, the robot goes on without: {error.strerror}", file=str(self.path)
            )
        elif error is None and self._unsaid:
            self._failing = False
            self._log.warning("lines are missing in the log file", file=str(self.path), lost=self._unsaid)
            self._unsaid = 0
