"""Visitors of a robot: a seat and the robot's eventfds for as long as they stay."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from support.leases import keep
from trio.testing import MockClock

from rt.buffer import LeaseTable
from rt.buffer.arena import Arena
from rt.buffer.lease import Bar
from rt.buffer.session import SOCKET_NAME, Registrar, open_session, read
from rt.buffer.wakeup import FIRST_SESSION_SLOT, ROOT_SLOT, SLOTS, Wakeups
from rt.buffer.write_event import WriteEvent
from rt.errors import DeviceBufferError

STRANGER = """
import sys, time, trio
from pathlib import Path
from rt.buffer.lease import LeaseTable
from rt.buffer.session import open_session

async def main():
    async with open_session(Path(sys.argv[1])) as visitor:
        with LeaseTable.open(visitor.prefix, create=False) as table:
            table.lease(visitor.slot).begin()
            visitor.doorbell.signal()
            await trio.sleep_forever()

trio.run(main)
"""


def start_stranger(directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", STRANGER, directory])


class Root:
    """What a root has for visitors."""

    def __init__(self, directory: Path) -> None:
        self.write_event = WriteEvent()
        self.wakeups = Wakeups(slot=ROOT_SLOT)
        self.directory = directory
        self.registrar: Registrar


@asynccontextmanager
async def receiving(arena: Arena, directory: Path) -> AsyncIterator[tuple[Root, LeaseTable]]:
    root = Root(directory)
    with LeaseTable.open(arena.prefix) as leases:
        leases.heartbeat()
        try:
            async with trio.open_nursery() as nursery:
                root.registrar = Registrar(directory, arena, root.write_event, root.wakeups, leases)
                await nursery.start(root.registrar.run)
                yield root, leases
                nursery.cancel_scope.cancel()
        finally:
            root.write_event.close()
            root.wakeups.close()


async def test_without_a_brake_no_visitor_moves_devices(arena: Arena, tmp_path: Path) -> None:
    async with receiving(arena, tmp_path) as (root, leases), open_session(tmp_path) as early:
        lease = leases.lease(early.slot)
        assert lease.begin()
        root.registrar.bar(Bar.BRAKE)
        assert not lease.renew()
        assert not lease.begin()
        assert lease.cause is lease.bar is Bar.BRAKE
        async with open_session(tmp_path) as late:
            assert not leases.lease(late.slot).begin()
            root.registrar.bar(Bar.NONE)
            assert not lease.renew(), "it has to begin another"
            assert lease.begin()
            assert leases.lease(late.slot).begin()
        assert leases.bar_of(FIRST_SESSION_SLOT + 2) is not Bar.BRAKE


async def test_a_visitor_has_a_seat_of_its_own_and_the_robots_bells(
    arena: Arena, tmp_path: Path
) -> None:
    async with (
        receiving(arena, tmp_path) as (root, _),
        open_session(tmp_path) as first,
        open_session(tmp_path) as second,
    ):
        assert (first.slot, second.slot) == (FIRST_SESSION_SLOT, FIRST_SESSION_SLOT + 1)
        first.write_event.signal()
        assert root.write_event.clear()
        root.wakeups.signal(1 << second.slot)
        with trio.fail_after(30):
            await second.wakeups.wait()


async def test_a_visitor_that_is_killed_loses_its_lease_and_the_bell_rings(
    arena: Arena, tmp_path: Path
) -> None:
    async with receiving(arena, tmp_path) as (root, leases):
        with start_stranger(tmp_path) as process:
            with trio.fail_after(30):
                await root.write_event.wait()
            assert leases.lease(FIRST_SESSION_SLOT).release()
            keep(leases.lease(FIRST_SESSION_SLOT))
            os.kill(process.pid, signal.SIGKILL)
            with trio.fail_after(30):
                await root.write_event.wait()
            assert not leases.fresh_tokens()


async def test_when_all_seats_are_taken_a_visitor_is_told_so(arena: Arena, tmp_path: Path) -> None:
    async with receiving(arena, tmp_path), AsyncExitStack() as stack:
        for _ in range(FIRST_SESSION_SLOT, SLOTS):
            await stack.enter_async_context(open_session(tmp_path))
        with pytest.raises(DeviceBufferError, match="end one of them"):
            async with open_session(tmp_path):
                pass
        await stack.aclose()
        with trio.fail_after(30):
            while not await can_open_session(tmp_path):  # noqa: ASYNC110 - the desk sees that they have left
                await trio.sleep(0.001)


async def can_open_session(directory: Path) -> bool:
    try:
        async with open_session(directory):
            return True
    except DeviceBufferError:
        return False


async def test_a_root_that_is_stopped_is_not_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / SOCKET_NAME))
        listener.listen()
        with pytest.raises(DeviceBufferError, match="did not answer within 5 s"):
            async with open_session(tmp_path):
                pass


async def test_without_a_desk_a_visitor_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(DeviceBufferError, match="receives no visitors"):
        async with open_session(tmp_path):
            pass


async def test_reader_gets_the_memory_and_no_seat(arena: Arena, tmp_path: Path) -> None:
    async with receiving(arena, tmp_path) as (_, leases), AsyncExitStack() as stack:
        for _ in range(FIRST_SESSION_SLOT, SLOTS):
            await stack.enter_async_context(open_session(tmp_path))
        session_counts = leases.session_counts()
        async with read(tmp_path) as prefix:
            with LeaseTable.open(prefix, create=False) as table:
                assert table.root_alive()
        assert leases.session_counts() == session_counts, "it was no open_session"


@pytest.mark.parametrize("message", [b"", b"\xc1", b"\x80" * 100])
async def test_desk_survives_a_peer_that_talks_nonsense(
    arena: Arena, tmp_path: Path, message: bytes
) -> None:
    async with receiving(arena, tmp_path):
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer, trio.fail_after(30):
            await peer.connect(str(tmp_path / SOCKET_NAME))
            await peer.send(message)
            assert await peer.recv(1) == b"", "it is refused"
        assert await can_open_session(tmp_path)


async def test_removed_desk_is_made_again_and_visits_go_on(arena: Arena, tmp_path: Path) -> None:
    root = Root(tmp_path)
    with LeaseTable.open(arena.prefix) as leases:
        leases.heartbeat()
        registrar = Registrar(tmp_path, arena, root.write_event, root.wakeups, leases)
        async with trio.open_nursery() as nursery:
            await nursery.start(registrar.run)
            async with open_session(tmp_path) as session:
                assert not registrar.rebind()
                (tmp_path / SOCKET_NAME).unlink()
                assert registrar.rebind()
                assert not registrar.rebind()
                assert leases.session_counts()[session.slot] == 0
                async with open_session(tmp_path) as second:
                    assert second.slot != session.slot
            nursery.cancel_scope.cancel()
    root.write_event.close()
    root.wakeups.close()


@pytest.mark.parametrize(
    "request_",
    [b"\x81\xa6seated\xa1\xff", b"\x81\xa6seated" + b"\x91" * 4000, b"\xc1", b"\0" * 4000],
)
async def test_a_malformed_request_ends_only_its_connection(
    arena: Arena, tmp_path: Path, request_: bytes
) -> None:
    async with receiving(arena, tmp_path):
        with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_SEQPACKET) as hostile:
            await hostile.connect(str(tmp_path / SOCKET_NAME))
            await hostile.send(request_)
            with trio.fail_after(30):
                assert await hostile.recv(1) == b""
        async with open_session(tmp_path) as session:
            assert session.slot == FIRST_SESSION_SLOT
