"""The priority of a process for the processor, as far as the system lets it be chosen.

The processes that stop motors run before others: with every core busy, an ordinary process may wait
for several milliseconds each time that it is woken. They get a better nice value where that is
permitted, and a short time slice, which needs no permission: from Linux 6.12 on a process with a
shorter slice is scheduled earlier (sched_setattr(2), `sched_runtime` of SCHED_OTHER).

In such a process a worker thread that computes keeps the event loop waiting for a fifth of a
millisecond, instead of Python's 5 ms.

Threads and processes that are started later inherit the nice value and the slice. So the processes
that run other code become ordinary again.
"""

import ctypes
import os
import sys
from typing import Final

_NICE: Final = -3
_SLICE_NS: Final = 100_000  # the shortest that the kernel grants
_DEFAULT_SLICE: Final = 0
_SWITCH_INTERVAL: Final = (
    0.0002  # s; the event loop asks for the interpreter anew after each system call
)
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}


class _Attributes(ctypes.Structure):
    """`struct sched_attr`; source: sched_setattr(2)."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def set_high() -> bool:
    """Let this thread, and those that it starts, run before other processes; whether the system has granted any of it."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    return _set(_NICE, _SLICE_NS) or _set(os.getpriority(os.PRIO_PROCESS, 0), _SLICE_NS)


def set_normal() -> bool:
    """Let this thread, and what it starts, run like any other process, unless it has a lower priority than that already."""
    return _set(max(0, os.getpriority(os.PRIO_PROCESS, 0)), _DEFAULT_SLICE)


def _set(nice: int, runtime: int) -> bool:
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is None:
        return False
    attributes = _Attributes(ctypes.sizeof(_Attributes), os.SCHED_OTHER, 0, nice, 0, runtime, 0, 0)
    result = ctypes.CDLL(None, use_errno=True).syscall(number, 0, ctypes.byref(attributes), 0)
    return bool(result == 0)
