"""The right to move devices, as time stamps in shared memory.

Whoever commands devices holds a lease: a slot of this table, in which it stamps the time (`rt.buffer.clock`) again and again for
as long as it is sure of what it does. The device process looks at the stamps right before it writes anything to a device. A stamp
that is older than ``TIMEOUT`` is no lease: silence is a stop. The root gives a sign of life in the same table (``beat``): when that
is older than ``ROOT_TIMEOUT``, nobody can stop a mode any more, and no lease counts. A stamp of the future counts as none.

What has ended does not go on: a slot that is stamped after its lease was released, or lapsed, begins another lease, and each has
a mark of its own. A mark is one byte, the seat and a running number, and whatever is written to a device carries the one of that
moment. So the device process tells an order of the lease that is from one of the lease that was, also if it was busy, or stopped,
when the one gave way to the other. The number begins again after 16 leases; orders do not wait for so long, since a device process that
stands still for 2 s is ended by the supervisor.

A slot has one writer, its holder; the device process may take a lease away (``revoke``). Stamps are aligned 8 byte words, which
the machine reads and writes whole, so that the table needs no lock that a dead process could hold.
"""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator
from typing import Any, Final, Self

import msgspec

from rt.buffer import segment
from rt.buffer.bells import SEATS
from rt.buffer.clock import boottime_ns
from rt.errors import DeviceBufferError

TIMEOUT = 0.1
"""Age (s) at which a lease has lapsed."""
ROOT_TIMEOUT = 0.5
"""Age (s) of the root's sign of life at which no lease counts any more."""
SLOTS = SEATS
"""There is one for each seat; see `rt.buffer.bells`."""
ALL_MARKS: Final = (1 << 256) - 1
"""The bitmap of every mark that there can be."""

_MAGIC = b"rtlease\x04"
_SEAT = 0x0F
_NUMBER = 0x10
"""The bits of the seat in a mark, and the step from one running number to the next."""
_NS = 1_000_000_000
_TIMEOUT_NS = round(TIMEOUT * _NS)
_ROOT_TIMEOUT_NS = round(ROOT_TIMEOUT * _NS)


class _Table(ctypes.Structure):
    _fields_ = (
        ("magic", ctypes.c_char * 8),
        ("stamps", ctypes.c_uint64 * SLOTS),
        ("pids", ctypes.c_uint64 * SLOTS),
        ("root", ctypes.c_uint64),
        ("visits", ctypes.c_uint64 * SLOTS),
        ("marks", ctypes.c_uint8 * SLOTS),
    )


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lease: the slot, the lease's mark, and the process."""

    slot: int
    mark: int
    pid: int


class Lease:
    """One slot of the table, as its holder sees it."""

    __slots__ = ("_index", "_marks", "_pid", "_pids", "_stamps")

    def __init__(self, stamps: memoryview, pids: memoryview, marks: memoryview, index: int) -> None:
        self._stamps = stamps
        self._pids = pids
        self._marks = marks
        self._index = index
        self._pid = os.getpid()

    @property
    def mark(self) -> int:
        """The mark of the present lease, or of the last one."""
        return int(self._marks[self._index])

    def renew(self) -> bool:
        """Stamp the time, from any thread; True if that began another lease, so that the device process is to be rung."""
        index = self._index
        stamp, now = self._stamps[index], boottime_ns()
        began = stamp == 0 or now - stamp >= _TIMEOUT_NS or self._pids[index] != self._pid
        if began:
            self._stamps[index] = 0
            self._pids[index] = self._pid
            self._marks[index] = index | (self._marks[index] + _NUMBER & ~_SEAT & 0xFF)
        self._stamps[index] = now
        return began

    def release(self) -> bool:
        """Give the lease up: from now on nothing that is written reaches a device. True if it was held."""
        held = self._stamps[self._index] != 0
        self._stamps[self._index] = 0
        return held


