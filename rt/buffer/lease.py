"""Leases: time stamps in shared memory that permit a process to move devices.

A process that commands devices holds a lease, a slot of the lease table in which it stamps the
time (`rt.buffer.clock`) while it works correctly. The device process checks the stamps immediately
before each write to a device. A lease whose stamp is older than `TIMEOUT` has lapsed, so a silent
holder stops motion. The root stamps the same table (``heartbeat``). While that stamp is older than
`ROOT_TIMEOUT` no lease is valid, because a command to stop could not take effect. The root stamps
when it unbars a slot, and repeatedly until all slots are barred again. A stamp that is zero or in
the future is never valid.

A lease that has ended does not continue. A holder begins a lease (`Lease.begin`), which assigns a
serial number, and then renews it. A lapsed or revoked lease cannot be renewed; its holder has to
decide to begin another one. The root revokes leases (``idle``) and bars slots (emergency stop,
silent driver): no lease of a barred slot is valid.

The slot and the low bits of the serial number form the fencing token of a lease, one byte that
every write to a device carries. It lets the device process distinguish a write of the current lease
from one of an earlier lease, even if it was busy or stopped when one followed the other. Tokens
repeat after 16 leases of a slot. No write waits that long, because a device process that does not
run is killed much earlier.

Team code can write anything into the table. Every read is bounded, whatever the table contains, and
the root compares the words that only it writes with what it wrote (`LeaseTable.is_intact`). The
root's orders do not depend on the table: the root also writes its words into separate memory
(`ORDERS_SIZE`), which the device process has and commanders do not have, and the device process
reads them there.

Invariant: every word has one writer. The holder writes the stamp, process, serial number and token
of its slot, the root writes revocations and bars, and the device process writes which leases
lapsed. Words are aligned 8-byte integers, which the machine reads and writes atomically, so the
table needs no lock that a dead process could hold.
"""

import contextlib
import ctypes
import enum
import os
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

import msgspec

from rt.buffer import segment
from rt.buffer.clock import boottime_ns
from rt.buffer.wakeup import SLOTS
from rt.errors import DeviceBufferError

TIMEOUT: Final = 0.1
"""Age (s) at which a lease has lapsed."""
ROOT_TIMEOUT: Final = 0.1
"""Age (s) of the root's heartbeat at which no lease is valid."""
ALL_TOKENS: Final = (1 << 256) - 1
"""The bitmap of all possible fencing tokens."""

_MAGIC = b"rtlease\x07"
_SLOT_MASK = 0x0F
_WORD = (1 << 64) - 1
_NUMBER_SHIFT = 4
_NS = 1_000_000_000


class Bar(enum.IntEnum):
    """Reasons for which the root bars a slot."""

    NONE = 0
    IDLE = 1
    """No mode that may move devices is running."""
    DRIVER = 2
    """The mode needs a driver, and the driver's station is silent."""
    ESTOP = 3
    """Emergency stop; final."""
    STOPPING = 4
    """The robot is stopping; final."""
    TAKEN = 5
    """The mode needs a driver, and another station has taken control."""
    RELEASED = 6
    """The mode needs a driver, and control was released."""
    HELD = 7
    """The mode needs a driver, and a gamepad that joined has a stick or button not at rest."""
    MODE = 8
    """A mode has begun; until it ends no session may move devices."""
    BRAKE = 9
    """No brake is ready (`rt.brake.watch`)."""
    DAMAGED = 10
    """The shared memory was overwritten and the table contains an unknown bar; final."""
    STALLED = 11
    """The root did not run; a cause of a lease's end, never a bar."""


DRIVER_BARS: Final = frozenset({Bar.DRIVER, Bar.TAKEN, Bar.RELEASED, Bar.HELD})
"""Reasons for which a mode that needs a driver waits for one."""
_BARS: Final = frozenset(Bar)
_FINAL: Final = frozenset({Bar.ESTOP, Bar.STOPPING, Bar.DAMAGED})


class _Table(ctypes.Structure):
    _fields_ = (
        ("magic", ctypes.c_char * 8),
        ("stamps", ctypes.c_uint64 * SLOTS),
        ("pids", ctypes.c_uint64 * SLOTS),
        ("serials", ctypes.c_uint64 * SLOTS),
        ("revoked", ctypes.c_uint64 * SLOTS),
        ("lapsed", ctypes.c_uint64 * SLOTS),
        ("bars", ctypes.c_uint64 * SLOTS),
        ("causes", ctypes.c_uint64 * SLOTS),
        ("root", ctypes.c_uint64),
        ("sessions", ctypes.c_uint64 * SLOTS),
        ("tokens", ctypes.c_uint8 * SLOTS),
    )


