"""Runs functions of team code in the main thread, each under a time limit.

An interval timer (SIGALRM) raises `TimeLimitError` inside a function that takes too long. It raises
only in team code. While rt's own code runs on its behalf, for example inside ``Robot.write`` with a
buffer's lock held, the alarm is repeated a millisecond later. A function that returns late has
exceeded its limit as well, whatever it caught. One that does not return loses the lease, whatever
it has granted itself. Periods follow absolute deadlines; late calls are counted, not caught up.

Invariant: this module binds the functions of the standard library that it needs when it is
imported, so that team code that replaces one, such as ``time.monotonic``, does not change its own
limits.
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
from rt.executor.lease import NOT_RETURNING, LeaseKeeper
from rt.executor.stack_frames import involves_team_code, is_team_file

GRACE = 0.03
"""How long after its limit a function may take to end before the lease expires, in s."""
_RETRY = 0.001
_REPEAT = 0.05
_REPORT_INTERVAL = 1.0
_ON_TIME_AFTER = 3.0
"""After this time in s without a late call, calls are on time again."""
_BUSY_SHARE = 0.8
"""Minimum share of its time that an interrupted call waited for a processor to be excused.

Code that computes without end on a busy computer waits less.
"""
_MAX_TIMEOUTS = 2
_HANDLER = "a signal handler"
"""The other team code that runs in the main thread, between two calls."""
_ITIMER_REAL = signal.ITIMER_REAL
_SIGALRM = signal.SIGALRM
_set_signal = signal.signal
_exit = os._exit
_SWITCH_INTERVAL = getswitchinterval()


class TimeLimitError(BaseException):
    """A function of team code exceeded its time limit.

    It is not an ``Exception``, so ``except Exception`` in team code does not catch it.

    Args:
        limit: The time limit in s.

    Attributes:
        waited: How long the function waited for a processor in s, if that is why it was late; else
            0.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(f"took longer than {limit:g} s")
        self.limit = limit
        self.waited = 0.0


class StopRun(BaseException):
    """The mode has ended; raised inside team code."""


class ExecutionRequest(NamedTuple):
    """A request to execute a function.

    Args:
        func: The function.
        args: Its positional arguments.
        timeout: Time limit of a call in s; of a periodic function also its period.
        periodic: Whether to call it repeatedly.
    """

    func: Callable[..., Any]
    args: Sequence[Any] = ()
    timeout: float = 1.0
    periodic: bool = False


