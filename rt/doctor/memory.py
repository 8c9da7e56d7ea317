"""Checks of shared memory: that it is available, and that locks survive a killed owner."""

import ctypes
import mmap
import os
import select
import signal
from typing import TYPE_CHECKING

from rt.doctor.registry import Environment, Result, check, fail, ok
from rt.errors import BufferBusyError, RuntimeBaseException

if TYPE_CHECKING:
    from rt.buffer.mutex import RobustMutex

_DEATH_SECONDS = 5.0
_NO_ROBUST_LOCK = "use a system with glibc and a standard kernel, because rt needs robust mutexes"


@check("shm")
def shm(environment: Environment) -> Result:  # noqa: ARG001 - signature of a check
    """Shared memory can be created, sealed and written."""
    from rt.buffer import segment
    from rt.buffer.arena import SIZE, Arena

    try:
        with Arena("doctor") as arena:
            segment.create(f"{arena.prefix}doctor", mmap.PAGESIZE, _write)
    except RuntimeBaseException as error:
        return fail(
            str(error),
            "use Linux 3.17 or later and raise the memory limits, for memfd_create with seals",
        )
    return ok(f"{SIZE >> 20} MiB of shared memory can be created, sealed and written")


def _write(memory: memoryview) -> None:
    memory[0] = 1


@check("mutex")
def mutex(environment: Environment) -> Result:  # noqa: ARG001 - signature of a check
    """A lock in shared memory is recovered when its owner is killed."""
    from rt.buffer import mutex as locks

    memory = mmap.mmap(-1, mmap.PAGESIZE)
    view = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(view)
    recoveries: list[bool] = []
    try:
        locks.initialize(address)
        _die_holding(locks.RobustMutex(address))
        lock = locks.RobustMutex(address, timeout=1.0, recovered=lambda: recoveries.append(True))
        lock.acquire()
        lock.release()
    except BufferBusyError:
        return fail("a lock whose owner was killed stays locked", _NO_ROBUST_LOCK)
    finally:
        del view
        memory.close()
    if not recoveries:
        return fail("a lock does not report that its owner was killed", _NO_ROBUST_LOCK)
    return ok("a lock whose owner was killed was recovered")


def _die_holding(lock: "RobustMutex") -> None:
    # A fork is safe: this process has one thread, and the child only takes the lock and dies.
    pid = os.fork()
    if pid == 0:
        try:
            lock.acquire()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    death = os.pidfd_open(pid)
    try:
        if not select.select([death], [], [], _DEATH_SECONDS)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(death)
        _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        raise ChildProcessError("the child process could not take the lock")
