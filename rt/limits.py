"""What a process may have of the system: raised where a robot needs more than the usual, and named where that is not allowed."""

import errno
import os
import resource
from pathlib import Path
from typing import Final, NamedTuple

from rt.errors import ConfigError

DESCRIPTORS: Final = 512
"""File descriptors that each process of a robot needs: 100 of its own, and room for devices and connections."""
FILE_SIZE: Final = 32 << 20
"""Bytes: the shared memory, and a file of the log."""
ADDRESS_SPACE: Final = 512 << 20
"""Bytes of address space that each process needs; an idle one uses half of them, mostly for stacks of threads."""
PROCESSES: Final = 40
"""Processes and threads that a robot needs."""

_MANY: Final = 4096
"""A limit of processes from which on it is not counted how many there are."""


class _Limit(NamedTuple):
    """One limit: which, how a person calls it, what a robot needs, and how it is raised."""

    number: int
    name: str
    needed: int
    divisor: int
    unit: str
    shell: str
    service: str


_LIMITS: Final = (
    _Limit(resource.RLIMIT_NOFILE, "open files", DESCRIPTORS, 1, "", "ulimit -Hn", "LimitNOFILE"),
    _Limit(
        resource.RLIMIT_FSIZE,
        "the size of a file",
        FILE_SIZE,
        1024,
        " KiB",
        "ulimit -Hf",
        "LimitFSIZE",
    ),
    _Limit(
        resource.RLIMIT_AS, "address space", ADDRESS_SPACE, 1024, " KiB", "ulimit -Hv", "LimitAS"
    ),
    _Limit(
        resource.RLIMIT_DATA, "data memory", ADDRESS_SPACE, 1024, " KiB", "ulimit -Hd", "LimitDATA"
    ),
)


def raise_limits() -> None:
    """Raise the limits of this process, and of those that it starts, to what a robot needs.

    Raises:
        ConfigError: The system does not allow that; says which limit it is and how much is needed.
    """
    for limit in _LIMITS:
        soft, hard = resource.getrlimit(limit.number)
        if hard != resource.RLIM_INFINITY and hard < limit.needed:
            raise _too_low(limit, hard, limit.needed)
        if soft != resource.RLIM_INFINITY and soft < limit.needed:
            resource.setrlimit(limit.number, (limit.needed if limit.divisor == 1 else hard, hard))
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
    if os.geteuid() != 0 and hard != resource.RLIM_INFINITY and hard < _MANY:
        needed = _tasks(os.geteuid()) + PROCESSES
        if hard < needed:
            limit = _Limit(
                resource.RLIMIT_NPROC, "processes", needed, 1, "", "ulimit -Hu", "LimitNPROC"
            )
            raise _too_low(limit, hard, needed)


def allow_descriptors(most: int) -> int:
    """Let this process have that many descriptors, or as many as the system allows; returns how many it may have now.

    The usual 1024 are too few for a robot: each device, buffer and connection takes some.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return most if soft == resource.RLIM_INFINITY else soft


def explain(error: OSError) -> str:
    """Why a system call failed, with the limit that is to be raised where it is one."""
    reason = error.strerror or str(error)
    match error.errno:
        case errno.EMFILE:
            return f"{reason}; this process may have {_soft(resource.RLIMIT_NOFILE)} (`ulimit -n`)"
        case errno.ENFILE:
            return f"{reason}; the system has none left (`sysctl fs.file-max`)"
        case errno.EAGAIN:
            return (
                f"{reason}; the limit of processes is {_soft(resource.RLIMIT_NPROC)} (`ulimit -u`)"
            )
        case errno.EFBIG:
            return f"{reason}; raise the limit of file sizes (`ulimit -f`)"
        case errno.ENOMEM:
            return f"{reason}; the system, or the memory limit of this service, has none left"
    return reason


def _too_low(limit: _Limit, hard: int, needed: int) -> ConfigError:
    allowed, wanted = hard // limit.divisor, -(-needed // limit.divisor)
    return ConfigError(
        f"the limit of {limit.name} is {allowed}{limit.unit}, and a robot needs {wanted}{limit.unit}:"
        f" raise it with `{limit.shell} {wanted}`, or {limit.service}= of a systemd service",
        limit=allowed,
        needed=wanted,
    )


def _soft(number: int) -> str:
    soft, _ = resource.getrlimit(number)
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)


def _tasks(uid: int) -> int:
    """How many processes and threads a user has, from proc_pid_status(5)."""
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                lines = (entry / "status").read_text(errors="replace").splitlines()
            except OSError:  # it has ended
                continue
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
            if fields.get("Uid", "").split()[:1] == [str(uid)]:
                count += int(fields.get("Threads", "1"))
    return count
