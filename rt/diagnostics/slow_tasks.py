"""The slow-task monitor: finds the task whose step blocks the event loop, and the line of code.

A step is what a task does between two checkpoints. While it runs, no other task of the loop runs,
so the symptoms of a long step appear elsewhere: late writes, silent children. A thread samples the
stack of the event loop's thread while the step runs. A timer signal would reach only the main
thread; in the executor, the event loop runs in another thread, and team code uses the timer.

Invariant: the monitor only observes, and it exists only with the option `debug`.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import trio

from rt import log
from rt.log.throttle import Throttle

LIMIT = 0.05
"""The longest step that is not slow (s)."""

HANG_LIMIT = 2.0
"""A step that takes longer than this is logged while it runs, because it may never end (s)."""

LOG_INTERVAL = 1.0
"""The shortest time between two log events about slow steps of the same task (s)."""

_MAX_FRAMES = 6
_TRIO = ("trio/_core/", "outcome/")  # in an executable, the paths start with these


class Step:
    """A running step."""

    __slots__ = ("cpu", "is_logged", "started", "task", "where")

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.task = task
        self.started = time.monotonic()
        self.cpu = time.thread_time()
        self.where: str | None = None
        self.is_logged = False


class SlowTasks(trio.abc.Instrument):
    """Logs and counts the steps that are longer than a limit.

    Args:
        limit: The longest step that is not slow (s).
        hang_limit: A step longer than this is logged while it runs (s).
        log_interval: The shortest time between two log events about the same task (s).

    Attributes:
        count: Number of slow steps.
        longest: The longest of them (s).
    """

    def __init__(
        self,
        limit: float = LIMIT,
        *,
        hang_limit: float = HANG_LIMIT,
        log_interval: float = LOG_INTERVAL,
    ) -> None:
        self.count = 0
        self.longest = 0.0
        self._limit = limit
        self._hang_limit = hang_limit
        self._step: Step | None = None
        self._thread_id = threading.get_ident()
        self._stopped = threading.Event()
        self._throttle = Throttle("task", burst=1, interval=log_interval)
        self._log = log.get_logger()

    @contextlib.contextmanager
    def watching(self) -> Iterator["SlowTasks"]:
        """Monitor the event loop of this thread."""
        self._thread_id = threading.get_ident()
        sampler = threading.Thread(target=self._sample, name="slow steps", daemon=True)
        sampler.start()
        trio.lowlevel.add_instrument(self)
        try:
            yield self
        finally:
            # trio has removed the instrument if it raised an error.
            with contextlib.suppress(KeyError):
                trio.lowlevel.remove_instrument(self)
            self._stopped.set()
            sampler.join()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Start a step; called by trio."""
        self._step = Step(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """End a step; called by trio."""
        step, self._step = self._step, None
        if step is None or step.task is not task:  # the step in which the monitor was started
            return
        duration = time.monotonic() - step.started
        if duration > self._limit:
            self.count += 1
            self.longest = max(self.longest, duration)
            self._throttle.log(
                self._log.warning,
                "task blocked the event loop",
                task=step.task.name,
                seconds=round(duration, 3),
                # Much less than `seconds` if the step waited for something, or the machine was
                # busy.
                cpu=round(time.thread_time() - step.cpu, 3),
                where=step.where,
            )

    def _sample(self) -> None:
        """Sample the stack of slow steps until stopped; runs in its own thread."""
        while not self._stopped.wait(self._limit / 4):
            step = self._step
            if step is None:
                continue
            duration = time.monotonic() - step.started
            if duration > self._limit / 2 and step.where is None:
                frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001 - documented
                where = format_stack(frame)
                if self._step is step:  # otherwise the frames belong to another step
                    step.where = where
            if duration > self._hang_limit and not step.is_logged:
                step.is_logged = True
                self._log.warning(
                    "task is blocking the event loop",
                    task=step.task.name,
                    seconds=round(duration, 3),
                    where=step.where,
                )


_MONITOR: trio.lowlevel.RunVar[SlowTasks | None] = trio.lowlevel.RunVar("slow-task monitor", None)


@contextlib.contextmanager
def slow_task_monitor() -> Iterator[SlowTasks]:
    """Monitor the event loop of this thread, or share the monitor that already does.

    With one monitor per event loop, each slow step is logged once.
    """
    monitor = _MONITOR.get()
    if monitor is not None:
        yield monitor
        return
    with SlowTasks().watching() as monitor:
        _MONITOR.set(monitor)
        try:
            yield monitor
        finally:
            _MONITOR.set(None)


def format_stack(frame: FrameType | None) -> str | None:
    """Return the innermost lines of a stack within a task: ``a.py:12 read < b.py:3 main``."""
    lines: list[str] = []
    while frame is not None and len(lines) < _MAX_FRAMES:
        code = frame.f_code
        if any(part in code.co_filename for part in _TRIO):
            break
        lines.append(f"{code.co_filename}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return " < ".join(lines) or None