class Run:
    """A sequence of requests for the main thread.

    Args:
        requests: Executed in order; the last may be periodic.
        keeper: Permits the lease for the duration of each step; None for code that moves nothing.
        hold: Whether to keep the lease after the last request, for actions that are still running.
        done: Called in the main thread when the run is over, with the error that ended it or None.

    Attributes:
        stopped: Set to end the run.
        overruns: How many calls of a periodic function were skipped.
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
        self.overruns = 0


class SyncExecutor:
    """Executes runs in the main thread, one after the other.

    Args:
        report: Called with an error that a function of team code raised, and the function's name.
        folder: The folder of the team code; only code in it is interrupted.
        run_delay: Returns how long the main thread has waited for a processor, in s.
        clock: Returns the time in s, of the monotonic clock.
    """

    def __init__(
        self,
        report: Callable[[BaseException, str], None],
        folder: str,
        run_delay: Callable[[], float] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._report = report
        self.folder = folder
        self._runs: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._current: Run | None = None
        self._limited = False
        self._limit = 0.0
        self._deadline = math.inf
        self._delay = run_delay or RunDelay(os.getpid()).read
        self._clock = clock
        self._main = threading.main_thread()
        self._log = log.get_logger()

    def execute_forever(self) -> None:
        """Execute the scheduled runs until `stop`. Main thread only, which handles signals."""
        _set_signal(_SIGALRM, self._on_alarm)
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
                error = ExecutionError(f"{_HANDLER} of team code failed")
            finally:
                self._current = None
                if run.keeper is not None and not (
                    run.hold and error is None and not run.stopped.is_set()
                ):
                    run.keeper.revoke()
            run.done(error)

    def schedule(self, run: Run) -> None:
        """Execute a run after those scheduled before it. Thread-safe."""
        self._runs.put(run)

    def interrupt(self, run: Run) -> None:
        """End a run, inside its current call or before its next one. Thread-safe."""
        run.stopped.set()
        if run.keeper is not None:
            run.keeper.revoke()
        if self._current is run and self._main.ident is not None:
            pthread_kill(self._main.ident, _SIGALRM)

    def interrupt_current(self) -> None:
        """End the current run, if there is one. Thread-safe."""
        run = self._current
        if run is not None:
            self.interrupt(run)

    def stop(self) -> None:
        """Make `execute_forever` return after the scheduled runs. Thread-safe."""
        self._runs.put(None)

    def _execute(self, run: Run) -> None:
        for request in run.requests:
            if run.stopped.is_set():
                return
            if request.periodic:
                self._repeat(run, request)
            elif self._call(run, request) is not None:
                raise ExecutionError(f"{_name(request)} failed", func=_name(request))
        if run.hold and run.keeper is not None:
            _grant(run, math.inf)

    def _repeat(self, run: Run, request: ExecutionRequest) -> None:
        tick = self._clock()
        lateness = _Lateness(request, self._log, self._clock)
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
                    f"{cause}{_name(request)} took too long again: every device is disabled until"
                    " a call returns in time"
                )
            # A single timeout changes nothing; after a failure a call must succeed first.
            trusted = error is None or (trusted and 0 < timeouts < _MAX_TIMEOUTS)
            tick += request.timeout
            late = self._clock() - tick
            if late > 0:
                missed = math.ceil(late / request.timeout)
                tick += missed * request.timeout
                run.overruns += missed
                if not timeouts:  # an interrupted call is already logged
                    lateness.record_late(run.overruns, is_busy=self._delay() - waited >= late)
            else:
                lateness.record_on_time()
            if sound or (trusted and error is not None):
                _grant(run, tick + GRACE)
            waited = self._delay()
            run.stopped.wait(max(0.0, tick - self._clock()))

    def _call(
        self, run: Run, request: ExecutionRequest, *, trusted: bool = True
    ) -> BaseException | None:
        """Call a function once; return the error that it raised.

        After a failure the next call is on probation: its writes reach no device until it succeeds.
        """
        start, waited = self._clock(), self._delay()
        if trusted:
            _grant(run, start + request.timeout + GRACE, seal=True)
        try:
            self._invoke(request, start)
        except StopRun:
            raise
        except TimeLimitError as error:
            waited = self._delay() - waited
            error.waited = waited if waited >= _BUSY_SHARE * (self._clock() - start) else 0.0
            self._report(error, _name(request))
            return error
        except BaseException as error:  # noqa: BLE001 - an error ends only its call, SystemExit too
            if run.keeper is not None:
                run.keeper.fail()
            self._report(error, _name(request))
            return error
        finally:
            if run.keeper is not None:
                run.keeper.unseal()
        return None

    def _invoke(self, request: ExecutionRequest, start: float) -> None:
        if getsignal(_SIGALRM) != self._on_alarm:
            _set_signal(_SIGALRM, self._on_alarm)
        if getswitchinterval() != _SWITCH_INTERVAL:
            setswitchinterval(_SWITCH_INTERVAL)
        self._limit = request.timeout
        self._deadline = self._clock() + request.timeout + GRACE
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
        if self._clock() - start > request.timeout:  # team code caught the error
            raise TimeLimitError(request.timeout)

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
        """Cut off a call whose lease outlives its grant: team code extended its permission."""
        keeper = None if self._current is None else self._current.keeper
        if keeper is not None and self._clock() >= self._deadline and keeper.permitted:
            keeper.cut_off(NOT_RETURNING)

    def _is_in_rt(self, frame: FrameType | None) -> bool:
        """Return whether team code has called rt's code, which must not be interrupted."""
        while frame is not None:
            if f"{frame.f_globals.get('__name__', '')}.".startswith("rt."):
                return True
            if is_team_file(frame.f_code.co_filename, self.folder):
                return False
            frame = frame.f_back
        return False


class _Lateness:
    """Logs when calls of a periodic function become late, and when they are on time again.

    Args:
        request: The function.
        logger: The logger.
        clock: Returns the time in s.
    """

    def __init__(self, request: ExecutionRequest, logger: Any, clock: Callable[[], float]) -> None:
        self._request = request
        self._log = logger
        self._clock = clock
        self._reported = -math.inf
        self._last = math.inf

    def record_late(self, skipped: int, *, is_busy: bool) -> None:
        """Record a late call.

        Args:
            skipped: How many calls were skipped so far.
            is_busy: Whether it would have been on time without waiting for a processor.
        """
        self._last = self._clock()
        if self._last - self._reported <= _REPORT_INTERVAL:
            return
        self._reported = self._last
        name = _name(self._request)
        reason = (
            f"the computer is busy: calls of {name} are late; end other programs on it"
            if is_busy
            else f"calls of {name} are late: they take longer than the period; do less in each"
            " call, or set a longer period in exec_timeout"
        )
        self._log.warning(reason, func=name, skipped=skipped, period=self._request.timeout)

    def record_on_time(self) -> None:
        """Record that a call was on time."""
        if self._clock() - self._last >= _ON_TIME_AFTER:
            self._last = math.inf
            self._log.info(
                f"calls of {_name(self._request)} are on time again", func=_name(self._request)
            )


def _grant(run: Run, until: float, *, seal: bool = False) -> None:
    """Permit the lease unless the run is stopped, also if it is stopped meanwhile."""
    if run.keeper is not None and not run.stopped.is_set():
        run.keeper.grant(until, seal=seal)
        if run.stopped.is_set():
            run.keeper.revoke()


def _exit_if_forked() -> None:
    """End a process that team code forked and let return from its call."""
    if is_forked():
        _exit(0)


def _name(request: ExecutionRequest) -> str:
    return getattr(request.func, "__name__", repr(request.func))
