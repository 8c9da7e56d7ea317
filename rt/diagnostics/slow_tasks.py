"""Which task kept all others waiting: a step of the event loop that took too long.

A step is what a task does between two checkpoints. While one runs nothing else of the loop does, so
a long one is a mistake whose traces are found elsewhere: late writes, silent children. The line is
found by a thread that looks at the stack of the event loop's thread while the step still runs. A
timer's signal would tell it too, but signals reach only the main thread, and the executor has its
event loop in another one, and its timer for the team's code there.

The rule of this room: it only looks. Without the option `debug` none of it exists.
"""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import trio

from rt import log

LIMIT = 0.05
"""The longest step (s) that is none too long."""

HANGING = 2.0
"""A step that runs for so long (s) is told of while it still runs: it may never end."""

COMPLAINT_INTERVAL = 1.0
"""Least time between two log events about steps of the same task that were too long (s); those between are counted."""

NAMES_MAX = 64
"""Names of tasks that are remembered for that; beyond it all are forgotten, and a task may be told of sooner."""

_LOOK = LIMIT / 4
_DEPTH = 6
_TRIO = ("trio/_core/", "outcome/")  # within an executable there is nothing before it


class Step:
    """A step that runs."""

    __slots__ = ("began", "cpu", "said", "task", "where")

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.task = task
        self.began = time.monotonic()
        self.cpu = time.thread_time()
        self.where: str | None = None
        self.said = False


class SlowTasks(trio.abc.Instrument):
    """Names the task that took a step longer than `LIMIT`, and counts.

    Args:
        limit: The longest step (s) that is none too long.

    Attributes:
        count: Steps that were too long.
        longest: The longest of them (s).
    """

    def __init__(self, limit: float = LIMIT) -> None:
        self.count = 0
        self.longest = 0.0
        self._limit = limit
        self._step: Step | None = None
        self._thread_id = threading.get_ident()
        self._over = threading.Event()
        self._told: dict[
            str, tuple[float, int]
        ] = {}  # when a task was last told of, and the steps since
        self._log = log.get_logger()

    @contextlib.contextmanager
    def watching(self) -> Iterator["SlowTasks"]:
        """Watch the event loop of this thread."""
        self._thread_id = threading.get_ident()
        watchdog = threading.Thread(target=self._watch, name="slow steps", daemon=True)
        watchdog.start()
        trio.lowlevel.add_instrument(self)
        try:
            yield self
        finally:
            # trio throws an instrument out that raised.
            with contextlib.suppress(KeyError):
                trio.lowlevel.remove_instrument(self)
            self._over.set()
            watchdog.join()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Called by trio."""
        self._step = Step(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Called by trio."""
        step, self._step = self._step, None
        if step is None or step.task is not task:  # the step in which the watching began
            return
        now = time.monotonic()
        took = now - step.began
        if took > self._limit:
            self.count += 1
            self.longest = max(self.longest, took)
            self._complain(step, took, now)

    def _complain(self, step: Step, took: float, now: float) -> None:
        name = step.task.name
        said_at, unsaid = self._told.get(name, (-math.inf, 0))
        if now - said_at < COMPLAINT_INTERVAL:
            self._told[name] = said_at, unsaid + 1
            return
        if len(self._told) >= NAMES_MAX:
            self._told.clear()
        self._told[name] = now, 0
        self._log.warning(
            "a task kept all others waiting",
            task=name,
            seconds=round(took, 3),
            # Much less than the seconds: it waited for something, or the machine had other things
            # to do.
            cpu=round(time.thread_time() - step.cpu, 3),
            where=step.where,
            **({"unsaid": unsaid} if unsaid else {}),
        )

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            step = self._step
            if step is None:
                continue
            ran = time.monotonic() - step.began
            if ran > self._limit / 2 and step.where is None:
                frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001 - the way that the standard library documents
                where = format_stack(frame)
                if self._step is step:  # else the frames are those of another step
                    step.where = where
            if ran > HANGING and not step.said:
                step.said = True
                self._log.warning(
                    "a task keeps all others waiting",
                    task=step.task.name,
                    seconds=round(ran, 3),
                    where=step.where,
                )


_WATCHER: trio.lowlevel.RunVar[SlowTasks | None] = trio.lowlevel.RunVar(
    "who watches this loop", None
)


@contextlib.contextmanager
def slow_task_monitor() -> Iterator[SlowTasks]:
    """Watch the event loop of this thread, or let whoever does already go on, so that a step is told of once; until he ends."""
    watcher = _WATCHER.get()
    if watcher is not None:
        yield watcher
        return
    with SlowTasks().watching() as steps:
        _WATCHER.set(steps)
        try:
            yield steps
        finally:
            _WATCHER.set(None)


def format_stack(frame: FrameType | None) -> str | None:
    """The innermost lines of a stack, inside first, up to where trio called the task: ``a.py:12 read < b.py:3 main``."""
    found: list[str] = []
    while frame is not None and len(found) < _DEPTH:
        code = frame.f_code
        if any(part in code.co_filename for part in _TRIO):
            break
        found.append(f"{code.co_filename}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return " < ".join(found) or None
