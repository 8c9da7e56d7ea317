"""Overwritten shared memory: every operation returns, or raises `DeviceBufferError`."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt import catalog
from rt.buffer import BufferStore, DeviceBuffer, LeaseTable, arena, lease, segment
from rt.buffer.arena import Arena
from rt.buffer.integrity import CHECKS, STUCK_AFTER, StuckLock
from rt.buffer.lease import Bar, Holder
from rt.buffer.wakeup import SLOTS
from rt.errors import DeviceBufferError
from rt.protocol.message import DevData, DevWrite, SubRes
from rt.smartdevice.write_guard import SafetyGuard

UID = 12 << 72
FILLS = [b"\xff", b"\0", b"\x7f", b"\x01"]


class Memory:
    """A root's view of shared memory with a lease table and a device's buffer."""

    def __init__(self, shared: Arena) -> None:
        self.arena = shared
        self.stack = contextlib.ExitStack()
        self.table = self.stack.enter_context(LeaseTable.open(shared.prefix))
        self.store = self.stack.enter_context(BufferStore(catalog.load(), shared.prefix))
        self.buffer: DeviceBuffer = self.store.get_or_open(UID)
        self.buffer.valid = True

    def operations(self) -> Iterator[Callable[[], object]]:
        """Yield the operations of the root and the device process."""
        table, buffer, mapping = self.table, self.buffer, self.arena.mapping
        guard = SafetyGuard(table, lambda _ended, _disabled: None)
        yield from (
            table.session_counts,
            table.root_alive,
            table.fresh_tokens,
            table.holders,
            table.remaining,
            table.current,
        )
        yield from (
            lambda: table.held,
            table.is_intact,
            guard.check,
            lambda: guard.note_dropped("port", 1, lease.ALL_TOKENS),
        )
        for index in range(SLOTS):
            yield from (
                lambda index=index: table.bar_of(index),
                lambda index=index: table.cause_of(index),
                lambda index=index: table.is_over(table.session_id(index)),
                lambda index=index: table.lapse(
                    Holder(index, table.serials[index], table.pids[index])
                ),
                lambda index=index: table.revoke_slot(index, Bar.DRIVER),
                lambda index=index: table.bar(index, Bar.IDLE),
                lambda index=index: table.unbar(index),
                lambda index=index: table.end_session(index),
                lambda index=index: table.lease(index).begin(),
                lambda index=index: table.lease(index).renew(),
            )
        yield from (table.heartbeat, table.revoke_all, lambda: table.bar_all(Bar.DAMAGED))
        yield from (
            mapping.names,
            mapping.is_intact,
            lambda: mapping.attach("lease"),
            self.store.existing,
        )
        yield from (
            self.store.devices,
            lambda: segment.create(f"{self.arena.prefix}new", 64, lambda _memory: None),
        )
        yield from (
            lambda: segment.unlink(f"{self.arena.prefix}lease"),
            lambda: mapping.attach("lease"),
        )
        yield from (
            lambda: buffer.valid,
            lambda: buffer.uid,
            lambda: buffer.subscription,
            lambda: buffer.interval,
        )
        yield from (
            lambda: buffer.age,
            lambda: buffer.dirty,
            lambda: buffer.received,
            lambda: buffer.sent,
            lambda: repr(buffer),
        )
        yield from (
            buffer.make_sub_res,
            buffer.discard_writes,
            buffer.take_dev_rw,
            buffer.emit_dev_data,
        )
        yield from (
            buffer.emit_subscription,
            buffer.get_update,
            buffer.snapshot,
            buffer.get_read,
            buffer.get_write,
        )
        yield lambda: buffer.update(DevData(1, bytes(4)))
        yield lambda: buffer.update(SubRes(1, 40, UID))
        yield lambda: buffer.write("duty_cycle", 0.5)
        yield lambda: buffer.count_sent(DevWrite(0b11, bytes(8)))
        yield lambda: setattr(buffer, "valid", False)
        yield buffer.invalidate_without_lock

    def use(self) -> None:
        for operation in self.operations():
            with contextlib.suppress(DeviceBufferError):
                operation()


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Arena("overwritten") as shared:
        memory = Memory(shared)
        with memory.stack:
            yield memory


@pytest.mark.parametrize("fill", FILLS)
def test_operations_survive_an_overwritten_arena(memory: Memory, fill: bytes) -> None:
    memory.arena.mapping[:] = fill * arena.SIZE
    assert not memory.table.is_intact()
    memory.use()


@pytest.mark.parametrize("fill", FILLS)
def test_operations_survive_overwritten_buffers(memory: Memory, fill: bytes) -> None:
    mapping, start = memory.arena.mapping, arena._FIRST
    mapping[start:] = fill * (arena.SIZE - start)
    memory.use()


@pytest.mark.parametrize("fill", FILLS)
def test_operations_survive_each_overwritten_word_of_the_lease_table(
    memory: Memory, fill: bytes
) -> None:
    for name, *_ in lease._Table._fields_:
        view = segment.attach(f"{memory.arena.prefix}lease")
        part = getattr(lease._Table, name)
        kept = bytes(view)
        view[part.offset : part.offset + part.size] = fill * part.size
        for operation in memory.operations():
            with contextlib.suppress(DeviceBufferError):
                operation()
            view[part.offset : part.offset + part.size] = fill * part.size
        view[:] = kept
        # `operations` ends by removing the table.
        if "lease" not in memory.arena.mapping.names():
            memory.stack.close()
            memory.table = memory.stack.enter_context(LeaseTable.open(memory.arena.prefix))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["size", "used", "count"]),
            st.integers(0, (1 << 64) - 1) | st.sampled_from([0, 63, arena.SIZE, arena.CAPACITY]),
        ),
        max_size=4,
    ),
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.binary(max_size=20),
            st.integers(0, (1 << 64) - 1),
            st.integers(0, 1 << 25),
        ),
        max_size=4,
    ),
)
def test_operations_survive_an_overwritten_directory(
    words: list[tuple[str, int]], entries: list[tuple[int, bytes, int, int]]
) -> None:
    with Arena("overwritten") as shared:
        memory = Memory(shared)
        with memory.stack:
            directory = arena._Directory.from_buffer(shared.mapping)
            for name, value in words:
                setattr(directory, name, value)
            for index, label, offset, size in entries:
                entry = directory.entries[index]
                entry.name, entry.offset, entry.size = label, offset, size
            for name in ("lease", "new", *shared.mapping.names()):
                with contextlib.suppress(DeviceBufferError):
                    shared.mapping.attach(name)
            memory.use()


@pytest.mark.parametrize("bar", [max(Bar) + 1, 255, 1 << 32, (1 << 64) - 1])
def test_unknown_bar_means_damage(memory: Memory, bar: int) -> None:
    assert memory.table.is_intact()
    memory.table.bars[3] = bar
    assert memory.table.bar_of(3) is Bar.DAMAGED
    assert not memory.table.is_intact()
    memory.table.unbar(3)
    assert not memory.table.lease(3).begin()


@pytest.mark.parametrize("name", ["bars", "causes", "revoked", "sessions", "root", "magic"])
def test_change_of_a_word_of_the_root_is_detected(memory: Memory, name: str) -> None:
    table = memory.table
    table.heartbeat()
    table.bar(2, Bar.DRIVER)
    table.revoke_slot(4, Bar.DRIVER)
    table.end_session(9)
    assert table.is_intact()
    segment.attach(f"{memory.arena.prefix}lease")[getattr(lease._Table, name).offset] ^= 0x10
    assert not table.is_intact()


@pytest.mark.parametrize("value", [0, 1, 0xFF])
def test_change_of_the_directory_locks_kind_is_detected(memory: Memory, value: int) -> None:
    mapping = memory.arena.mapping
    kind = arena._Directory.mutex.offset + 16
    before = mapping[kind : kind + 4]
    assert mapping.is_intact()
    mapping[kind : kind + 4] = bytes([value]) * 4
    assert not mapping.is_intact()
    mapping[kind : kind + 4] = before
    assert mapping.is_intact()


def test_stuck_directory_lock_is_detected(memory: Memory) -> None:
    mapping = memory.arena.mapping
    now = 5.0
    lock = StuckLock(mapping.lock_state, lambda: now)
    assert not lock.is_stuck()
    mapping[arena._Directory.mutex.offset] = 77
    for _ in range(CHECKS):
        assert not lock.is_stuck()
    now += STUCK_AFTER
    assert lock.is_stuck()
    mapping[arena._Directory.mutex.offset] = 0
    assert not lock.is_stuck()


def test_overwritten_orders_are_detected(memory: Memory) -> None:
    orders = bytearray(lease.ORDERS_SIZE)
    with LeaseTable.open(memory.arena.prefix, orders=memoryview(orders)) as table:
        table.bar_all(Bar.IDLE)
        for index in range(SLOTS):
            table.end_session(index)
        table.heartbeat()
        assert table.is_intact()
        orders[lease._Orders.bars.offset] = 0
        assert not table.is_intact()


def test_holders_leave_the_table_intact(memory: Memory) -> None:
    for index in range(SLOTS):
        slot = memory.table.lease(index)
        assert slot.begin()
        assert slot.renew()
        slot.release()
    memory.table.lapse(Holder(3, memory.table.serials[3], memory.table.pids[3]))
    assert memory.table.is_intact()
    assert memory.arena.mapping.is_intact()


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, 64),
        (arena._FIRST - 64, 128),
        (arena._FIRST + 1, 64),
        (arena.SIZE - 64, 65),
        (1 << 63, 1),
        (arena._FIRST, 1 << 63),
    ],
)
def test_entry_outside_of_the_arena_is_an_error(memory: Memory, offset: int, size: int) -> None:
    entry = arena._Directory.from_buffer(memory.arena.mapping).entries[0]
    entry.offset, entry.size = offset, size
    with pytest.raises(DeviceBufferError, match="was overwritten"):
        memory.arena.mapping.attach("lease")
