"""Runs the team's plain functions in the main thread, each under a time limit.

An interval timer (SIGALRM) raises ``TimeLimitError`` inside a function that takes too long. It is
raised in the team's code only: while rt's own code runs on its behalf, say inside ``Robot.write``
with a buffer's lock held, the alarm comes back a millisecond later. A function that returns late
has exceeded its limit as well, whatever it caught, and one that does not return loses the lease,
whatever it has granted itself. Periods are kept on absolute deadlines; a late call is counted and
not made up for.

Invariant: what this module needs of the standard library is bound when it is imported, so that team
code that replaces a function there, such as ``time.monotonic``, does not change how it is limited.
"""

import math
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from signal import getsignal, pthread_kill, setitimer
from sys import getswitchinterval, setswitchinterval
from time import monotonic
from types import FrameType
from typing import Any, NamedTuple

from rt import log
from rt.diagnostics.run_delay import RunDelay
from rt.errors import ExecutionError
from rt.executor.fork import is_forked
from rt.executor.frames import involves_team_code, is_team_file
from rt.executor.lease import NOT_RETURNING, LeaseKeeper

GRACE = 0.03
"""How long after its limit (s) a function may take to end before the lease on the devices runs out."""
_RETRY = 0.001
_REPEAT = 0.05
_REPORT_INTERVAL = 1.0
_ON_TIME_AFTER = 3.0
"""How long (s) no call has to be late for calls to be in time again."""
_BUSY_SHARE = 0.8
"""Share of its time for which a call that was interrupted has to have waited for a processor to be no fault of the code: code that
computes without end on a busy computer waits less.
"""
_MAX_TIMEOUTS = 2
_HANDLER = "a signal handler"
"""What else of the team's code runs in the main thread between two calls."""
_ITIMER_REAL = signal.ITIMER_REAL
_SIGALRM = signal.SIGALRM
_set_signal = signal.signal
_exit = os._exit
_SWITCH_INTERVAL = getswitchinterval()


class TimeLimitError(BaseException):
    """A function of the team's code took longer than it may; not an ``Exception``, so that ``except Exception`` lets it pass.

    Args:
        limit: How long it may take (s).

    Attributes:
        waited: How long (s) it waited for a processor, if that is why it took so long; else 0.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(f"it took longer than {limit:g} s")
        self.limit = limit
        self.waited = 0.0


class StopRun(BaseException):
    """The mode has ended; raised inside the team's code."""


class ExecutionRequest(NamedTuple):
    """A request to execute a function.

    Args:
        func: The function.
        args: Its positional arguments.
        timeout: Time limit of the call; of a periodic one the time between two calls too (s).
        periodic: Whether it is called again and again.
    """

    func: Callable[..., Any]
    args: Sequence[Any] = ()
    timeout: float = 1.0
    periodic: bool = False


class Run:
    """A sequence of requests that the main thread works off, and how it went.

    Args:
        requests: Executed in order; the last may be periodic.
        keeper: Given permission to renew the lease for as long as each step may take; None for code
            that moves nothing.
        hold: Whether the lease is kept after the last request, for actions that go on.
        done: Called in the main thread when the run is over, with the error that ended it or None.
    """

    def __init__(
        self,
        requests: Sequence[ExecutionRequest],
        keeper: LeaseKeeper | None,
        *,
        hold: bool = False,
        done: Callable[[BaseException | None], None] = lambda _error: None,
    ) -> None:
        self.requests = requests
        self.keeper = keeper
        self.hold = hold
        self.done = done
        self.stopped = threading.Event()
        self.calls = self.failures = self.overruns = 0


