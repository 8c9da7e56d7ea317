"""Buffers that team code has overwritten are found, and nothing that rt itself leaves behind is taken for damage."""

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
from rt.buffer.layout import Header
from rt.buffer.soundness import LOOKS, STUCK_AFTER, Soundness, StuckLock

UID = 12 << 72
_LOCK = Header.mutex.offset
_KEPT: list[DeviceBuffer] = []
"""A lock that was overwritten while it was held stays in glibc's list of the thread's locks, so that its memory has to stay too."""


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[DeviceBuffer, Soundness, Clock]:
    buffer = BufferStore(catalog.load(), "", shared=False).get_or_open(UID)
    buffer.valid = True
    _KEPT.append(buffer)
    clock = Clock()
    return buffer, Soundness(buffer, clock), clock


def poke(buffer: Any, offset: int, *values: int) -> None:
    memory = (ctypes.c_uint8 * type(buffer).size()).from_address(ctypes.addressof(buffer._view))
    for index, value in enumerate(values):
        memory[offset + index] = value


def looked(soundness: Soundness, clock: Clock, seconds: float = 2 * STUCK_AFTER) -> str:
    """What looks over some time say."""
    for _ in range(LOOKS + 1):
        if damage := soundness.damage():
            return damage
        clock.now += seconds / LOOKS
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
def test_overwritten_constant_is_found_at_once(offset: int, value: int | None) -> None:
    buffer, soundness, _ = make()
    assert soundness.damage() == ""
    old = ctypes.c_uint8.from_address(ctypes.addressof(buffer._view) + offset).value
    poke(buffer, offset, old ^ 0xFF if value is None else value)
    assert "overwritten" in soundness.damage()


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
def test_lock_that_cannot_be_released_is_found_after_a_while(offset: int, values: tuple[int, ...]) -> None:
    buffer, soundness, clock = make()
    poke(buffer, offset, *values)
    assert soundness.damage() == ""
    clock.now += 10 * STUCK_AFTER
    for _ in range(LOOKS - 2):
        assert soundness.damage() == ""
    assert soundness.damage() == "its lock is not released"


@pytest.mark.parametrize("offset", range(Header.valid.offset))
def test_overwritten_byte_of_header_or_lock_costs_no_operation_silently(offset: int) -> None:
    """What stays unnoticed harms nothing: the buffer still works."""
    for value in (0, 1, 127, 255):
        buffer, soundness, clock = make()
        if offset >= _LOCK + 40 or Header.generation.offset <= offset < _LOCK or _LOCK + 20 <= offset < _LOCK + 40:
            continue  # never read, or written anew by the next owner of the lock
        poke(buffer, offset, value)
        if not looked(soundness, clock):
            buffer.set("enc_pos", 1.5)
            assert buffer.get("enc_pos") == 1.5


@given(st.lists(st.sampled_from(["set", "lock", "unlock", "write", "fail"]), max_size=30))
def test_use_is_never_taken_for_damage(story: list[str]) -> None:
    buffer, soundness, clock = make()
    depth = 0
    for what in story:
        if what == "set":
            buffer.set("enc_pos", 1.0)
        elif what == "write":
            buffer.write("duty_cycle", 0.5)
        elif what == "fail":
            with pytest.raises(ZeroDivisionError), buffer.transaction():
                buffer.set("enc_vel", 1 / 0)
        elif what == "lock":
            buffer._lock.__enter__()
            depth += 1
        elif depth:
            buffer._lock.__exit__(None, None, None)
            depth -= 1
        if not depth:  # a lock is held for microseconds
            clock.now += STUCK_AFTER / 4
        assert soundness.damage() == ""
    while depth:
        buffer._lock.__exit__(None, None, None)
        depth -= 1
    assert looked(soundness, clock) == ""