class _Orders(ctypes.Structure):
    """The root's words in the layout that the device process reads."""

    _fields_ = (
        ("bars", ctypes.c_uint64 * SLOTS),
        ("causes", ctypes.c_uint64 * SLOTS),
        ("revoked", ctypes.c_uint64 * SLOTS),
        ("sessions", ctypes.c_uint64 * SLOTS),
        ("root", ctypes.c_uint64),
    )  # in the order of the attributes of `_Words`


ORDERS_SIZE: Final = ctypes.sizeof(_Orders)
"""Bytes of the memory for the root's words."""


class _Words:
    """One copy of the root's words."""

    def __init__(self, memory: memoryview, layout: Any) -> None:
        self.bars, self.causes, self.revoked, self.sessions, self.heartbeat = self._parts = [
            _part(memory, getattr(layout, name)).cast("Q") for name, _ in _Orders._fields_
        ]

    def read(self) -> list[bytes]:
        """Return the words."""
        return [part.tobytes() for part in self._parts]

    def copy(self) -> "_Words":
        """Return a copy in private memory."""
        copy = _Words(memoryview(bytearray(ORDERS_SIZE)), _Orders)
        for ours, theirs in zip(copy._parts, self._parts, strict=True):
            ours[:] = theirs
        return copy


class Holder(msgspec.Struct, frozen=True):
    """The holder of a lease: the slot, the lease's serial number and the process id."""

    slot: int
    serial: int
    pid: int

    @property
    def token(self) -> int:
        """The fencing token of writes under this lease."""
        return _token_of(self.slot, self.serial)


class Lease:
    """One slot of the table, as seen by its holder."""

    def __init__(self, table: "LeaseTable", index: int) -> None:
        self._table = table
        self._index = index
        self._pid = os.getpid()
        self._clock = table.clock
        self._timeout_ns = round(table.timeout * _NS)

    @property
    def timeout(self) -> float:
        """The age (s) at which the lease lapses."""
        return self._table.timeout

    @property
    def token(self) -> int:
        """The fencing token of the current or last lease."""
        return self._table.token(self._index)

    @property
    def bar(self) -> Bar:
        """Why no lease of this slot can be valid now; `Bar.NONE` if one can."""
        return self._table.bar_of(self._index)

    @property
    def revoked(self) -> bool:
        """Whether the root ended the last lease of this slot or bars the slot."""
        index = self._index
        return self._table.was_revoked(Holder(index, self._table.serials[index], self._pid))

    @property
    def cause(self) -> Bar:
        """Why the root last ended a lease of this slot, whether or not it still bars the slot."""
        return self._table.cause_of(self._index)

    @property
    def root_alive(self) -> bool:
        """Whether the root's heartbeat is recent; without it, no lease is valid."""
        return self._table.root_alive()

    @property
    def held(self) -> bool:
        """Whether this process holds a lease that it can renew now."""
        table, index = self._table, self._index
        stamp = table.stamps[index]
        return bool(
            stamp
            and self._clock() - stamp < self._timeout_ns
            and table.pids[index] == self._pid
            and not table.is_ended(index)
        )

    def begin(self) -> bool:
        """Begin another lease, from any thread.

        Signal the device process's write event afterwards.

        Returns:
            False if the slot is barred.
        """
        table, index = self._table, self._index
        if table.bars[index]:
            return False
        table.stamps[index] = 0
        table.pids[index] = self._pid
        serial = (table.serials[index] + 1) & _WORD
        table.tokens[index] = _token_of(index, serial)
        table.serials[index] = serial
        table.stamps[index] = self._clock()
        return True

    def renew(self) -> bool:
        """Stamp the time, from any thread.

        Returns:
            False if the lease has ended: it lapsed, was revoked or barred, or never began.
        """
        held = self.held
        if held:
            self._table.stamps[self._index] = self._clock()
        return held

    def release(self) -> bool:
        """Give up the lease: later writes reach no device.

        Returns:
            Whether it was held.
        """
        stamps = self._table.stamps
        held = stamps[self._index] != 0
        stamps[self._index] = 0
        return held


