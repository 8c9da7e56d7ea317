"""The safety guard, which decides whether writes may reach devices.

Invariant: a write is allowed only while the lease that it was made under is fresh, as `allowed`
    finds by comparing time stamps with the clock at that moment. No write depends on the word of a
    task that may be late.

A commander renews a lease in shared memory. When a lease ends (released, expired, revoked, its
holder dead, or replaced by another of the same slot), the guard has the devices disabled that its
holder moved, and all devices if it was the last lease. It does so at once and logs the reason.

While no lease is fresh, the guard waits for the write event and costs nothing. While one is, it
sleeps until the first stamp that it has seen, or the root's heartbeat, would expire. It also
watches the holders' processes, so a killed holder is noticed within a millisecond and not after a
timeout.
"""

import os
from collections.abc import Callable
from typing import Final

import trio

from rt import log
from rt.buffer import LeaseTable
from rt.buffer.lease import ALL_TOKENS, DRIVER_BARS, Bar, Holder, slots_of
from rt.buffer.wakeup import EXECUTOR_SLOT, FIRST_SESSION_SLOT, SLOTS, STANDBY_SLOT
from rt.log.throttle import Throttle

_ENDED_ITSELF: Final = "the writer released its lease"
_WRITE_ENDED: Final = "rt write ended"
_FAILED: Final = "team code failed, exceeded its time or ended; a separate log entry says which"
_REPLACED: Final = "the lease ended and another one of the same slot began"
_REVOKED: Final = "the robot was stopped"
_BARRED: Final = {
    Bar.IDLE: "the mode has ended",
    Bar.DRIVER: "the driver station is silent",
    Bar.TAKEN: "control was taken over",
    Bar.RELEASED: "control was released",
    Bar.HELD: "a gamepad joined with its sticks not at rest",
    Bar.MODE: "a mode has begun",
    Bar.BRAKE: "the brake process is not ready",
    Bar.ESTOP: "emergency stop",
    Bar.STOPPING: "the robot is being stopped",
    Bar.DAMAGED: "the shared memory was overwritten",
    Bar.STALLED: "the robot's main process stalled",
}
_SILENT: Final = "the lease was not renewed for 0.1 s"
_ROOT_SILENT: Final = "the robot's main process does not respond"
_STOPPING: Final = "the device process is stopping"
_ORDERLY: Final = frozenset(
    {
        _ENDED_ITSELF,
        _WRITE_ENDED,
        _FAILED,
        _REPLACED,
        _REVOKED,
        _STOPPING,
        _BARRED[Bar.IDLE],
        _BARRED[Bar.STOPPING],
        _BARRED[Bar.MODE],
    }
)
_SLACK: Final = 0.0005
"""How long after a stamp's expiry the guard checks the leases, in s. A check that came too early
would have to be repeated.
"""


_BARRED_NOW: Final = {
    Bar.IDLE: "no mode is running",
    **dict.fromkeys(
        DRIVER_BARS, "waiting for the driver: connect a gamepad and release its sticks"
    ),
    Bar.BRAKE: "the brake process is not ready: see `rt call status`",
    Bar.ESTOP: "emergency stop",
    Bar.STOPPING: "the robot is being stopped",
    Bar.DAMAGED: "the shared memory was overwritten",
}
_MODE_ENDED: Final = "the mode has ended, and no mode is running"
_ENDED: Final = "the writer's lease ended before the values were sent"
_TEAM_SLOTS: Final = frozenset({EXECUTOR_SLOT, STANDBY_SLOT})
_BURST: Final = 20
"""How many events of one class are logged at once. A program that loses its lease again and again
causes more.
"""


def _writer(tokens: int) -> str:
    """Return the name by which the log calls the holders of the leases with these tokens."""
    if tokens == ALL_TOKENS:
        return "unknown"
    slots = slots_of(tokens)
    names = ["team code"] * any(slot in _TEAM_SLOTS for slot in slots)
    names += ["rt write"] * any(slot >= FIRST_SESSION_SLOT for slot in slots)
    return " and ".join(names) or "a component"


