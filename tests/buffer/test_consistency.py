"""Many processes change one buffer at the same time and are killed at random: nobody ever sees half a transaction."""

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

KNOWN = catalog.load()
MOTOR = int(DeviceUID(12, 7, 1))
TELLING = ("enc_pos", "enc_vel", "motor_current")
"""Parameters that every writer gives the same value."""
KILLS = int(os.environ.get("RT_HAMMER_KILLS", "150"))
BROKEN = 3


def opened(prefix: str) -> DeviceBuffer:
    return BufferStore(KNOWN, prefix, lock_timeout=0.01).get_or_open(MOTOR, create=False)


def whole(values: dict[str, float]) -> bool:
    return len({values[name] for name in TELLING}) == 1


class GiveUpError(Exception):
    """A writer changes its mind in the middle."""


def dwell(chance: random.Random) -> None:
    """Take the time between two steps in which a process can be killed, and now and then give up."""
    select.select([], [], [], chance.uniform(0, 0.001))
    if chance.random() < 0.05:
        raise GiveUpError


def change_by_steps(buffer: DeviceBuffer, chance: random.Random) -> None:
    """A transaction of several steps, which now and then gives up in the middle."""
    with contextlib.suppress(GiveUpError), buffer.transaction():
        if not whole(buffer.snapshot()):
            os._exit(BROKEN)
        value = float(chance.randrange(1 << 20))
        for name in TELLING:
            buffer.set(name, value)
            dwell(chance)


def change_by_message(buffer: DeviceBuffer, chance: random.Random) -> None:
    """What the device process does with each DEV_DATA."""
    value = float(chance.randrange(1 << 20))
    buffer.update(DevData(*buffer.peripheral.pack(dict.fromkeys(TELLING, value))))


def change_at_once(buffer: DeviceBuffer, chance: random.Random) -> None:
    buffer.set_all(dict.fromkeys(TELLING, float(chance.randrange(1 << 20))))


def look(buffer: DeviceBuffer, _chance: random.Random) -> None:
    if not whole(buffer.snapshot()):
        os._exit(BROKEN)


def start(prefix: str, work: Callable[[DeviceBuffer, random.Random], None], seed: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    buffer, chance = opened(prefix), random.Random(seed)
    devnull = os.open("/dev/null", os.O_WRONLY)
    os.dup2(devnull, 1)  # each recovery is a line of the log
    while os.getppid() == parent:
        try:
            work(buffer, chance)
        except BufferBusyError:
            continue
        except BaseException:  # noqa: BLE001 - a forked test must not go on as the test runner
            os._exit(BROKEN + 1)
    os._exit(0)


def test_no_reader_sees_half_a_transaction_of_writers_that_are_killed(prefix: str) -> None:
    chance = random.Random(7)
    with BufferStore(KNOWN, prefix, lock_timeout=10.0) as store:
        buffer = store.get_or_open(MOTOR)
        buffer.valid = True
        writers = [change_by_steps, change_by_steps, change_by_message, change_at_once]
        running = {start(prefix, work, seed): work for seed, work in enumerate([*writers, look])}
        try:
            for seed in range(100, 100 + KILLS):
                select.select([], [], [], chance.uniform(0, 0.01))
                pid = chance.choice(list(running))
                os.kill(pid, signal.SIGKILL)
                work = running.pop(pid)
                assert os.waitpid(pid, 0)[1] == signal.SIGKILL, (
                    "it ended by itself: it saw half a transaction"
                )
                running[start(prefix, work, seed)] = work
                assert whole(buffer.snapshot())
        finally:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            codes = [os.waitpid(pid, 0)[1] for pid in running]
        assert set(codes) == {signal.SIGKILL}
        buffer.lock_timeout = 0
        assert whole(buffer.snapshot()), "a lock stayed taken, or what it guards is broken"
        assert buffer.recoveries > 0
