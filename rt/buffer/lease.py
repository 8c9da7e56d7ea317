"""The right to move devices, as time stamps in shared memory.

Whoever commands devices holds a lease: a slot of this table, in which it stamps the monotonic clock again and again for as long
as it is sure of what it does. The device process looks at the stamps right before it writes anything to a device. A stamp that
is older than ``TIMEOUT`` is no lease: silence is a stop. The root gives a sign of life in the same table (``beat``): when that is
older than ``ROOT_TIMEOUT``, nobody can stop a mode any more, and no lease counts. A stamp of the future counts as none.

A slot has one writer, its holder; the device process may take a lease away (``revoke``). Stamps are aligned 8 byte words, which
the machine reads and writes whole, so that the table needs no lock that a dead process could hold.
"""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator
from time import monotonic_ns
from typing import Any, Self

import msgspec

from rt.buffer import segment
from rt.buffer.bells import SEATS
from rt.errors import DeviceBufferError

TIMEOUT = 0.1
"""Age (s) at which a lease has lapsed."""
ROOT_TIMEOUT = 0.5
"""Age (s) of the root's sign of life at which no lease counts any more."""
SLOTS = SEATS
"""There is one for each seat; see `rt.buffer.bells`."""

_MAGIC = b"rtlease\x03"
_NS = 1_000_000_000
_TIMEOUT_NS = round(TIMEOUT * _NS)
_ROOT_TIMEOUT_NS = round(ROOT_TIMEOUT * _NS)


class _Table(ctypes.Structure):
    _fields_ = (
        ("magic", ctypes.c_char * 8),
        ("stamps", ctypes.c_uint64 * SLOTS),
        ("pids", ctypes.c_uint64 * SLOTS),
        ("root", ctypes.c_uint64),
    )


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lease: the slot, the process, and when its last stamp was set (ns of the monotonic clock)."""

    slot: int
    pid: int
    stamp: int

    @property
    def expires(self) -> float:
        """When the lease lapses unless it is renewed (s of the monotonic clock)."""
        return self.stamp / _NS + TIMEOUT


class Lease:
    """One slot of the table, as its holder sees it."""

    __slots__ = ("_index", "_pid", "_pids", "_stamps")

    def __init__(self, stamps: memoryview, pids: memoryview, index: int) -> None:
        self._stamps = stamps
        self._pids = pids
        self._index = index
        self._pid = os.getpid()

    def renew(self) -> bool:
        """Stamp the time, from any thread; True if no lease was held here before, so that the device process is rung."""
        began = self._stamps[self._index] == 0 or self._pids[self._index] != self._pid
        if began:
            self._pids[self._index] = self._pid
        self._stamps[self._index] = monotonic_ns()
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
        self._stamps = _words(view, _Table.stamps)
        self._pids = _words(view, _Table.pids)
        self._root = _words(view, _Table.root)

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
            made = segment.create(name, ctypes.sizeof(_Table), lambda new: new.__setitem__(slice(8), _MAGIC))
            memory = made or segment.attach(name)
        if len(memory) != ctypes.sizeof(_Table) or memory[:8] != _MAGIC:
            raise DeviceBufferError(f"{segment.DIRECTORY / name} is not a lease table of this version", segment=name)
        yield cls(memory)

    def slot(self, index: int) -> Lease:
        """The lease of a slot, for its holder."""
        return Lease(self._stamps, self._pids, index)

    def beat(self) -> None:
        """Stamp the root's sign of life; its event loop does so every 0.1 s."""
        self._root[0] = monotonic_ns()

    @property
    def root_expires(self) -> float:
        """When the root's sign of life lapses unless it is renewed (s of the monotonic clock)."""
        return self._root[0] / _NS + ROOT_TIMEOUT

    def root_alive(self) -> bool:
        """Whether the root has given a sign of life lately."""
        beat = self._root[0]
        now = monotonic_ns()
        return now - _ROOT_TIMEOUT_NS < beat <= now

    def fresh(self) -> int:
        """The bitmap of the slots whose holders may move devices now; 0 for nobody."""
        if not self.root_alive():
            return 0
        stamps = self._stamps.tolist()
        now = monotonic_ns()
        oldest = now - _TIMEOUT_NS
        slots = 0
        for index, stamp in enumerate(stamps):
            if oldest < stamp <= now:
                slots |= 1 << index
        return slots

    def holders(self) -> list[Holder]:
        """Who holds a lease that counts, by slot."""
        if not self.root_alive():
            return []
        stamps = self._stamps.tolist()
        now = monotonic_ns()
        oldest = now - _TIMEOUT_NS
        return [Holder(index, self._pids[index], stamp) for index, stamp in enumerate(stamps) if oldest < stamp <= now]

    def revoke(self, index: int) -> None:
        """Take a lease away, as from a process that is dead."""
        self._stamps[index] = 0


def _words(view: memoryview, field: Any) -> memoryview:
    return view[field.offset : field.offset + field.size].cast("Q")