class SyncExecutor:
    """Executes runs, one after the other, in the main thread.

    Args:
        report: Called with an error that a function of the team's code raised, and the function's
            name.
        folder: The folder of the team's code: only what stands there is interrupted.
        run_delay: Makes what tells how long the main thread has waited for a processor (s); called
            in that thread.
    """

    def __init__(
        self,
        report: Callable[[BaseException, str], None],
        folder: str,
        run_delay: Callable[[], Callable[[], float]] = lambda: RunDelay().read,
    ) -> None:
        self._report = report
        self.folder = folder
        self._runs: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._current: Run | None = None
        self._limited = False
        self._limit = 0.0
        self._deadline = math.inf
        self._make_run_delay = run_delay
        self._delay: Callable[[], float] = lambda: 0.0
        self._main = threading.main_thread()
        self._log = log.get_logger()

    def execute_forever(self) -> None:
        """Work off what is scheduled until ``stop``; only in the main thread, which handles signals."""
        _set_signal(_SIGALRM, self._on_alarm)
        self._delay = self._make_run_delay()
        while True:
            run = self._runs.get()
            _exit_if_forked()
            if run is None:
                return
            error: BaseException | None = None
            self._current = run
            try:
                self._execute(run)
            except (ExecutionError, StopRun, TimeLimitError) as reason:
                error = None if isinstance(reason, StopRun) else reason
            except BaseException as reason:
                if not involves_team_code(reason, self.folder):
                    raise
                self._report(reason, _HANDLER)
                error = ExecutionError(f"{_HANDLER} of the team's code failed: the mode ends")
            finally:
                self._current = None
                if run.keeper is not None and not (
                    run.hold and error is None and not run.stopped.is_set()
                ):
                    run.keeper.revoke()
            run.done(error)

    def schedule(self, run: Run) -> None:
        """Let the main thread execute a run after those scheduled before. Any thread."""
        self._runs.put(run)

    def interrupt(self, run: Run) -> None:
        """End a run: before its next call, and inside the one that is going on. Any thread."""
        run.stopped.set()
        if run.keeper is not None:
            run.keeper.revoke()
        if self._current is run and self._main.ident is not None:
            pthread_kill(self._main.ident, _SIGALRM)

    def interrupt_current(self) -> None:
        """End the run that is going on, if there is one. Any thread."""
        run = self._current
        if run is not None:
            self.interrupt(run)

    def stop(self) -> None:
        """Let ``execute_forever`` return after the runs that are scheduled."""
        self._runs.put(None)

    def _execute(self, run: Run) -> None:
        for request in run.requests:
            if run.stopped.is_set():
                return
            if request.periodic:
                self._repeat(run, request)
            elif self._call(run, request) is not None:
                raise ExecutionError(f"{_name(request)} failed: the mode ends", func=_name(request))
        if run.hold and run.keeper is not None:
            _grant(run, math.inf)

    def _repeat(self, run: Run, request: ExecutionRequest) -> None:
        tick = monotonic()
        lateness = _Lateness(request, self._log)
        timeouts = 0
        trusted = True
        waited = self._delay()
        while not run.stopped.is_set():
            error = self._call(run, request, trusted=trusted)
            sound = trusted and error is None
            timeouts = timeouts + 1 if isinstance(error, TimeLimitError) else 0
            if timeouts >= _MAX_TIMEOUTS and run.keeper is not None and trusted:
                cause = (
                    "the computer is busy: "
                    if isinstance(error, TimeLimitError) and error.waited
                    else ""
                )
                run.keeper.cut_off(
                    f"{cause}{_name(request)} took too long again: every device is disabled until a call of it ends in time"
                )
            # One time-out alone changes nothing; a failure does until a call ends well.
            trusted = error is None or (trusted and 0 < timeouts < _MAX_TIMEOUTS)
            tick += request.timeout
            late = monotonic() - tick
            if late > 0:
                missed = math.ceil(late / request.timeout)
                tick += missed * request.timeout
                run.overruns += missed
                if not timeouts:  # that a call was interrupted is logged already
                    lateness.record_late(run.overruns, is_busy=self._delay() - waited >= late)
            else:
                lateness.record_on_time()
            if sound or (trusted and error is not None):
                _grant(run, tick + GRACE)
            waited = self._delay()
            run.stopped.wait(max(0.0, tick - monotonic()))

    def _call(
        self, run: Run, request: ExecutionRequest, *, trusted: bool = True
    ) -> BaseException | None:
        """Call once. After a failure the next call is on trial: what it writes reaches no device until it has ended well."""
        start, waited = monotonic(), self._delay()
        if trusted:
            _grant(run, start + request.timeout + GRACE, seal=True)
        run.calls += 1
        try:
            self._invoke(request)
            _require_in_time(start, request.timeout)
        except StopRun:
            raise
        except TimeLimitError as error:
            waited = self._delay() - waited
            error.waited = waited if waited >= _BUSY_SHARE * (monotonic() - start) else 0.0
            self._report(error, _name(request))
            return error
        except BaseException as error:  # noqa: BLE001 - whatever team code raises, SystemExit too, ends its call alone
            run.failures += 1
            if run.keeper is not None:
                run.keeper.fail()
            self._report(error, _name(request))
            return error
        finally:
            if run.keeper is not None:
                run.keeper.unseal()
        return None

    def _invoke(self, request: ExecutionRequest) -> None:
        if getsignal(_SIGALRM) != self._on_alarm:
            _set_signal(_SIGALRM, self._on_alarm)
        if getswitchinterval() != _SWITCH_INTERVAL:
            setswitchinterval(_SWITCH_INTERVAL)
        self._limit = request.timeout
        self._deadline = monotonic() + request.timeout + GRACE
        self._limited = True
        setitimer(_ITIMER_REAL, request.timeout, _REPEAT)
        try:
            if self._current is not None and self._current.stopped.is_set():
                raise StopRun
            request.func(*request.args)
        finally:
            self._limited = False
            _exit_if_forked()
            setitimer(_ITIMER_REAL, 0)

    def _on_alarm(self, _signum: int, frame: FrameType | None) -> None:
        if not self._limited:
            return
        if self._is_in_rt(frame):
            setitimer(_ITIMER_REAL, _RETRY, _REPEAT)
            return
        if self._current is not None and self._current.stopped.is_set():
            raise StopRun
        self._revoke_overdue()
        raise TimeLimitError(self._limit)

    def _revoke_overdue(self) -> None:
        """Cut off a call that holds the lease for longer than it was granted: team code has granted itself more."""
        keeper = None if self._current is None else self._current.keeper
        if keeper is not None and monotonic() >= self._deadline and keeper.permitted:
            keeper.cut_off(NOT_RETURNING)

    def _is_in_rt(self, frame: FrameType | None) -> bool:
        """Whether rt's code was called by the team's and is at work: then it must not be torn."""
        while frame is not None:
            if f"{frame.f_globals.get('__name__', '')}.".startswith("rt."):
                return True
            if is_team_file(frame.f_code.co_filename, self.folder):
                return False
            frame = frame.f_back
        return False