class LeaseTable:
    """All leases of one robot."""

    def __init__(self, memory: mmap.mmap) -> None:
        view = memoryview(memory)
        self._stamps = _part(view, _Table.stamps).cast("Q")
        self._pids = _part(view, _Table.pids).cast("Q")
        self._root = _part(view, _Table.root).cast("Q")
        self._marks = _part(view, _Table.marks)
        self._visits = _part(view, _Table.visits).cast("Q")

    @classmethod
    @contextlib.contextmanager
    def open(cls, prefix: str, *, create: bool = True) -> Iterator[Self]:
        """Map the table of a robot; if there is none and ``create``, it is made: only then is memory asked for.

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
            raise DeviceBufferError(f"{segment.DIRECTORY / name} is not a lease table of this version", segment=name)
        yield cls(memory)

    def slot(self, index: int) -> Lease:
        """The lease of a slot, for its holder."""
        return Lease(self._stamps, self._pids, self._marks, index)

    def mark_of(self, index: int) -> memoryview:
        """The one byte that is the mark of a slot's present lease, for whoever writes under it."""
        return self._marks[index : index + 1]

    def visit_of(self, index: int) -> int:
        """The number of the visit that goes on in a slot: no other one, of any slot, had it or will have it (`rt.buffer.visitor`)."""
        return self._visits[index] * SLOTS + index

    def end_visit(self, index: int) -> None:
        """Say that the visitor of a slot has left; only the root does."""
        self._visits[index] += 1

    def is_over(self, visit: int) -> bool:
        """Whether a visit has ended."""
        return visit != self.visit_of(visit % SLOTS)

    def visits(self) -> list[int]:
        """Counts of visits by slot, which differ after any visit has ended."""
        return self._visits.tolist()

    def beat(self) -> None:
        """Stamp the root's sign of life; its event loop does so every 0.1 s."""
        self._root[0] = boottime_ns()

    def root_alive(self) -> bool:
        """Whether the root has given a sign of life lately."""
        beat = self._root[0]
        now = boottime_ns()
        return bool(now - _ROOT_TIMEOUT_NS < beat <= now)

    def fresh(self) -> int:
        """The bitmap of the marks of the leases whose holders may move devices now; 0 for nobody."""
        if not self.root_alive():
            return 0
        stamps = self._stamps.tolist()
        now = boottime_ns()
        oldest = now - _TIMEOUT_NS
        marks = 0
        for index, stamp in enumerate(stamps):  # written out: it is asked before each write
            if oldest < stamp <= now:
                marks |= 1 << self._marks[index]
        return marks

    def holders(self) -> list[Holder]:
        """Who holds a lease that counts, by slot."""
        if not self.root_alive():
            return []
        return [Holder(index, self._marks[index], self._pids[index]) for index in self._fresh_slots()]

    def remaining(self) -> float:
        """How long (s) the leases that count now do so if nobody stamps, the shortest of them; 0 if none counts."""
        now = boottime_ns()
        ends = [self._stamps[index] + _TIMEOUT_NS for index in self._fresh_slots()]
        return max(min(*ends, self._root[0] + _ROOT_TIMEOUT_NS) - now, 0) / _NS if ends else 0.0

    def revoke(self, holder: Holder) -> bool:
        """Take a lease away, as from a process that is dead; False if that lease has ended already."""
        index = holder.slot
        if self._stamps[index] == 0 or (self._marks[index], self._pids[index]) != (holder.mark, holder.pid):
            return False
        self._stamps[index] = 0
        return True

    def _fresh_slots(self) -> list[int]:
        stamps = self._stamps.tolist()
        now = boottime_ns()
        oldest = now - _TIMEOUT_NS
        return [index for index, stamp in enumerate(stamps) if oldest < stamp <= now]


def seats_of(marks: int) -> list[int]:
    """The seats of a bitmap of marks."""
    return sorted({mark & _SEAT for mark in range(marks.bit_length()) if marks >> mark & 1})


def _initialize(memory: mmap.mmap) -> None:
    table = _Table.from_buffer(memory)
    table.magic = _MAGIC
    table.marks[:] = range(SLOTS)


def _part(view: memoryview, field: Any) -> memoryview:
    return view[field.offset : field.offset + field.size]
