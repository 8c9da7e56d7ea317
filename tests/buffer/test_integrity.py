"""Detection of overwritten buffers, without false alarms from normal use."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt import catalog
from rt.buffer import BufferStore, DeviceBuffer, mutex
from rt.buffer.arena import Arena
from rt.buffer.integrity import CHECKS, STUCK_AFTER, Integrity, StuckLock
from rt.buffer.layout import Header

UID = 12 << 72
_LOCK = Header.mutex.offset
_KEPT: list[DeviceBuffer] = []
"""Keeps memory mapped: an overwritten lock that is held stays in glibc's list of locks."""


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[DeviceBuffer, Integrity, Clock]:
    buffer = BufferStore(catalog.load(), "", shared=False).get_or_open(UID)
    buffer.valid = True
    _KEPT.append(buffer)
    clock = Clock()
    return buffer, Integrity(buffer, clock), clock


def poke(buffer: Any, offset: int, *values: int) -> None:
    memory = (ctypes.c_uint8 * type(buffer).size()).from_address(ctypes.addressof(buffer._view))
    for index, value in enumerate(values):
        memory[offset + index] = value


def check_repeatedly(integrity: Integrity, clock: Clock, seconds: float = 2 * STUCK_AFTER) -> str:
    """Return the damage found by checks over some time."""
    for _ in range(CHECKS + 1):
        if damage := integrity.damage():
            return damage
        clock.now += seconds / CHECKS
    return ""


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (Header.magic.offset, 0),
        (Header.version.offset, 9),
        (Header.size.offset, 1),
        (Header.catalog_hash.offset + 3, None),
        (Header.valid.offset, 7),
        (_LOCK + 16, 0),
        (_LOCK + 17, 1),
    ],
    ids=["magic", "version", "size", "catalog", "valid", "kind", "kind's flags"],
)
def test_overwritten_constant_is_found_by_the_first_check(offset: int, value: int | None) -> None:
    buffer, integrity, _ = make()
    assert integrity.damage() == ""
    old = ctypes.c_uint8.from_address(ctypes.addressof(buffer._view) + offset).value
    poke(buffer, offset, old ^ 0xFF if value is None else value)
    assert "overwritten" in integrity.damage()


@pytest.mark.parametrize(
    ("offset", "values"),
    [
        (_LOCK, (1,)),
        (_LOCK, (0xFF, 0xFF, 0xFF, 0x3F)),
        (_LOCK, (7, 0, 0, 0x80)),
        (_LOCK + 4, (1,)),
        (_LOCK + 8, (0xFE, 0xFF, 0xFF, 0x7F)),
        (Header.depth.offset, (3,)),
    ],
    ids=["owner", "no owner", "owner and waiters", "count", "not recoverable", "transaction"],
)
def test_stuck_lock_is_found_after_several_checks(offset: int, values: tuple[int, ...]) -> None:
    buffer, integrity, clock = make()
    poke(buffer, offset, *values)
    assert integrity.damage() == ""
    clock.now += 10 * STUCK_AFTER
    for _ in range(CHECKS - 2):
        assert integrity.damage() == ""
    assert integrity.damage() == "its lock is not released"


@pytest.mark.parametrize("offset", range(Header.valid.offset))
def test_undetected_overwritten_byte_breaks_no_operation(offset: int) -> None:
    for value in (0, 1, 127, 255):
        buffer, integrity, clock = make()
        if (
            offset >= _LOCK + 40
            or Header.generation.offset <= offset < _LOCK
            or _LOCK + 20 <= offset < _LOCK + 40
        ):
            continue  # never read, or rewritten by the next owner of the lock
        poke(buffer, offset, value)
        if not check_repeatedly(integrity, clock):
            buffer.set("enc_pos", 1.5)
            assert buffer.get("enc_pos") == 1.5


@given(st.lists(st.sampled_from(["set", "lock", "unlock", "write", "fail"]), max_size=30))
def test_normal_use_is_never_damage(steps: list[str]) -> None:
    buffer, integrity, clock = make()
    depth = 0
    for step in steps:
        if step == "set":
            buffer.set("enc_pos", 1.0)
        elif step == "write":
            buffer.write("duty_cycle", 0.5)
        elif step == "fail":
            with pytest.raises(ZeroDivisionError), buffer.transaction():
                buffer.set("enc_vel", 1 / 0)
        elif step == "lock":
            buffer._lock.__enter__()
            depth += 1
        elif depth:
            buffer._lock.__exit__(None, None, None)
            depth -= 1
        if not depth:  # a lock is held for microseconds
            clock.now += STUCK_AFTER / 4
        assert integrity.damage() == ""
    while depth:
        buffer._lock.__exit__(None, None, None)
        depth -= 1
    assert check_repeatedly(integrity, clock) == ""