class LeaseTable:
    """All leases of one robot. Create one with `open`.

    Attributes:
        timeout: The age (s) at which a lease has lapsed.
        clock: Returns the time of stamps (ns).
        on_unbar: Called before the root unbars a slot. It must stamp (`heartbeat`) and see that the
            root stamps repeatedly from then on.
    """

    def __init__(
        self,
        memory: memoryview,
        orders: memoryview | None,
        timeout: float,
        root_timeout: float,
        clock: Callable[[], int],
    ) -> None:
        self.timeout = timeout
        self.clock = clock
        self._timeout_ns = round(timeout * _NS)
        self._root_timeout_ns = round(root_timeout * _NS)
        view = memoryview(memory)
        self.stamps = _part(view, _Table.stamps).cast("Q")
        self.pids = _part(view, _Table.pids).cast("Q")
        self.serials = _part(view, _Table.serials).cast("Q")
        self._shown = _Words(view, _Table)
        self._orders = self._shown if orders is None else _Words(orders, _Orders)
        self.bars = self._orders.bars
        self.tokens = _part(view, _Table.tokens)
        self._revoked = self._orders.revoked
        self._lapsed = _part(view, _Table.lapsed).cast("Q")
        self._root = self._orders.heartbeat
        self._sessions = self._orders.sessions
        self._magic = view[:8]
        self._written = self._shown.copy()
        self.on_unbar: Callable[[], None] = self.heartbeat

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        prefix: str,
        *,
        create: bool = True,
        orders: memoryview | None = None,
        timeout: float = TIMEOUT,
        root_timeout: float = ROOT_TIMEOUT,
        clock: Callable[[], int] = boottime_ns,
    ) -> Iterator[Self]:
        """Map the lease table of a robot.

        Args:
            prefix: The prefix of the names of the robot's segments.
            create: Whether to create a missing table; memory is allocated only then.
            orders: The memory for the root's words that only the root and the device process have,
                `ORDERS_SIZE` bytes. By default the words in the table are used, as by commanders.
            timeout: The age (s) at which a lease has lapsed, as seen through this object.
            root_timeout: The age (s) of the root's heartbeat at which no lease is valid, likewise.
            clock: Returns the time of stamps (ns).

        Raises:
            DeviceBufferError: The table is missing, or is not a table of this version.
        """
        name = f"{prefix}lease"
        try:
            memory = segment.attach(name)
        except DeviceBufferError:
            if not create:
                raise
            memory = segment.create(name, ctypes.sizeof(_Table), _initialize) or segment.attach(
                name
            )
        if len(memory) != ctypes.sizeof(_Table) or memory[:8] != _MAGIC:
            raise DeviceBufferError(
                f"the segment {name} is not a lease table of this version of rt", segment=name
            )
        yield cls(memory, orders, timeout, root_timeout, clock)

    def lease(self, index: int) -> Lease:
        """Return the lease of a slot, for its holder."""
        return Lease(self, index)

    def token(self, index: int) -> int:
        """Return the fencing token of a slot's current or last lease."""
        return int(self.tokens[index])

    def token_byte(self, index: int) -> memoryview:
        """Return a view of the byte with the fencing token of a slot's lease, for its writer."""
        return self.tokens[index : index + 1]

    def session_id(self, index: int) -> int:
        """Return the number of a slot's current session, unique across all slots and sessions.

        See `rt.buffer.session`.
        """
        return self._sessions[index] * SLOTS + index

    def end_session(self, index: int) -> None:
        """Record that the session of a slot has ended. Only the root calls this."""
        self._write("sessions", index, (self._written.sessions[index] + 1) & _WORD)

    def is_over(self, session: int) -> bool:
        """Return whether a session has ended."""
        return session != self.session_id(session % SLOTS)

    def session_counts(self) -> list[int]:
        """Return the number of ended sessions by slot, which changes whenever a session ends."""
        return self._sessions.tolist()

    def heartbeat(self) -> None:
        """Stamp the root's heartbeat.

        The root's event loop calls this every 0.02 s while a slot is not barred, and otherwise
        every 0.5 s.
        """
        self._write("heartbeat", 0, self.clock())

    def _write(self, name: str, index: int, value: int) -> None:
        """Write a word of the root, last in the memory that holders see."""
        for words in (self._orders, self._shown, self._written):
            getattr(words, name)[index] = value

    def is_intact(self) -> bool:
        """Return whether the table holds what the root wrote; False if it was overwritten.

        Only the root calls this.
        """
        return self._magic == _MAGIC and (
            self._shown.read() == self._orders.read() == self._written.read()
        )

    @property
    def held(self) -> bool:
        """Whether a process renews a lease that was not ended, even if the root is silent."""
        return bool(self._fresh_slots())

    def root_alive(self) -> bool:
        """Return whether the root has stamped within ``root_timeout``."""
        beat = self._root[0]
        return bool(beat and beat <= self.clock() < beat + self._root_timeout_ns)

    def any_unbarred(self) -> bool:
        """Return whether a slot is not barred. Only the root calls this."""
        return not all(self._written.bars)

    def revoke_all(self, cause: Bar = Bar.NONE) -> None:
        """End every lease; each holder has to begin another one. Only the root calls this.

        Args:
            cause: Why; `Bar.NONE` for a command to stop.
        """
        for index in range(SLOTS):
            self.revoke_slot(index, cause)

    def revoke_slot(self, index: int, cause: Bar = Bar.NONE) -> None:
        """End the current lease of a slot. Only the root calls this."""
        self._write("causes", index, cause)
        self._write("revoked", index, self.serials[index])

    def cause_of(self, index: int) -> Bar:
        """Return why the root last ended a lease of a slot; `Bar.NONE` for a command to stop."""
        return _bar(self._orders.causes[index])

    def bar(self, index: int, bar: Bar) -> None:
        """Bar a slot until `unbar`, and end its current lease; a final bar stays.

        Only the root calls this.
        """
        is_final = self._is_final(index)
        self._write(
            "bars", index, (self._written.bars[index] or self.bars[index]) if is_final else bar
        )
        self.revoke_slot(index, bar)

    def bar_all(self, bar: Bar) -> None:
        """Bar every slot."""
        for index in range(SLOTS):
            self.bar(index, bar)

    def unbar(self, index: int) -> None:
        """Permit leases of a slot again, unless the bar is final. Only the root calls this."""
        if not self._is_final(index):
            self.on_unbar()
            if not self._is_final(index):  # `on_unbar` may have barred it
                self._write("bars", index, Bar.NONE)

    def _is_final(self, index: int) -> bool:
        return self.bar_of(index) in _FINAL or self._written.bars[index] in _FINAL

    def bar_of(self, index: int) -> Bar:
        """Return why no lease of a slot can be valid now; `Bar.NONE` if one can."""
        return _bar(self.bars[index])

    def is_ended(self, index: int) -> bool:
        """Return whether the root or the device process ended the current lease of a slot."""
        serial = self.serials[index]
        return bool(
            serial <= self._revoked[index] or serial <= self._lapsed[index] or self.bars[index]
        )

    def fresh_tokens(self) -> int:
        """Return the bitmap of the fencing tokens of the leases that are valid now."""
        if not self.root_alive():
            return 0
        tokens = 0
        for index in self._fresh_slots():
            tokens |= 1 << self.tokens[index]
        return tokens

    def holders(self) -> list[Holder]:
        """Return the holders of the leases that are valid now, by slot."""
        if not self.root_alive():
            return []
        return [
            Holder(index, self.serials[index], self.pids[index]) for index in self._fresh_slots()
        ]

    def expiry(self) -> int:
        """Return when (ns of `rt.buffer.clock`) the first valid lease ends if none is renewed.

        Returns:
            0 if no lease is valid.
        """
        ends = [self.stamps[index] + self._timeout_ns for index in self._fresh_slots()]
        return min(*ends, self._root[0] + self._root_timeout_ns) if ends else 0

    def remaining(self) -> float:
        """Return the time (s) until the first valid lease ends if none is renewed.

        Returns:
            0 if no lease is valid.
        """
        return max(self.expiry() - self.clock(), 0) / _NS

    def lapse(self, holder: Holder) -> bool:
        """End the lease of a dead or silent process. Only the device process calls this.

        Returns:
            False if the lease has already ended.
        """
        index = holder.slot
        if (
            self.serials[index] != holder.serial
            or self.stamps[index] == 0
            or holder.serial <= self._lapsed[index]
        ):
            return False
        self._lapsed[index] = holder.serial
        return True

    def was_revoked(self, holder: Holder) -> bool:
        """Return whether the root ended a lease or barred its slot."""
        return bool(holder.serial <= self._revoked[holder.slot] or self.bars[holder.slot])

    def has_lapsed(self, holder: Holder) -> bool:
        """Return whether the device process ended a lease that lapsed."""
        return bool(holder.serial <= self._lapsed[holder.slot])

    def current(self) -> list[Holder]:
        """Return the current or last lease of each slot, valid or not."""
        return [Holder(index, self.serials[index], self.pids[index]) for index in range(SLOTS)]

    def _fresh_slots(self) -> list[int]:
        stamps = self.stamps.tolist()
        now = self.clock()
        oldest = now - self._timeout_ns
        return [
            index
            for index, stamp in enumerate(stamps)
            if stamp and oldest < stamp <= now and not self.is_ended(index)
        ]


def slots_of(tokens: int) -> list[int]:
    """Return the slots of the fencing tokens in a bitmap."""
    return sorted(
        {token & _SLOT_MASK for token in range(tokens.bit_length()) if tokens >> token & 1}
    )


def _token_of(index: int, serial: int) -> int:
    return index | (serial << _NUMBER_SHIFT & ~_SLOT_MASK & 0xFF)


def _bar(value: int) -> Bar:
    return Bar(value) if value in _BARS else Bar.DAMAGED


def _initialize(memory: memoryview) -> None:
    table = _Table.from_buffer(memory)
    table.magic = _MAGIC
    table.tokens[:] = range(SLOTS)


def _part(view: memoryview, field: Any) -> memoryview:
    return view[field.offset : field.offset + field.size]
