"""Atomicity of transactions while many writers are killed at random times."""

import contextlib
import os
import random
import select
import signal
from collections.abc import Callable

from rt import catalog
from rt.buffer import BufferStore, DeviceBuffer
from rt.errors import BufferBusyError
from rt.protocol.message import DevData
from rt.protocol.uid import DeviceUID

CATALOG = catalog.load()
MOTOR = int(DeviceUID(12, 7, 1))
EQUAL = ("enc_pos", "enc_vel", "motor_current")
"""Parameters to which every writer writes the same value."""
KILLS = int(os.environ.get("RT_HAMMER_KILLS", "150"))
BROKEN = 3


def opened(prefix: str) -> DeviceBuffer:
    return BufferStore(CATALOG, prefix, lock_timeout=0.01).get_or_open(MOTOR, create=False)


def is_consistent(values: dict[str, float]) -> bool:
    return len({values[name] for name in EQUAL}) == 1


class AbortError(Exception):
    """A writer aborts its transaction."""


def dwell(chance: random.Random) -> None:
    """Pause between two steps, so that the process can be killed; sometimes abort."""
    select.select([], [], [], chance.uniform(0, 0.001))
    if chance.random() < 0.05:
        raise AbortError


def change_by_steps(buffer: DeviceBuffer, chance: random.Random) -> None:
    """Run a transaction of several steps, which sometimes aborts."""
    with contextlib.suppress(AbortError), buffer.transaction():
        if not is_consistent(buffer.snapshot()):
            os._exit(BROKEN)
        value = float(chance.randrange(1 << 20))
        for name in EQUAL:
            buffer.set(name, value)
            dwell(chance)


def change_by_message(buffer: DeviceBuffer, chance: random.Random) -> None:
    """Store a DEV_DATA, like the device process."""
    value = float(chance.randrange(1 << 20))
    buffer.update(DevData(*buffer.peripheral.pack(dict.fromkeys(EQUAL, value))))


def change_at_once(buffer: DeviceBuffer, chance: random.Random) -> None:
    buffer.set_all(dict.fromkeys(EQUAL, float(chance.randrange(1 << 20))))


def check(buffer: DeviceBuffer, _chance: random.Random) -> None:
    if not is_consistent(buffer.snapshot()):
        os._exit(BROKEN)


def start(prefix: str, work: Callable[[DeviceBuffer, random.Random], None], seed: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    buffer, chance = opened(prefix), random.Random(seed)
    devnull = os.open("/dev/null", os.O_WRONLY)
    os.dup2(devnull, 1)  # each recovery is logged
    while os.getppid() == parent:
        try:
            work(buffer, chance)
        except BufferBusyError:
            continue
        except BaseException:  # noqa: BLE001 - a fork must not continue as the test runner
            os._exit(BROKEN + 1)
    os._exit(0)


def test_readers_never_see_part_of_a_killed_transaction(prefix: str) -> None:
    chance = random.Random(7)
    with BufferStore(CATALOG, prefix, lock_timeout=10.0) as store:
        buffer = store.get_or_open(MOTOR)
        buffer.valid = True
        writers = [change_by_steps, change_by_steps, change_by_message, change_at_once]
        running = {start(prefix, work, seed): work for seed, work in enumerate([*writers, check])}
        try:
            for seed in range(100, 100 + KILLS):
                select.select([], [], [], chance.uniform(0, 0.01))
                pid = chance.choice(list(running))
                os.kill(pid, signal.SIGKILL)
                work = running.pop(pid)
                assert os.waitpid(pid, 0)[1] == signal.SIGKILL, (
                    "the process exited: it saw part of a transaction"
                )
                running[start(prefix, work, seed)] = work
                assert is_consistent(buffer.snapshot())
        finally:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            codes = [os.waitpid(pid, 0)[1] for pid in running]
        assert set(codes) == {signal.SIGKILL}
        buffer.lock_timeout = 0
        assert is_consistent(buffer.snapshot()), "a lock stayed taken, or its data is inconsistent"
        assert buffer.recoveries > 0
