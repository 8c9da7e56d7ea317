"""The right to move devices, as time stamps in shared memory.

A process that commands devices holds a lease: a slot of this table, in which it stamps the time (`rt.buffer.clock`) again and
again while it is sure of what it does. The device process checks the stamps right before it writes anything to a device. A lease
whose stamp is older than ``TIMEOUT`` has lapsed: silence stops motion. The root gives a sign of life in the same table (``beat``);
while that is older than ``ROOT_TIMEOUT``, no command to stop would be heard, and no lease counts. The root stamps when it unbars a slot,
and often from then on until all slots are barred again. A stamp of zero or of the future never counts.

A lease that has ended does not continue. A holder begins a lease explicitly (`Lease.begin`), which gives it a serial number, and
then renews it; a lease that lapsed or was revoked cannot be renewed, so its holder has to decide to begin another. The root revokes
leases (``idle``) and bars slots (emergency stop, a silent driver): no lease counts in a slot that is barred.

The last bits of the serial number, with the slot, are the mark of a lease: one byte, which every write to a device carries. So the
device process tells a write of the present lease from one of an earlier lease, also if it was busy or stopped when the one
followed the other. Marks repeat after 16 leases of a slot; writes do not wait for so long, since a device process that stands
still is killed long before.

Team code can write anything into the table. Whatever it holds, each look at it ends with an answer; the root compares the words that
only it writes with what it wrote (`LeaseTable.is_sound`). What the root orders does not depend on the table: it writes its words into
memory of its own too (`ORDERS_SIZE`), which the device process has and commanders have not, and the device process reads them there.

Invariant: every word has one writer. The holder writes stamp, process, serial number and mark of its slot, the root what it revokes and
bars, the device process which leases it saw lapse. Words are aligned 8 byte integers, which the machine reads and writes whole, so
that the table needs no lock that a dead process could hold.
"""

import contextlib
import ctypes
import enum
import os
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

import msgspec

from rt.buffer import segment
from rt.buffer.bells import SEATS
from rt.buffer.clock import boottime_ns
from rt.errors import DeviceBufferError

TIMEOUT = 0.1
"""Age (s) at which a lease has lapsed."""
ROOT_TIMEOUT = 0.1
"""Age (s) of the root's sign of life at which no lease counts."""
SLOTS = SEATS
"""There is one for each seat; see `rt.buffer.bells`."""
ALL_MARKS: Final = (1 << 256) - 1
"""The bitmap of every mark that there can be."""

_MAGIC = b"rtlease\x07"
_SEAT = 0x0F
_WORD = (1 << 64) - 1
_NUMBER_SHIFT = 4
_NS = 1_000_000_000
_TIMEOUT_NS = round(TIMEOUT * _NS)
_ROOT_TIMEOUT_NS = round(ROOT_TIMEOUT * _NS)


class Bar(enum.IntEnum):
    """Why the root lets no lease of a slot count."""

    NONE = 0
    IDLE = 1
    """No mode is running that may move devices."""
    DRIVER = 2
    """The mode needs a driver, and the driver's station is silent."""
    ESTOP = 3
    """Emergency stop; final."""
    STOPPING = 4
    """The robot is being stopped; final."""
    TAKEN = 5
    """The mode needs a driver, and another station has taken control."""
    RELEASED = 6
    """The mode needs a driver, and control was released."""
    HELD = 7
    """The mode needs a driver, and a stick or a button of a gamepad that joined is not at rest."""
    MODE = 8
    """A mode has begun, while which no visitor moves devices."""
    BRAKE = 9
    """No brake is ready (`rt.brake.watch`)."""
    DAMAGED = 10
    """The shared memory was overwritten, so that the table holds no bar that there is; final."""
    STALLED = 11
    """The root stood still: only the cause of a lease's end, no bar."""


DRIVER_BARS: Final = frozenset({Bar.DRIVER, Bar.TAKEN, Bar.RELEASED, Bar.HELD})
"""Why a mode that needs a driver waits for one."""
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
        ("visits", ctypes.c_uint64 * SLOTS),
        ("marks", ctypes.c_uint8 * SLOTS),
    )


