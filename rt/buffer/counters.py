"""Counters of a device's buffer: what came by on its line, and how often each parameter did.

Only the device process counts, and a torn read of one number costs nothing: no lock is taken, and
no transaction takes it back.
"""

import ctypes
import functools

from rt.protocol.uid import BaseStructure


class Counters(BaseStructure):
    """What came by on a device's line since its buffer was made."""

    _fields_ = (
        ("frames_received", ctypes.c_uint64),
        ("frames_sent", ctypes.c_uint64),
        ("bad_frames", ctypes.c_uint64),
        ("writes_sent", ctypes.c_uint64),
        ("writes_dropped", ctypes.c_uint64),
        ("updates_dropped", ctypes.c_uint64),
        ("disables", ctypes.c_uint64),
        ("connects", ctypes.c_uint64),
        ("errors_received", ctypes.c_uint64),
    )


@functools.lru_cache(maxsize=1024)
def _ones(bitmap: int) -> int:
    """A 1 in the 64 bits of each parameter of a bitmap."""
    return sum(1 << 64 * id_ for id_ in range(bitmap.bit_length()) if bitmap >> id_ & 1)


def count(counters: memoryview, bitmap: int) -> None:
    """Add 1 to the 64-bit counters of the parameters of a bitmap: all of them as one number, many times faster than each."""
    total = int.from_bytes(counters, "little") + _ones(bitmap)
    size = len(counters)
    if total >> 8 * size:
        total = 0  # team code has overwritten the counters, since they count no 2**64 values
    counters[:] = total.to_bytes(size, "little")
