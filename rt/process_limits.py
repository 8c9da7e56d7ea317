"""The resource limits of a process: raised for a robot, and named in errors about them."""

import errno
import os
import resource
from pathlib import Path
from typing import Final, NamedTuple

from rt.errors import ConfigError

DESCRIPTORS: Final = 512
"""File descriptors that each process of a robot needs, with those for devices and connections."""
FILE_SIZE: Final = 32 << 20
"""Size of the largest file that a robot needs (bytes): the shared memory, or a log file."""
ADDRESS_SPACE: Final = 512 << 20
"""Address space that each process needs (bytes); an idle one uses half, mostly for stacks."""
PROCESSES: Final = 40
"""Processes and threads that a robot needs."""

_MANY: Final = 4096
"""A process limit from which on the existing processes are not counted."""


class _Limit(NamedTuple):
    """A resource limit: its name, the required value, its flag of ulimit, and that of systemd."""

    number: int
    name: str
    needed: int
    flag: str
    service: str
    unit: str = " KiB"


_LIMITS: Final = (
    _Limit(resource.RLIMIT_NOFILE, "open files", DESCRIPTORS, "n", "LimitNOFILE", unit=""),
    _Limit(resource.RLIMIT_FSIZE, "the size of a file", FILE_SIZE, "f", "LimitFSIZE"),
    _Limit(resource.RLIMIT_AS, "address space", ADDRESS_SPACE, "v", "LimitAS"),
    _Limit(resource.RLIMIT_DATA, "data memory", ADDRESS_SPACE, "d", "LimitDATA"),
)


def raise_limits() -> None:
    """Raise the limits of this process and of its children to what a robot needs.

    Raises:
        ConfigError: The system does not permit it; the message names the limit and the need.
    """
    for limit in _LIMITS:
        soft, hard = resource.getrlimit(limit.number)
        if hard != resource.RLIM_INFINITY and hard < limit.needed:
            raise _too_low(limit, hard)
        if soft != resource.RLIM_INFINITY and soft < limit.needed:
            resource.setrlimit(limit.number, (hard if limit.unit else limit.needed, hard))
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
    if os.geteuid() != 0 and hard != resource.RLIM_INFINITY and hard < _MANY:
        needed = _tasks(os.geteuid()) + PROCESSES
        if hard < needed:
            limit = _Limit(resource.RLIMIT_NPROC, "processes", needed, "u", "LimitNPROC", unit="")
            raise _too_low(limit, hard)


def allow_descriptors(most: int) -> int:
    """Raise the descriptor limit of this process as far as the system permits.

    The usual limit of 1024 is too low for a robot, whose devices, buffers and connections each use
    some.

    Returns:
        The limit now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return most if soft == resource.RLIM_INFINITY else soft


def explain(error: OSError) -> str:
    """Return why a system call failed, with the limit to raise if there is one."""
    reason = error.strerror or str(error)
    match error.errno:
        case errno.EMFILE:
            return f"{reason}; this process may have {_soft(resource.RLIMIT_NOFILE)} (`ulimit -n`)"
        case errno.ENFILE:
            return f"{reason}; the limit of the system is reached (`sysctl fs.file-max`)"
        case errno.EAGAIN:
            return (
                f"{reason}; the limit of processes is {_soft(resource.RLIMIT_NPROC)} (`ulimit -u`)"
            )
        case errno.EFBIG:
            return f"{reason}; raise the limit of file sizes (`ulimit -f`)"
        case errno.ENOMEM:
            return f"{reason}; the memory of the system or of this service is exhausted"
    return reason


def _too_low(limit: _Limit, hard: int) -> ConfigError:
    divisor = 1024 if limit.unit else 1
    allowed, wanted = hard // divisor, -(-limit.needed // divisor)
    return ConfigError(
        f"the limit of {limit.name} is {allowed}{limit.unit}, and a robot needs"
        f" {wanted}{limit.unit}; raise it with `ulimit -H{limit.flag} {wanted}`, or {limit.service}= of a"
        " systemd service",
        limit=allowed,
        needed=wanted,
    )


def _soft(number: int) -> str:
    soft, _ = resource.getrlimit(number)
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)


def _tasks(uid: int) -> int:
    """Return how many processes and threads a user has, from proc_pid_status(5)."""
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                lines = (entry / "status").read_text(errors="replace").splitlines()
            except OSError:  # it has exited
                continue
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
            if fields.get("Uid", "").split()[:1] == [str(uid)]:
                count += int(fields.get("Threads", "1"))
    return count
