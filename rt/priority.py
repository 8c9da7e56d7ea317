"""The scheduling priority of a process.

The processes that stop motors have a high priority, because on a busy machine a normal process may
wait for several milliseconds each time it is woken. They get a lower nice value if permitted, and a
short time slice, which needs no permission: from Linux 6.12 on, a process with a shorter slice is
scheduled earlier (sched_setattr(2), `sched_runtime` of SCHED_OTHER).

If the kernel shares the processor between sessions (autogroup, see sched(7)), the nice value of a
process counts only within its session, and the session has a nice value of its own. A process that
leads a session therefore sets that too.

They also have a short switch interval, so a worker thread that computes delays the event loop by
0.2 ms instead of Python's 5 ms.

Threads and processes that are started later inherit the nice value and the slice. Therefore
processes that run other code reset them.
"""

import contextlib
import ctypes
import os
import struct
import sys
from pathlib import Path
from typing import Final

_NICE: Final = -3
_SAFE_SESSION_NICE: Final = -10
"""Next to busy sessions, a process that is woken hardly waits with -10, but it does with -5."""
_AUTOGROUP: Final = Path("/proc/self/autogroup")
_SLICE_NS: Final = 100_000  # the shortest that the kernel permits
_DEFAULT_SLICE: Final = 0
_SWITCH_INTERVAL: Final = 0.0002
"""How long a thread keeps the GIL (s); the event loop needs it again after each system call."""
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
"""`struct sched_attr`: size, policy, flags, nice, priority, runtime (ns), deadline, period."""


def set_high(*, safe: bool = False) -> bool:
    """Raise the priority of this thread and of those that it starts.

    Args:
        safe: Whether the process disables devices and does little else; then its session gets a
            higher priority.

    Returns:
        Whether the system permitted any of it.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
    _set_session_priority(_SAFE_SESSION_NICE if safe else _NICE)
    return _set(_NICE, _SLICE_NS) or _set(os.getpriority(os.PRIO_PROCESS, 0), _SLICE_NS)


def _set_session_priority(nice: int) -> None:
    """Set the nice value of the session if this process leads it and the system permits it."""
    if os.getsid(0) != os.getpid():
        return
    with contextlib.suppress(OSError):
        _AUTOGROUP.write_text(str(nice))


def set_normal() -> bool:
    """Reset the priority of this thread to normal, unless it is lower.

    Returns:
        Whether the system permitted it.
    """
    return _set(max(0, os.getpriority(os.PRIO_PROCESS, 0)), _DEFAULT_SLICE)


def _set(nice: int, runtime: int) -> bool:
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is None:
        return False
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, runtime, 0, 0)
    result = ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, 0)
    return bool(result == 0)