def test_lock_that_is_taken_again_and_again_is_not_stuck() -> None:
    chance = random.Random(4)
    clock = Clock()
    lock = StuckLock(lambda: chance.choice([(7, 1, 7, 1, 0), (0, 0, 0, 0, 0)]), clock)
    suspicions = 0
    for _ in range(20_000):
        assert not lock.look()
        suspicions += lock.suspected
        clock.now += 0.02
    assert suspicions > 1000


def test_buffer_that_another_thread_uses_without_a_pause_is_sound() -> None:
    buffer, soundness, clock = make()
    ended = threading.Event()

    def use() -> None:
        while not ended.is_set():
            buffer.get("enc_pos")

    thread = threading.Thread(target=use)
    thread.start()
    try:
        for _ in range(20 * LOOKS):
            assert soundness.damage() == ""
            clock.now += STUCK_AFTER / LOOKS
            time.sleep(0.0005)
    finally:
        ended.set()
        thread.join()


def killed_with_the_lock(prefix: str) -> None:
    """Run a process that opens the buffer by its own mapping, takes the lock and is killed."""
    program = (
        "import os, signal, sys\n"
        "from rt import catalog\n"
        "from rt.buffer import BufferStore\n"
        f"buffer = BufferStore(catalog.load(), {prefix!r}).get_or_open({UID}, create=False)\n"
        "with buffer.transaction():\n"
        "    buffer.set('enc_pos', 3.0)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_lock_of_a_killed_process_is_no_damage() -> None:
    with Arena("test") as arena, BufferStore(catalog.load(), arena.prefix) as store:
        buffer = store.get_or_open(UID)
        buffer.valid = True
        killed_with_the_lock(f"/proc/{os.getpid()}/fd/{arena.fd}/")
        clock = Clock()
        assert looked(Soundness(buffer, clock), clock) == ""
        buffer.set("enc_pos", 1.0)
        assert buffer.recoveries == 1


def test_lock_whose_users_a_killed_process_left_wrong_is_no_damage() -> None:
    """A process was killed after glibc had taken the count of users down, and before the mutex was free: it stays at -1."""
    with Arena("test") as arena, BufferStore(catalog.load(), arena.prefix) as store:
        buffer = store.get_or_open(UID)
        buffer.valid = True
        poke(buffer, _LOCK + mutex.State._fields.index("users") * 4, *[0xFF] * 4)
        clock = Clock()
        assert looked(Soundness(buffer, clock), clock) == ""
        buffer.set("enc_pos", 1.0)
        assert looked(Soundness(buffer, clock), clock) == ""


def test_store_finds_damaged_buffers_and_makes_them_anew() -> None:
    with Arena("test") as arena:
        store, other = (BufferStore(catalog.load(), arena.prefix) for _ in range(2))
        with store, other:
            motor, pad = other.get_or_open(UID), other.get_or_open(("gamepad", 0))
            motor.valid = pad.valid = True
            assert store.damaged() == {}
            poke(motor, Header.magic.offset, 0)
            poke(pad, _LOCK + 16, 0)
            assert store.damaged().keys() == {("polar-bear", UID), ("gamepad", 0)}
            for key in store.damaged():
                store.replace(key)
            assert store.damaged() == {}
            assert not motor.valid
            fresh = store.get_or_open(UID)
            assert (fresh.valid, fresh.damage()) == (False, "")
            fresh.valid = True
            fresh.set("enc_pos", 2.0)
            assert fresh.get("enc_pos") == 2.0


def test_buffer_that_was_damaged_before_it_was_opened_is_found_and_replaced_by_its_owner() -> None:
    with Arena("test") as arena:
        store, other, owner = (BufferStore(catalog.load(), arena.prefix) for _ in range(3))
        with store, other, owner:
            poke(other.get_or_open(UID), _LOCK + 16, 0)
            assert list(store.damaged()) == [("polar-bear", UID)]
            assert owner.get_or_open(UID).damage() == ""
            assert store.damaged() == {}
