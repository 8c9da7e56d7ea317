"""Keeps the log of the root in its file, without ever letting the root wait for the disk.

The rules of this module: a line is written as soon as it comes, many that come at once are written
together, and a disk that is full, slow or gone costs lines, which are counted, said once, and said
again when it is over. What team code prints, what its process logs and what other programs hand in
have shares of the file (`SHARES`): more is left out and counted, so that a flood does not push out
what the robot itself has logged in the last hour.
"""

import time
from collections.abc import Mapping
from typing import Any

import trio

from rt import log
from rt.config import Config
from rt.log import attribution
from rt.log.throttle import Bucket
from rt.logs.file import LogFile
from rt.logs.place import log_path
from rt.logs.queue import LogQueue
from rt.protocol.logevent import encode_line

WRITE_INTERVAL = 0.05
"""Least time between two writes (s)."""
RETRY_INTERVAL = 1.0
"""Time after a write that failed until the next (s)."""
CLOSE_TIMEOUT = 1.0
"""How long the last lines may take (s)."""
SHARES = {"team prints": (0.2, 0.3), "team process": (0.05, 0.07), "other programs": (0.03, 0.04)}
"""Which part of all log files each source may fill at once, and in each hour after that: 69 % in any hour, the rest is the robot's."""
SHARE_INTERVAL = 10.0
"""Least time between two events about what was left out (s)."""


class LogFileWriter:
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
        room = file.max_bytes_in_all
        self._shares = {
            name: _Share(burst * room, hourly * room) for name, (burst, hourly) in SHARES.items()
        }
        self._share_said = -SHARE_INTERVAL
        self._log = log.get_logger()

    @classmethod
    def of(cls, config: Config) -> "LogFileWriter | None":
        """The keeper that the options ask for, or None."""
        path = log_path(config.log_file, config.instance)
        return (
            None
            if path is None
            else cls(LogFile(path, config.log_file_size, config.log_file_count))
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled, and then what is left, for which there are `CLOSE_TIMEOUT` seconds."""
        with log.listening(self._listen_to_events):
            task_status.started()
            try:
                while True:
                    await self._write(await self._queue.take())
                    self._say_left_out()
                    await trio.sleep(self._retry_interval if self._failing else WRITE_INTERVAL)
            finally:
                with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                    await self._write(self._queue.take_nowait())
                    await trio.to_thread.run_sync(self._file.close, abandon_on_cancel=True)

    def _listen_to_events(self, event: Mapping[str, Any]) -> None:
        line = encode_line(event)
        share = self._shares.get(_source(event))
        if share is None or share.take(len(line) + 1):
            self._queue.put(line, len(line))

    def _say_left_out(self) -> None:
        """Say what was left out because a source has used its share, if it is time."""
        left_out = {name: share.left_out for name, share in self._shares.items() if share.left_out}
        if not left_out or time.monotonic() - self._share_said < SHARE_INTERVAL:
            return
        self._share_said = time.monotonic()
        for name, count in left_out.items():
            self._shares[name].left_out = 0
            self._log.warning(
                "lines are left out of the log file: their source has used its share of it",
                lines=count,
                writer=name,
            )

    async def _write(self, lines: list[bytes]) -> None:
        # A disk may hang for good: then the thread is left behind. What is next in the file waits
        # for it, this task does not.
        written = await trio.to_thread.run_sync(
            self._file.write, lines, abandon_on_cancel=True, limiter=self._threads
        )
        lost = len(lines) - written + self._queue.dropped
        self._queue.dropped = 0
        self.lost += lost
        self._unsaid += lost
        error = self._file.error
        if error is not None and not self._failing:
            self._failing = True
            self._log.warning(
                f"the log file takes no lines, the robot goes on without: {error.strerror}",
                file=str(self.path),
            )
        elif error is None and self._unsaid:
            self._failing = False
            self._log.warning(
                "lines are missing in the log file", file=str(self.path), lost=self._unsaid
            )
            self._unsaid = 0


class _Share:
    """How much of the log files one source may fill; any thread may ask, since a wrong count of some lines does no harm.

    Args:
        burst: How much it may fill at once (bytes).
        hourly: How much it may fill in each hour after that (bytes).
    """

    def __init__(self, burst: float, hourly: float) -> None:
        self.left_out = 0
        self._bucket = Bucket(burst, 3600 / hourly, time.monotonic())

    def take(self, size: int) -> bool:
        """Whether a line of so many bytes may be written."""
        if self._bucket.refill(time.monotonic()) < size:
            self.left_out += 1
            return False
        self._bucket.tokens -= size
        return True


def _source(event: Mapping[str, Any]) -> str:
    """Whose share an event takes; the robot's own have none."""
    if attribution.is_team_output(event):
        return "team prints"
    if attribution.is_from_team_process(event):
        return "team process"
    return "other programs" if "via" in event else ""
