"""What a device is sent when its lease ends between collecting and sending a write."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio
import trio.testing
from support.device_robot import CATALOG

from rt.buffer import BufferStore, DeviceBuffer
from rt.errors import BufferBusyError
from rt.link.link import StreamLink
from rt.protocol import frames
from rt.protocol.message import DevDisable, DevRead, DevWrite, HbRes, Message
from rt.smartdevice.sender import Sender

MOTOR = 12 << 72 | 7
NEXT = 0x10
"""The fencing token of the next lease."""


class Line(StreamLink):
    """A line that accepts data when the test lets it."""

    def __init__(self) -> None:
        super().__init__(trio.testing.memory_stream_pair()[0], "line")
        self.sent: list[Message] = []
        self._frames = frames.FrameReader()
        self._room = trio.Event()
        self._room.set()

    def hold(self) -> None:
        self._room = trio.Event()

    def release(self) -> None:
        self._room.set()

    async def send(self, data: bytes, /) -> None:
        await self._room.wait()
        self._accept(data)

    def send_nowait(self, data: bytes, /) -> bool:
        if self._room.is_set():
            self._accept(data)
        return self._room.is_set()

    def _accept(self, data: bytes) -> None:
        self.sent += [item for item in self._frames.feed(data) if isinstance(item, Message)]


class TruncatingLine(Line):
    """A line that first takes all of a frame but its delimiter, as a full one does."""

    def send_nowait(self, data: bytes, /) -> bool:
        if not self._truncated:
            self._truncated = True
            self._accept(data[:-1])
        return False

    async def send(self, data: bytes, /) -> None:
        await super().send(frames.DELIMITER + data if self._truncated else data)
        self._truncated = False


class WriteGuard:
    """Allows what the test sets."""

    def __init__(self) -> None:
        self.allowed = 1
        self.drops: list[int] = []

    def note_dropped(self, _port: str, count: int, _tokens: int) -> None:
        self.drops.append(count)


@pytest.fixture
def buffer() -> Iterator[DeviceBuffer]:
    with BufferStore(CATALOG, "", shared=False) as store:
        buffer = store.get_or_open(MOTOR)
        buffer.valid = True
        yield buffer


async def sent_while_lease_ends(
    nursery: trio.Nursery,
    guard: WriteGuard,
    buffer: DeviceBuffer,
    ask: Callable[[], None],
    allowed: int = 0,
) -> list[Message]:
    """Return what is sent of what ``ask`` puts into the buffer, if the lease ends during the send.

    Args:
        allowed: The leases that remain.
    """
    line = Line()
    sender = Sender(line, guard, 0.0)
    sender.buffer = buffer
    nursery.start_soon(sender.run)
    await trio.testing.wait_all_tasks_blocked()
    assert line.sent == [DevDisable()]
    line.hold()
    ask()
    sender.flush()
    await trio.testing.wait_all_tasks_blocked()
    guard.allowed = allowed
    line.release()
    await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
    return line.sent[1:]


async def test_collected_write_is_dropped_when_its_lease_ended(
    nursery: trio.Nursery, buffer: DeviceBuffer
) -> None:
    def ask() -> None:
        buffer.read(["enc_pos"])
        buffer.write("duty_cycle", 0.5)

    guard = WriteGuard()
    (only,) = await sent_while_lease_ends(nursery, guard, buffer, ask)
    assert isinstance(only, DevRead)
    assert guard.drops == [1]
    assert buffer.counters.writes_dropped == 1


async def test_collected_write_survives_end_of_another_lease(
    nursery: trio.Nursery, buffer: DeviceBuffer
) -> None:
    def ask() -> None:
        buffer.read(["enc_pos"])
        buffer.write("duty_cycle", 0.5)
        buffer.token = bytes((NEXT,))
        buffer.write("deadband", 0.125)

    guard = WriteGuard()
    guard.allowed = 1 | 1 << NEXT
    read, write = await sent_while_lease_ends(nursery, guard, buffer, ask, 1 << NEXT)
    assert isinstance(read, DevRead)
    assert isinstance(write, DevWrite)
    assert write.params == 1 << 13
    assert guard.drops == [1]


async def test_write_sent_while_lease_ends_is_followed_by_disable(
    nursery: trio.Nursery, buffer: DeviceBuffer
) -> None:
    first, last = await sent_while_lease_ends(
        nursery, WriteGuard(), buffer, lambda: buffer.write("duty_cycle", 0.5)
    )
    assert isinstance(first, DevWrite)
    assert last == DevDisable()


async def test_truncated_write_is_followed_by_disable_after_lapse(
    nursery: trio.Nursery, buffer: DeviceBuffer
) -> None:
    line, guard = TruncatingLine(), WriteGuard()
    guard.allowed = 1 | 1 << NEXT
    sender = Sender(line, guard, 0.0)
    sender.buffer = buffer
    nursery.start_soon(sender.run)
    await trio.testing.wait_all_tasks_blocked()
    line.sent.clear()
    buffer.write("duty_cycle", 0.5)
    sender.flush()
    guard.allowed = 1 << NEXT  # another lease remains
    await trio.testing.wait_all_tasks_blocked()
    sender.answer_heartbeat(1)
    await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
    assert [type(message) for message in line.sent if not isinstance(message, HbRes)] == [
        DevWrite,
        DevDisable,
    ]


class Turning(WriteGuard):
    """A guard under which another lease begins, and writes at once, after a number of checks."""

    def __init__(self, buffer: DeviceBuffer, allowed: int, after: int) -> None:
        super().__init__()
        self.written = False
        self._buffer = buffer
        self._now = allowed
        self._after = after

    @property
    def allowed(self) -> int:
        answer, self._after = self._now, self._after - 1
        if not self._after:
            self._now |= 1 << NEXT
            with ThreadPoolExecutor(1) as another_process:
                another_process.submit(self.write).result()
        return answer

    @allowed.setter
    def allowed(self, tokens: int) -> None:
        self._now = tokens

    def write(self) -> None:
        """Write as the holder of the next lease, which retries if the buffer is busy."""
        if not self.written:
            with contextlib.suppress(BufferBusyError):
                self._buffer.token = bytes((NEXT,))
                self._buffer.write("duty_cycle", 0.5)
                self.written = True


@pytest.mark.parametrize(("allowed", "after"), [(0, 1), (0, 2), (1, 1), (1, 2)])
async def test_write_of_lease_that_begins_during_check_is_sent(
    nursery: trio.Nursery, buffer: DeviceBuffer, allowed: int, after: int
) -> None:
    line = Line()
    guard = Turning(buffer, allowed, after)
    sender = Sender(line, guard, 0.0)
    sender.buffer = buffer
    nursery.start_soon(sender.run)
    await trio.testing.wait_all_tasks_blocked()
    buffer.write("deadband", 0.125)  # of the earlier lease
    sender.flush()
    await trio.testing.wait_all_tasks_blocked()
    guard.write()
    sender.flush()
    await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
    sent = [message.params for message in line.sent if isinstance(message, DevWrite)]
    assert sum(sent) == 1 << 0 | allowed << 13
    assert guard.drops == ([] if allowed else [1])
