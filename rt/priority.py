"""The priority of a process for the processor, as far as the system lets it be chosen.

The processes that stop motors run before others: with every core busy, an ordinary process may wait for several milliseconds each
time that it is woken. They get a better nice value where that is permitted, and a short time slice, which needs no permission:
from Linux 6.12 on a process with a shorter slice is scheduled earlier (sched_setattr(2), `sched_runtime` of SCHED_OTHER).

Where the kernel shares the processor between sessions (autogroup, see sched(7)), the nice value of a process counts only within its
session, and the session has one too. So the safe processes, each of which leads a session, lift theirs.

In such a process a worker thread that computes keeps the event loop waiting for a fifth of a millisecond, instead of Python's 5 ms.

Threads and processes that are started later inherit the nice value and the slice. So the processes that run other code become ordinary again.
"""

import contextlib
import ctypes
import os
import sys
from pathlib import Path
from typing import Final

_NICE: Final = -3
_SAFE_SESSION_NICE: Final = -10  # with it a process that is woken hardly waits next to busy sessions; with -5 it does
_AUTOGROUP: Final = Path("/proc/self/autogroup")
_SLICE_NS: Final = 100_000  # the shortest that the kernel grants
_DEFAULT_SLICE: Final = 0
_SWITCH_INTERVAL: Final = 0.0002  # s; the event loop asks for the interpreter anew after each system call
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


def run_first(*, safe: bool = False) -> bool:
    """Let this thread, and those that it starts, run before other processes; whether the system has granted any of it.

    Args:
        safe: Whether this is a process that disables devices and does little else: its session runs before others too.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
    _lift_session(_SAFE_SESSION_NICE if safe else _NICE)
    return _set(_NICE, _SLICE_NS) or _set(os.getpriority(os.PRIO_PROCESS, 0), _SLICE_NS)


def _lift_session(nice: int) -> None:
    """Set the nice value of the session that this process leads; nothing where it leads none, or where that is not permitted."""
    if os.getsid(0) != os.getpid():
        return
    with contextlib.suppress(OSError):
        _AUTOGROUP.write_text(str(nice))


def run_ordinarily() -> bool:
    """Let this thread, and what it starts, run like any other process, unless it has a lower priority than that already."""
    return _set(max(0, os.getpriority(os.PRIO_PROCESS, 0)), _DEFAULT_SLICE)


def _set(nice: int, runtime: int) -> bool:
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is None:
        return False
    attributes = _Attributes(ctypes.sizeof(_Attributes), os.SCHED_OTHER, 0, nice, 0, runtime, 0, 0)
    result = ctypes.CDLL(None, use_errno=True).syscall(number, 0, ctypes.byref(attributes), 0)
    return bool(result == 0)