class SafetyGuard:
    """Decides whether devices may move, and has them disabled when they may not.

    Args:
        leases: The robot's leases.
        on_lapse: Called in the event loop whenever leases have ended; must return at once. Its
            arguments are the bitmap of their fencing tokens (see `rt.buffer.lease`), whose pending
            writes have to be discarded, and the bitmap of the tokens whose devices have to be
            disabled: the same, or `ALL_TOKENS` for every device if no lease is left.
        on_allowed: Called each time that a write is allowed, before it is sent; must return at
            once.
        describe: Returns the log context for the device of a port.

    Attributes:
        throttle: Limits what is logged; its `flush` has to be called at an interval.
    """

    def __init__(
        self,
        leases: LeaseTable,
        on_lapse: Callable[[int, int], None],
        on_allowed: Callable[[], None] = lambda: None,
        describe: Callable[[str], dict[str, str]] = lambda port: {"port": port},
    ) -> None:
        self._leases = leases
        self._on_lapse = on_lapse
        self._on_allowed = on_allowed
        self._describe = describe
        self._log = log.get_logger()
        self._closed = False
        self._armed = 0
        self._logged_reasons: set[str] = set()
        self.throttle = Throttle("reason", burst=_BURST)
        self._changed = trio.Event()
        self._holders: list[Holder] = []

    @property
    def is_open(self) -> bool:
        """Whether any holder of a lease may send writes at this moment."""
        return self.allowed != 0

    @property
    def armed(self) -> int:
        """The bitmap of the tokens of the leases whose end has not been handled yet."""
        return self._armed

    @property
    def allowed(self) -> int:
        """The bitmap of the tokens of the leases under which writes may be sent at this moment."""
        fresh = 0 if self._closed else self._leases.fresh_tokens()
        if fresh & ~self._armed:
            self._arm(fresh)  # even if the write event has not arrived yet
        if fresh:
            self._on_allowed()
        return fresh

    def note_dropped(self, port: str, count: int, tokens: int) -> None:
        """Log that writes were dropped, once for each reason until the next lease begins.

        Args:
            port: The line of the device that the writes were for.
            count: How many parameters.
            tokens: The bitmap of the tokens of the leases under which they were written, or
                `ALL_TOKENS` if that is not known.
        """
        if self._closed:
            return
        why = self._why(tokens)
        if why not in self._logged_reasons:
            self._logged_reasons.add(why)
            self.throttle.log(
                self._log.warning,
                "writes dropped",
                reason=why,
                **self._describe(port),
                writes=count,
                writer=_writer(tokens),
            )

    def _why(self, tokens: int) -> str:
        """Return why writes under leases with these tokens may not pass at this moment."""
        current = self._leases.current()
        written_by = [holder for holder in current if tokens >> holder.token & 1]
        slots = range(SLOTS) if tokens == ALL_TOKENS else slots_of(tokens)
        for bar in (Bar.DAMAGED, Bar.ESTOP, Bar.STOPPING, Bar.BRAKE, *DRIVER_BARS, Bar.IDLE):
            if any(self._leases.bar_of(slot) is bar for slot in slots):
                return (
                    _MODE_ENDED
                    if bar is Bar.IDLE and written_by and tokens != ALL_TOKENS
                    else _BARRED_NOW[bar]
                )
        if not self._leases.root_alive():
            return _ROOT_SILENT
        if tokens == ALL_TOKENS or not written_by:
            return _ENDED
        return self._why_not(written_by[0])

    def _why_not(self, holder: Holder) -> str:
        """Return why the current lease of a slot that is not barred is not valid."""
        if not holder.serial:
            return "the writer never acquired a lease"
        if self._leases.was_revoked(holder):
            return _REVOKED
        if self._leases.has_lapsed(holder):
            return "the writer's lease expired: it was not renewed for 0.1 s"
        if holder.slot in _TEAM_SLOTS:
            return "team code may not write until a call returns in time without an error"
        return "the writer released its lease"

    def check(self) -> None:
        """Check the leases now, and have devices disabled whose lease has ended."""
        ended = self._armed & ~self.allowed
        if ended:
            self._lapse(ended)
        else:
            self._note_holders()

    def close(self) -> None:
        """Allow no more writes, whatever the leases say; for the end of this process."""
        self._closed = True
        if self._armed:
            self._lapse(self._armed, _STOPPING)

    def end_sessions(self, reason: str) -> None:
        """End the leases of sessions.

        A session writes once and could not know that its devices were disabled.
        """
        ended = 0
        for holder in self._leases.holders():
            if holder.slot >= FIRST_SESSION_SLOT and self._armed >> holder.token & 1:
                self._leases.lapse(holder)
                ended |= 1 << holder.token
        if ended:
            self._lapse(ended, reason)

    async def run(self) -> None:
        """Watch the leases until cancelled.

        The caller waits for the write event and calls `check`.
        """
        while True:
            self._changed = trio.Event()
            self.check()
            if self._armed:
                await self._watch()
            else:
                await self._changed.wait()

    async def _watch(self) -> None:
        """Wait until a lease has ended or begun, or another process holds one."""
        self._holders = holders = self._leases.holders()
        async with trio.open_nursery() as nursery:
            for pid in {holder.pid for holder in holders}:
                nursery.start_soon(
                    self._watch_process, pid, [holder for holder in holders if holder.pid == pid]
                )
            while not self._changed.is_set():
                with trio.move_on_after(self._leases.remaining() + _SLACK):
                    await self._changed.wait()
                self.check()
            nursery.cancel_scope.cancel()

    async def _watch_process(self, pid: int, leases: list[Holder]) -> None:
        """Wait for a holder's process to end, and end its leases."""
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            pass
        except (OSError, OverflowError):  # OverflowError: the table was overwritten
            return  # only the stamps can be checked
        else:
            with os.fdopen(fd, "rb", buffering=0) as file:
                await trio.lowlevel.wait_readable(file)
        ended = sum(1 << lease.token for lease in leases if self._leases.lapse(lease))
        if ended & self._armed:
            self._lapse(ended & self._armed, f"the process of the writer ended (pid {pid})")
        self._changed.set()

    def _note_holders(self) -> None:
        """Wake the watching task if the holders have changed; each change wakes it once."""
        holders = self._leases.holders()
        if holders != self._holders:
            self._holders = holders
            self._changed.set()

    def _arm(self, fresh: int) -> None:
        self._armed |= fresh
        self._logged_reasons.clear()
        self._holders = self._leases.holders()
        self._changed.set()

    def _lapse(self, ended: int, reason: str = "") -> None:
        self._armed &= ~ended
        self._changed.set()
        self._on_lapse(ended, ended if self._armed else ALL_TOKENS)
        reason = reason or self._reason(ended)
        self._holders = self._leases.holders()
        write = self._log.info if reason in _ORDERLY else self._log.warning
        event = "devices disabled" if self._armed else "all devices disabled"
        self.throttle.log(write, event, reason=reason, writer=_writer(ended))

    def _reason(self, ended: int) -> str:
        """End what is left of these leases and return why they ended.

        Their holders have to begin others.

        A lease that began after they were seen to end is left alone: its first writes would be
        lost.
        """
        last = [holder for holder in self._leases.current() if ended >> holder.token & 1]
        revoked = [holder for holder in last if self._leases.was_revoked(holder)]
        silent = [holder for holder in last if self._leases.lapse(holder)]
        is_session = any(holder.slot >= FIRST_SESSION_SLOT for holder in last)
        if revoked:
            cause = self._leases.cause_of(revoked[0].slot)
            if is_session and cause is Bar.IDLE:
                return _WRITE_ENDED
            return _BARRED.get(cause, _REVOKED)
        if silent:
            return _SILENT if self._leases.root_alive() else _ROOT_SILENT
        if not last:
            return _REPLACED
        if any(holder.slot in _TEAM_SLOTS for holder in last):
            return _FAILED
        return _WRITE_ENDED if is_session else _ENDED_ITSELF
