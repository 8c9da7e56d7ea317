"""Checks of shared memory: that there is some, and that its lock survives the death of the one who holds it."""

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
_NO_ROBUST_LOCK = "rt needs a kernel and a C library with robust mutexes; use a glibc system with a standard kernel"


@check("shm")
def shm(environment: Environment) -> Result:  # noqa: ARG001 - every check is given the scene
    """Shared memory can be made, sealed and written."""
    from rt.buffer import segment
    from rt.buffer.arena import SIZE, Arena

    try:
        with Arena("doctor") as arena:
            segment.create(f"{arena.prefix}doctor", mmap.PAGESIZE, _write)
    except RuntimeBaseException as error:
        return fail(
            str(error),
            "rt needs memfd_create with seals: Linux 3.17 or later, and limits that allow it",
        )
    return ok(f"{SIZE >> 20} MiB of shared memory can be made, sealed and written")


def _write(memory: memoryview) -> None:
    memory[0] = 1


@check("mutex")
def mutex(environment: Environment) -> Result:  # noqa: ARG001 - every check is given the scene
    """A lock in shared memory is given back when its owner is killed."""
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
        return fail("a lock whose owner was killed does not tell so", _NO_ROBUST_LOCK)
    return ok("a lock whose owner was killed was taken over")


def _die_holding(lock: "RobustMutex") -> None:
    # A fork is safe here: this process has one thread, and its child does nothing but take the lock
    # and die.
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
        raise ChildProcessError("the process that was to die with the lock could not take it")