class _Orders(ctypes.Structure):
    """The words that only the root writes, as the device process reads them."""

    _fields_ = (
        ("bars", ctypes.c_uint64 * SLOTS),
        ("causes", ctypes.c_uint64 * SLOTS),
        ("revoked", ctypes.c_uint64 * SLOTS),
        ("visits", ctypes.c_uint64 * SLOTS),
        ("root", ctypes.c_uint64),
    )


ORDERS_SIZE: Final = ctypes.sizeof(_Orders)
"""Bytes of the memory for the words of the root."""


class _Words:
    """The words that only the root writes, in one of the two memories."""

    def __init__(self, memory: memoryview, layout: Any) -> None:
        self.bars = _part(memory, layout.bars).cast("Q")
        self.causes = _part(memory, layout.causes).cast("Q")
        self.revoked = _part(memory, layout.revoked).cast("Q")
        self.visits = _part(memory, layout.visits).cast("Q")
        self.beat = _part(memory, layout.root).cast("Q")

    def read(self) -> "_Written":
        """What they hold."""
        return _Written(
            self.bars.tolist(), self.causes.tolist(), self.revoked.tolist(), self.visits.tolist(), self.beat.tolist()
        )


class _Written(msgspec.Struct):
    """The words of a table that only the root writes."""

    bars: list[int]
    causes: list[int]
    revoked: list[int]
    visits: list[int]
    beat: list[int]


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lease: the slot, the lease's serial number, and the process."""

    slot: int
    serial: int
    pid: int

    @property
    def mark(self) -> int:
        """The mark that writes under this lease carry."""
        return _mark(self.slot, self.serial)


class Lease:
    """One slot of the table, as its holder sees it."""

    def __init__(self, table: "LeaseTable", index: int) -> None:
        self._table = table
        self._index = index
        self._pid = os.getpid()

    @property
    def mark(self) -> int:
        """The mark of the present lease, or of the last one."""
        return self._table.mark(self._index)

    @property
    def bar(self) -> Bar:
        """Why no lease of this slot counts now; `Bar.NONE` if one would."""
        return self._table.bar_of(self._index)

    @property
    def revoked(self) -> bool:
        """Whether the root ended the last lease of this slot, or bars it."""
        index = self._index
        return self._table.was_revoked(Holder(index, self._table.serials[index], self._pid))

    @property
    def cause(self) -> Bar:
        """Why the root ended the last lease of this slot that it ended, whether it bars the slot still or not."""
        return self._table.cause_of(self._index)

    @property
    def root_alive(self) -> bool:
        """Whether the root has given a sign of life lately: without one, no lease counts."""
        return self._table.root_alive()

    @property
    def held(self) -> bool:
        """Whether this process holds a lease that could be renewed now."""
        table, index = self._table, self._index
        stamp = table.stamps[index]
        return bool(
            stamp
            and boottime_ns() - stamp < _TIMEOUT_NS
            and table.pids[index] == self._pid
            and not table.is_ended(index)
        )

    def begin(self) -> bool:
        """Begin another lease, from any thread; the device process is to be rung then. False while the slot is barred."""
        table, index = self._table, self._index
        if table.bars[index]:
            return False
        table.stamps[index] = 0
        table.pids[index] = self._pid
        serial = (table.serials[index] + 1) & _WORD
        table.marks[index] = _mark(index, serial)
        table.serials[index] = serial
        table.stamps[index] = boottime_ns()
        return True

    def renew(self) -> bool:
        """Stamp the time, from any thread. False if the lease has ended: it lapsed, was revoked or barred, or never began."""
        held = self.held
        if held:
            self._table.stamps[self._index] = boottime_ns()
        return held

    def release(self) -> bool:
        """Give the lease up: from now on nothing that is written reaches a device. True if it was held."""
        stamps = self._table.stamps
        held = stamps[self._index] != 0
        stamps[self._index] = 0
        return held


