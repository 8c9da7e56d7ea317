"""Checks of shared memory: that there is some, and that its lock survives the death of the one who holds it."""

import ctypes
import mmap
import os
import select
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rt.doctor.registry import Result, Scene, check, fail, ok, warn
from rt.errors import BufferBusyError

if TYPE_CHECKING:
    from rt.buffer.mutex import RobustMutex

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory stands on Linux, no temporary file
_ENOUGH_BYTES = 16 << 20
_DEATH_SECONDS = 5.0
_NO_ROBUST_LOCK = "rt needs a kernel and a C library with robust mutexes; use a glibc system with a standard kernel"


@check("shm")
def shm(scene: Scene) -> Result:  # noqa: ARG001 - every check is given the scene
    """Shared memory can be made, mapped and written."""
    try:
        with tempfile.TemporaryFile(dir=SHARED_MEMORY, prefix="rt-doctor-") as file:
            file.truncate(mmap.PAGESIZE)
            with mmap.mmap(file.fileno(), mmap.PAGESIZE) as memory:
                memory[0] = 1
    except OSError as error:
        return fail(
            f"{SHARED_MEMORY} cannot be used: {error.strerror}",
            f"mount it: sudo mount -t tmpfs -o mode=1777 tmpfs {SHARED_MEMORY}",
        )
    space = os.statvfs(SHARED_MEMORY)
    free = space.f_bavail * space.f_frsize
    fact = f"{SHARED_MEMORY} can be written and has {free >> 20} MiB free"
    if free < _ENOUGH_BYTES:
        return warn(fact, f"make room: ls -l {SHARED_MEMORY} shows what is there, and what nobody uses can be removed")
    return ok(fact)


@check("mutex")
def mutex(scene: Scene) -> Result:  # noqa: ARG001 - every check is given the scene
    """A lock in shared memory is given back when its owner is killed."""
    from rt.buffer import mutex as locks

    with tempfile.TemporaryFile(dir=SHARED_MEMORY, prefix="rt-doctor-") as file:
        file.truncate(mmap.PAGESIZE)
        memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)
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
    # A fork is safe here: this process has one thread, and its child does nothing but take the lock and die.
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
