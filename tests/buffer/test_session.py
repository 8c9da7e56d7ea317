"""Sessions: a slot and the robot's eventfds while the connection is open."""

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

HOLDER = """
import sys, time, trio
from pathlib import Path
from rt.buffer.lease import LeaseTable
from rt.buffer.session import open_session

async def main():
    async with open_session(Path(sys.argv[1])) as session:
        with LeaseTable.open(session.prefix, create=False) as table:
            table.lease(session.slot).begin()
            session.write_event.signal()
            await trio.sleep_forever()

trio.run(main)
"""


def start_holder(directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", HOLDER, directory])


class Root:
    """The objects of a root that sessions share."""

    def __init__(self, directory: Path) -> None:
        self.write_event = WriteEvent()
        self.wakeups = Wakeups(slot=ROOT_SLOT)
        self.directory = directory
        self.registrar: Registrar


@asynccontextmanager
async def serve_sessions(arena: Arena, directory: Path) -> AsyncIterator[tuple[Root, LeaseTable]]:
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


async def test_barred_sessions_cannot_begin_or_renew_leases(arena: Arena, tmp_path: Path) -> None:
    async with serve_sessions(arena, tmp_path) as (root, leases), open_session(tmp_path) as early:
        lease = leases.lease(early.slot)
        assert lease.begin()
        root.registrar.bar(Bar.BRAKE)
        assert not lease.renew()
        assert not lease.begin()
        assert lease.cause is lease.bar is Bar.BRAKE
        async with open_session(tmp_path) as late:
            assert not leases.lease(late.slot).begin()
            root.registrar.bar(Bar.NONE)
            assert not lease.renew(), "a new lease has to begin"
            assert lease.begin()
            assert leases.lease(late.slot).begin()
        assert leases.bar_of(FIRST_SESSION_SLOT + 2) is not Bar.BRAKE


async def test_session_has_its_own_slot_and_the_robots_wakeups(
    arena: Arena, tmp_path: Path
) -> None:
    async with (
        serve_sessions(arena, tmp_path) as (root, _),
        open_session(tmp_path) as first,
        open_session(tmp_path) as second,
    ):
        assert (first.slot, second.slot) == (FIRST_SESSION_SLOT, FIRST_SESSION_SLOT + 1)
        first.write_event.signal()
        assert root.write_event.clear()
        root.wakeups.signal(1 << second.slot)
        with trio.fail_after(30):
            await second.wakeups.wait()


async def test_killed_session_loses_its_lease_and_signals_the_write_event(
    arena: Arena, tmp_path: Path
) -> None:
    async with serve_sessions(arena, tmp_path) as (root, leases):
        with start_holder(tmp_path) as process:
            with trio.fail_after(30):
                await root.write_event.wait()
            assert leases.lease(FIRST_SESSION_SLOT).release()
            keep(leases.lease(FIRST_SESSION_SLOT))
            os.kill(process.pid, signal.SIGKILL)
            with trio.fail_after(30):
                await root.write_event.wait()
            assert not leases.fresh_tokens()


async def test_session_without_a_free_slot_is_an_error(arena: Arena, tmp_path: Path) -> None:
    async with serve_sessions(arena, tmp_path), AsyncExitStack() as stack:
        for _ in range(FIRST_SESSION_SLOT, SLOTS):
            await stack.enter_async_context(open_session(tmp_path))
        with pytest.raises(DeviceBufferError, match="all 8 slots for commands are in use"):
            async with open_session(tmp_path):
                pass
        await stack.aclose()
        with trio.fail_after(30):
            while not await can_open_session(tmp_path):  # noqa: ASYNC110 - no event for freed slots
                await trio.sleep(0.001)


async def can_open_session(directory: Path) -> bool:
    try:
        async with open_session(directory):
            return True
    except DeviceBufferError:
        return False


async def test_stopped_root_causes_a_timeout(tmp_path: Path, autojump_clock: MockClock) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / SOCKET_NAME))
        listener.listen()
        with pytest.raises(DeviceBufferError, match="did not answer within 5 s"):
            async with open_session(tmp_path):
                pass


async def test_session_without_a_registrar_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceBufferError, match="cannot open a session"):
        async with open_session(tmp_path):
            pass


async def test_reader_gets_the_memory_but_no_slot(arena: Arena, tmp_path: Path) -> None:
    async with serve_sessions(arena, tmp_path) as (_, leases), AsyncExitStack() as stack:
        for _ in range(FIRST_SESSION_SLOT, SLOTS):
            await stack.enter_async_context(open_session(tmp_path))
        session_counts = leases.session_counts()
        async with read(tmp_path) as prefix:
            with LeaseTable.open(prefix, create=False) as table:
                assert table.root_alive()
        assert leases.session_counts() == session_counts, "reading is not a session"


@pytest.mark.parametrize("message", [b"", b"\xc1", b"\x80" * 100])
async def test_registrar_survives_an_invalid_message(
    arena: Arena, tmp_path: Path, message: bytes
) -> None:
    async with serve_sessions(arena, tmp_path):
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer, trio.fail_after(30):
            await peer.connect(str(tmp_path / SOCKET_NAME))
            await peer.send(message)
            assert await peer.recv(1) == b"", "the connection is closed"
        assert await can_open_session(tmp_path)


async def test_removed_socket_is_recreated_and_sessions_continue(
    arena: Arena, tmp_path: Path
) -> None:
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
async def test_malformed_request_ends_only_its_connection(
    arena: Arena, tmp_path: Path, request_: bytes
) -> None:
    async with serve_sessions(arena, tmp_path):
        with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_SEQPACKET) as hostile:
            await hostile.connect(str(tmp_path / SOCKET_NAME))
            await hostile.send(request_)
            with trio.fail_after(30):
                assert await hostile.recv(1) == b""
        async with open_session(tmp_path) as session:
            assert session.slot == FIRST_SESSION_SLOT
