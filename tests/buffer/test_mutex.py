import ctypes
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rt.buffer import mutex
from rt.buffer.mutex import RobustMutex
from rt.errors import BufferBusyError, DeviceBufferError


@pytest.fixture
def address() -> Iterator[int]:
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    block = (ctypes.c_uint8 * mutex.SIZE).from_buffer(memory)
    mutex.initialize(ctypes.addressof(block))
    yield ctypes.addressof(block)
    del block
    memory.close()


def in_child(work: Callable[[], None]) -> None:
    """Run work in a forked process and then kill it, like a crash."""
    pid = os.fork()
    if pid == 0:
        work()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_owner_may_take_the_lock_again(address: int) -> None:
    lock = RobustMutex(address)
    lock.acquire()
    lock.acquire()
    lock.release()
    lock.release()
    with pytest.raises(DeviceBufferError, match="not held"):
        lock.release()


def test_lock_of_a_killed_owner_is_recovered_once(address: int) -> None:
    recovered: list[bool] = []
    lock = RobustMutex(address, recovered=lambda: recovered.append(True))
    in_child(lock.acquire)
    lock.acquire()
    lock.release()
    assert recovered == [True]
    lock.acquire()
    lock.release()
    assert recovered == [True]


def test_lock_of_an_ended_thread_is_recovered(address: int) -> None:
    # Python reports the end of a thread slightly before the kernel does.
    lock = RobustMutex(address, timeout=10)
    in_thread(lock.acquire)
    lock.acquire()
    lock.release()


def test_wait_for_another_owner_is_bounded(address: int) -> None:
    lock = RobustMutex(address, timeout=0.02)
    lock.acquire()
    outcome: list[float] = []

    def contend() -> None:
        began = time.monotonic()
        with pytest.raises(BufferBusyError, match="20 ms"):
            lock.acquire()
        outcome.append(time.monotonic() - began)

    in_thread(contend)
    lock.release()
    assert outcome[0] >= 0.02


def test_zero_timeout_never_waits(address: int) -> None:
    lock = RobustMutex(address, timeout=0)
    lock.acquire()
    outcome: list[object] = []

    def contend() -> None:
        outcome.append(lock.try_acquire())
        with pytest.raises(BufferBusyError):
            lock.acquire()

    in_thread(contend)
    lock.release()
    assert outcome == [False]


def test_waiter_gets_the_released_lock(address: int) -> None:
    lock = RobustMutex(address, timeout=10)
    lock.acquire()
    got = threading.Event()

    def wait() -> None:
        lock.acquire()
        got.set()
        lock.release()

    thread = threading.Thread(target=wait)
    thread.start()
    lock.release()
    assert got.wait(10)
    thread.join()


def test_memory_without_a_mutex_is_an_error() -> None:
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    block = (ctypes.c_uint8 * mutex.SIZE).from_buffer(memory)
    ctypes.memset(ctypes.addressof(block), 0xFF, mutex.SIZE)
    with pytest.raises(DeviceBufferError):
        RobustMutex(ctypes.addressof(block), timeout=0.01).acquire()
    del block
    memory.close()
