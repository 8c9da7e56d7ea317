"""The device side of a robot, for tests: buffers, leases, write event, and boards to plug in."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing
from support.leases import keep

from rt import catalog
from rt.buffer import BufferStore, DeviceBuffer, Lease, LeaseTable
from rt.buffer.write_event import WriteEvent
from rt.emulator.lines import EmulatedDevice, run_emulated
from rt.link.link import StreamLink
from rt.link.tcp import SocketLink
from rt.protocol.message import DevWrite, Message
from rt.smartdevice.manager import SmartDeviceManager

CATALOG = catalog.load()
PATIENCE = 30.0


@dataclass
class Board:
    """An emulated device, and every message that it received."""

    device: EmulatedDevice
    received: list[Message] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)

    def record(self, message: Message) -> None:
        self.received.append(message)
        self.changed.set()

    async def receives(
        self, wanted: Callable[[Message], bool] | type, count: int = 1
    ) -> list[Message]:
        """Wait until it has received a number of messages that match."""

        def fits(message: Message) -> bool:
            return isinstance(message, wanted) if isinstance(wanted, type) else wanted(message)

        with trio.fail_after(PATIENCE):
            while len(found := [message for message in self.received if fits(message)]) < count:
                self.changed = trio.Event()
                await self.changed.wait()
        return found


def make_board(name: str, number: int = 7, values: dict[str, Any] | None = None) -> Board:
    peripheral = CATALOG[name]
    assert peripheral.device_id is not None
    board = Board(EmulatedDevice(peripheral, peripheral.device_id << 72 | number, values))
    board.device.on_message = board.record
    return board


@dataclass
class Robot:
    """The device side of a robot, and the lease of its commander."""

    manager: SmartDeviceManager
    buffers: BufferStore
    leases: LeaseTable
    lease: Lease
    write_event: WriteEvent
    nursery: trio.Nursery

    def hold_lease(self) -> None:
        if keep(self.lease):
            self.write_event.signal()

    def drop_lease(self) -> None:
        if self.lease.release():
            self.write_event.signal()

    async def keep_lease(self) -> None:
        while True:
            self.hold_lease()
            await trio.sleep(0.02)

    async def written(self, board: Board, **values: Any) -> None:
        """Write repeatedly until the board receives a write.

        Writes without a lease are dropped, and a busy machine may let the lease expire.
        """
        buffer = self.buffer_of(board)
        with trio.fail_after(PATIENCE):
            while not any(isinstance(message, DevWrite) for message in board.received):
                for name, value in values.items():
                    buffer.write(name, value)
                with trio.move_on_after(0.1):
                    board.changed = trio.Event()
                    await board.changed.wait()

    async def plug(self, board: Board, name: str = "line") -> Callable[[], Any]:
        """Connect a board over memory; return the async function that unplugs it."""
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.manager._run_and_log, StreamLink(ours, name))
        self.nursery.start_soon(run_emulated, board.device, StreamLink(theirs, "board"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        return theirs.aclose

    async def listen(self) -> int:
        """Accept virtual devices; return the port."""
        (listener,) = await self.nursery.start(
            self.manager.open_virtual_devices, "tcp://127.0.0.1:0"
        )
        port: int = listener.socket.getsockname()[1]
        return port

    async def plug_tcp(self, board: Board, port: int) -> Callable[[], Any]:
        """Connect a board over TCP; return the async function that unplugs it."""
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        board.device.reset()

        async def run() -> None:
            async with stream:
                await run_emulated(board.device, SocketLink(stream, "board"))

        self.nursery.start_soon(run)
        return stream.aclose

    def buffer_of(self, board: Board) -> DeviceBuffer:
        return self.buffers.get_or_open(board.device.uid)


async def keep_beating(leases: LeaseTable) -> None:
    """Renew the root's heartbeat."""
    while True:
        leases.heartbeat()
        await trio.sleep(0.02)


@contextlib.asynccontextmanager
async def open_robot(prefix: str) -> AsyncIterator[Robot]:
    write_event = WriteEvent()
    with contextlib.ExitStack() as stack:
        stack.callback(write_event.close)
        leases = stack.enter_context(LeaseTable.open(prefix))
        buffers = stack.enter_context(BufferStore(CATALOG, prefix, write_event=write_event))
        manager = SmartDeviceManager(buffers, leases, write_event, names={"left": 12 << 72 | 7})
        async with trio.open_nursery() as nursery:
            leases.heartbeat()
            nursery.start_soon(keep_beating, leases)
            await nursery.start(manager.run)
            yield Robot(manager, buffers, leases, leases.lease(0), write_event, nursery)
            nursery.cancel_scope.cancel()