class LeaseTable:
    """All leases of one robot.

    Args:
        memory: The table.
        orders: The memory of the root's words that only the root and the device process have, `ORDERS_SIZE` bytes; by default the words
            in the table are all that there is, as for commanders.

    Attributes:
        on_unbar: Called before the root unbars a slot; has to stamp (`beat`), as it does unless it is replaced, and often from then on.
    """

    def __init__(self, memory: memoryview, orders: memoryview | None = None) -> None:
        view = memoryview(memory)
        self.stamps = _part(view, _Table.stamps).cast("Q")
        self.pids = _part(view, _Table.pids).cast("Q")
        self.serials = _part(view, _Table.serials).cast("Q")
        self._shown = _Words(view, _Table)
        self._orders = self._shown if orders is None else _Words(orders, _Orders)
        self.bars = self._orders.bars
        self.marks = _part(view, _Table.marks)
        self._revoked = self._orders.revoked
        self._lapsed = _part(view, _Table.lapsed).cast("Q")
        self._root = self._orders.beat
        self._visits = self._orders.visits
        self._magic = view[:8]
        self._written = self._shown.read()
        self.on_unbar: Callable[[], None] = self.beat

    @classmethod
    @contextlib.contextmanager
    def open(cls, prefix: str, *, create: bool = True, orders: memoryview | None = None) -> Iterator[Self]:
        """Map the table of a robot; if there is none and ``create``, it is made: only then is memory asked for.

        Args:
            prefix: What the names of the robot's segments begin with.
            create: Whether to make it.
            orders: See `LeaseTable`.

        Raises:
            DeviceBufferError: There is none, or what is there is no table of this version.
        """
        name = f"{prefix}lease"
        try:
            memory = segment.attach(name)
        except DeviceBufferError:
            if not create:
                raise
            memory = segment.create(name, ctypes.sizeof(_Table), _initialize) or segment.attach(name)
        if len(memory) != ctypes.sizeof(_Table) or memory[:8] != _MAGIC:
            raise DeviceBufferError(f"the segment {name} is not a lease table of this version", segment=name)
        yield cls(memory, orders)

    def slot(self, index: int) -> Lease:
        """The lease of a slot, for its holder."""
        return Lease(self, index)

    def mark(self, index: int) -> int:
        """The mark of a slot's present lease, or of its last one."""
        return int(self.marks[index])

    def mark_of(self, index: int) -> memoryview:
        """The one byte that is the mark of a slot's present lease, for the process that writes under it."""
        return self.marks[index : index + 1]

    def visit_of(self, index: int) -> int:
        """The number of the visit that goes on in a slot: no other one, of any slot, had it or will have it (`rt.buffer.visitor`)."""
        return self._visits[index] * SLOTS + index

    def end_visit(self, index: int) -> None:
        """Say that the visitor of a slot has left; only the root does."""
        self._write("visits", index, (self._written.visits[index] + 1) & _WORD)

    def is_over(self, visit: int) -> bool:
        """Whether a visit has ended."""
        return visit != self.visit_of(visit % SLOTS)

    def visits(self) -> list[int]:
        """Counts of visits by slot, which differ after any visit has ended."""
        return self._visits.tolist()

    def beat(self) -> None:
        """Stamp the root's sign of life; its event loop does so every 0.02 s while a lease may count, and else every 0.5 s."""
        self._write("beat", 0, boottime_ns())

    def _write(self, name: str, index: int, value: int) -> None:
        """Write a word that only the root writes: what holders see last."""
        for words in (getattr(self._orders, name), getattr(self._shown, name), getattr(self._written, name)):
            words[index] = value

    def is_sound(self) -> bool:
        """Whether the table holds what the root wrote; False if another process has overwritten it. Only the root asks."""
        return self._magic == _MAGIC and self._shown.read() == self._orders.read() == self._written

    @property
    def held(self) -> bool:
        """Whether a process renews a lease that was not ended, however silent the root is."""
        return bool(self._fresh_slots())

    def root_alive(self) -> bool:
        """Whether the root has given a sign of life lately."""
        beat = self._root[0]
        return bool(beat and beat <= boottime_ns() < beat + _ROOT_TIMEOUT_NS)

    def may_count(self) -> bool:
        """Whether a lease may count: a slot is not barred. Only the root asks."""
        return not all(self._written.bars)

    def revoke_all(self, cause: Bar = Bar.NONE) -> None:
        """End every lease: each holder has to begin another. Only the root does.

        Args:
            cause: Why; `Bar.NONE` for a command to stop.
        """
        for index in range(SLOTS):
            self.revoke_slot(index, cause)

    def revoke_slot(self, index: int, cause: Bar = Bar.NONE) -> None:
        """End the present lease of a slot. Only the root does."""
        self._write("causes", index, cause)
        self._write("revoked", index, self.serials[index])

    def cause_of(self, index: int) -> Bar:
        """Why the root ended the last lease of a slot that it ended: `Bar.NONE` for a command to stop."""
        return _bar(self._orders.causes[index])

    def bar(self, index: int, bar: Bar) -> None:
        """Let no lease of a slot count until `unbar`, and end the present one. Only the root does; a final bar stays."""
        is_final = self._is_final(index)
        self._write("bars", index, (self._written.bars[index] or self.bars[index]) if is_final else bar)
        self.revoke_slot(index, bar)

    def bar_all(self, bar: Bar) -> None:
        """Bar every slot."""
        for index in range(SLOTS):
            self.bar(index, bar)

    def unbar(self, index: int) -> None:
        """Let leases of a slot count again, unless the bar is final. Only the root does."""
        if not self._is_final(index):
            self.on_unbar()
            if not self._is_final(index):  # `on_unbar` may have barred it
                self._write("bars", index, Bar.NONE)

    def _is_final(self, index: int) -> bool:
        return self.bar_of(index) in _FINAL or self._written.bars[index] in _FINAL

    def bar_of(self, index: int) -> Bar:
        """Why no lease of a slot counts now; `Bar.NONE` if one would."""
        return _bar(self.bars[index])

    def is_ended(self, index: int) -> bool:
        """Whether the present lease of a slot was ended by the root or by the device process."""
        serial = self.serials[index]
        return bool(serial <= self._revoked[index] or serial <= self._lapsed[index] or self.bars[index])

    def fresh(self) -> int:
        """The bitmap of the marks of the leases whose holders may move devices now; 0 for none."""
        if not self.root_alive():
            return 0
        marks = 0
        for index in self._fresh_slots():
            marks |= 1 << self.marks[index]
        return marks

    def holders(self) -> list[Holder]:
        """Who holds a lease that counts, by slot."""
        if not self.root_alive():
            return []
        return [Holder(index, self.serials[index], self.pids[index]) for index in self._fresh_slots()]

    def end(self) -> int:
        """When (ns of `rt.buffer.clock`) the first of the leases that count now ends if none is renewed; 0 if none counts."""
        ends = [self.stamps[index] + _TIMEOUT_NS for index in self._fresh_slots()]
        return min(*ends, self._root[0] + _ROOT_TIMEOUT_NS) if ends else 0

    def remaining(self) -> float:
        """How long (s) the leases that count now do so if none is renewed, the shortest of them; 0 if none counts."""
        return max(self.end() - boottime_ns(), 0) / _NS

    def lapse(self, holder: Holder) -> bool:
        """End a lease, as of a process that is dead or silent; False if it has ended already. Only the device process does."""
        index = holder.slot
        if self.serials[index] != holder.serial or self.stamps[index] == 0 or holder.serial <= self._lapsed[index]:
            return False
        self._lapsed[index] = holder.serial
        return True

    def was_revoked(self, holder: Holder) -> bool:
        """Whether the root ended a lease, or barred its slot."""
        return bool(holder.serial <= self._revoked[holder.slot] or self.bars[holder.slot])

    def has_lapsed(self, holder: Holder) -> bool:
        """Whether the device process saw a lease lapse."""
        return bool(holder.serial <= self._lapsed[holder.slot])

    def current(self) -> list[Holder]:
        """The present or last lease of each slot, whether it counts or not."""
        return [Holder(index, self.serials[index], self.pids[index]) for index in range(SLOTS)]

    def _fresh_slots(self) -> list[int]:
        stamps = self.stamps.tolist()
        now = boottime_ns()
        oldest = now - _TIMEOUT_NS
        return [
            index for index, stamp in enumerate(stamps) if stamp and oldest < stamp <= now and not self.is_ended(index)
        ]


def seats_of(marks: int) -> list[int]:
    """The seats of a bitmap of marks."""
    return sorted({mark & _SEAT for mark in range(marks.bit_length()) if marks >> mark & 1})


def _mark(index: int, serial: int) -> int:
    return index | (serial << _NUMBER_SHIFT & ~_SEAT & 0xFF)


def _bar(value: int) -> Bar:
    return Bar(value) if value in _BARS else Bar.DAMAGED


def _initialize(memory: memoryview) -> None:
    table = _Table.from_buffer(memory)
    table.magic = _MAGIC
    table.marks[:] = range(SLOTS)


def _part(view: memoryview, field: Any) -> memoryview:
    return view[field.offset : field.offset + field.size]