class _Lateness:
    """Logs that the calls of a periodic function come late, and that they are in time again.

    Args:
        request: The function.
        logger: Where it is logged.
    """

    def __init__(self, request: ExecutionRequest, logger: Any) -> None:
        self._request = request
        self._log = logger
        self._reported = -math.inf
        self._last = math.inf

    def record_late(self, skipped: int, *, is_busy: bool) -> None:
        """Note that a call has come late.

        Args:
            skipped: How many calls were skipped so far.
            is_busy: Whether it would have been in time if it had not waited for a processor.
        """
        self._last = monotonic()
        if self._last - self._reported <= _REPORT_INTERVAL:
            return
        self._reported = self._last
        name = _name(self._request)
        reason = (
            f"the computer is busy: calls of {name} come late; end other programs on it"
            if is_busy
            else f"calls of {name} come late: the code takes longer than the period; do less in each call, or give it a longer"
            " period in exec_timeout"
        )
        self._log.warning(reason, func=name, skipped=skipped, period=self._request.timeout)

    def record_on_time(self) -> None:
        """Note that a call was in time."""
        if monotonic() - self._last >= _ON_TIME_AFTER:
            self._last = math.inf
            self._log.info(
                f"calls of {_name(self._request)} are in time again", func=_name(self._request)
            )


def _grant(run: Run, until: float, *, seal: bool = False) -> None:
    """Permit the lease, unless the run has been stopped; one that is stopped meanwhile has lost it when this returns."""
    if run.keeper is not None and not run.stopped.is_set():
        run.keeper.grant(until, seal=seal)
        if run.stopped.is_set():
            run.keeper.revoke()


def _require_in_time(start: float, limit: float) -> None:
    """Raise `TimeLimitError` if a call that has returned took longer than its limit: it caught the error that it was sent."""
    if monotonic() - start > limit:
        raise TimeLimitError(limit)


def _exit_if_forked() -> None:
    """End a process that the team's code forked and let return: the rest is the robot's own to do."""
    if is_forked():
        _exit(0)


def _name(request: ExecutionRequest) -> str:
    return getattr(request.func, "__name__", repr(request.func))
