"""The task that writes the events of the root to the log file.

Invariant: the root never waits for the disk. A disk that is full, slow or missing costs lines; they
are counted, and the failure and its end are logged once each. Output of team code, events of its
process and events of other programs have shares of the files (`SHARES`). Lines beyond a share are
left out and counted, so that a flood does not displace what the robot itself logged in the last
hour.
"""

import time
from collections.abc import Mapping
from typing import Any

import trio

from rt import log
from rt.config import Config
from rt.log import attribution
from rt.log.budget import NO_LIMIT, Budget, Rate
from rt.logs.file import LogFile
from rt.logs.place import log_path
from rt.logs.queue import LogQueue
from rt.protocol.logevent import encode_line

WRITE_INTERVAL = 0.05
"""Minimum time between two writes (s)."""
RETRY_INTERVAL = 1.0
"""Time between a failed write and the next (s)."""
CLOSE_TIMEOUT = 1.0
"""Maximum time for the last write (s)."""
SHARES = {"team prints": (0.2, 0.3), "team process": (0.05, 0.07), "other programs": (0.03, 0.04)}
"""Share of all log files that each source may fill at once, and in each hour after that.

Together they are at most 69 % in any hour; the rest is for the robot itself.
"""
SHARE_INTERVAL = 10.0
"""Minimum time between two reports of lines that a source left out (s)."""


class LogFileWriter:
    """Writes the events of this process to a file.

    Args:
        file: The file.
        retry_interval: Time between a failed write and the next (s).

    Attributes:
        path: The newest file.
        lost: Number of lost lines.
    """

    def __init__(self, file: LogFile, retry_interval: float = RETRY_INTERVAL) -> None:
        self.path = file.path
        self.lost = 0
        self._file = file
        self._retry_interval = retry_interval
        self._queue: LogQueue[bytes] = LogQueue()
        self._threads = trio.CapacityLimiter(1)
        self._failing = False
        self._unreported = 0
        total = file.total_max_bytes
        # Threads use the budgets without a lock; a count that is slightly wrong does no harm.
        self._shares = {
            name: Budget(
                NO_LIMIT,
                Rate(burst * total, hourly * total / 3600),
                time.monotonic(),
                report_interval=SHARE_INTERVAL,
            )
            for name, (burst, hourly) in SHARES.items()
        }
        self._log = log.get_logger()

    @classmethod
    def of(cls, config: Config) -> "LogFileWriter | None":
        """Return the writer for the log file of the options, or None without a log file."""
        path = log_path(config.log_file, config.instance)
        return (
            None
            if path is None
            else cls(LogFile(path, config.log_file_size, config.log_file_count))
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled, then write the rest within `CLOSE_TIMEOUT`."""
        with log.listening(self._listen_to_events):
            task_status.started()
            try:
                while True:
                    await self._write(await self._queue.take())
                    self._report_left_out()
                    await trio.sleep(self._retry_interval if self._failing else WRITE_INTERVAL)
            finally:
                with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                    await self._write(self._queue.take_nowait())
                    await trio.to_thread.run_sync(self._file.close, abandon_on_cancel=True)

    def _listen_to_events(self, event: Mapping[str, Any]) -> None:
        line = encode_line(event)
        share = self._shares.get(_source(event))
        if share is None or share.take(len(line) + 1, time.monotonic()):
            self._queue.put(line, len(line))

    def _report_left_out(self) -> None:
        for name, share in self._shares.items():
            if count := share.report(time.monotonic()):
                self._log.warning("log file share exceeded", left_out=count, writer=name)

    async def _write(self, lines: list[bytes]) -> None:
        # If the disk hangs, a cancel abandons the thread.
        written = await trio.to_thread.run_sync(
            self._file.write, lines, abandon_on_cancel=True, limiter=self._threads
        )
        lost = len(lines) - written + self._queue.dropped
        self._queue.dropped = 0
        self.lost += lost
        self._unreported += lost
        error = self._file.error
        if error is not None and not self._failing:
            self._failing = True
            self._log.warning("log file not writable", file=str(self.path), reason=error.strerror)
        elif error is None and self._unreported:
            self._failing = False
            self._log.warning("log file lines lost", file=str(self.path), lost=self._unreported)
            self._unreported = 0


def _source(event: Mapping[str, Any]) -> str:
    """Return the share that an event belongs to, or "" for an event of the robot itself."""
    if attribution.is_team_output(event):
        return "team prints"
    if attribution.is_from_team_process(event):
        return "team process"
    return "other programs" if "via" in event else ""