def test_frequently_taken_lock_is_not_stuck() -> None:
    chance = random.Random(4)
    clock = Clock()
    lock = StuckLock(lambda: chance.choice([(7, 1, 7, 1, 0), (0, 0, 0, 0, 0)]), clock)
    suspicions = 0
    for _ in range(20_000):
        assert not lock.is_stuck()
        suspicions += lock.suspected
        clock.now += 0.02
    assert suspicions > 1000


def test_buffer_in_constant_use_is_not_damaged() -> None:
    buffer, integrity, clock = make()
    ended = threading.Event()

    def use() -> None:
        while not ended.is_set():
            buffer.get("enc_pos")

    thread = threading.Thread(target=use)
    thread.start()
    try:
        for _ in range(20 * CHECKS):
            assert integrity.damage() == ""
            clock.now += STUCK_AFTER / CHECKS
            time.sleep(0.0005)
    finally:
        ended.set()
        thread.join()


def kill_lock_owner(prefix: str) -> None:
    """Run a process that maps the buffer, takes the lock and is killed."""
    program = (
        "import os, signal, sys\n"
        "from rt import catalog\n"
        "from rt.buffer.store import BufferStore\n"
        f"buffer = BufferStore(catalog.load(), {prefix!r}).get_or_open({UID}, create=False)\n"
        "with buffer.transaction():\n"
        "    buffer.set('enc_pos', 3.0)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_lock_of_a_killed_process_is_not_damage() -> None:
    with Arena("test") as arena, BufferStore(catalog.load(), arena.prefix) as store:
        buffer = store.get_or_open(UID)
        buffer.valid = True
        kill_lock_owner(f"/proc/{os.getpid()}/fd/{arena.fd}/")
        clock = Clock()
        assert check_repeatedly(Integrity(buffer, clock), clock) == ""
        buffer.set("enc_pos", 1.0)
        assert buffer.recoveries == 1


def test_wrong_user_count_of_a_killed_process_is_not_damage() -> None:
    """glibc decrements the count of users before it frees the mutex; a kill between leaves -1."""
    with Arena("test") as arena, BufferStore(catalog.load(), arena.prefix) as store:
        buffer = store.get_or_open(UID)
        buffer.valid = True
        poke(buffer, _LOCK + mutex.State._fields.index("users") * 4, *[0xFF] * 4)
        clock = Clock()
        assert check_repeatedly(Integrity(buffer, clock), clock) == ""
        buffer.set("enc_pos", 1.0)
        assert check_repeatedly(Integrity(buffer, clock), clock) == ""


def test_store_finds_and_replaces_damaged_buffers() -> None:
    with Arena("test") as arena:
        store, other = (BufferStore(catalog.load(), arena.prefix) for _ in range(2))
        with store, other:
            motor, pad = other.get_or_open(UID), other.get_or_open(("gamepad", 0))
            motor.valid = pad.valid = True
            assert store.find_damaged() == {}
            poke(motor, Header.magic.offset, 0)
            poke(pad, _LOCK + 16, 0)
            assert store.find_damaged().keys() == {("polar-bear", UID), ("gamepad", 0)}
            for key in store.find_damaged():
                store.replace(key)
            assert store.find_damaged() == {}
            assert not motor.valid
            fresh = store.get_or_open(UID)
            assert (fresh.valid, fresh.damage()) == (False, "")
            fresh.valid = True
            fresh.set("enc_pos", 2.0)
            assert fresh.get("enc_pos") == 2.0


def test_buffer_damaged_before_opening_is_found_and_replaced() -> None:
    with Arena("test") as arena:
        store, other, owner = (BufferStore(catalog.load(), arena.prefix) for _ in range(3))
        with store, other, owner:
            poke(other.get_or_open(UID), _LOCK + 16, 0)
            assert list(store.find_damaged()) == [("polar-bear", UID)]
            assert owner.get_or_open(UID).damage() == ""
            assert store.find_damaged() == {}
