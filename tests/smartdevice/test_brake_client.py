"""The device process's connection to the brake, also after the end of the root or the brake."""

import math
import os
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
import trio.testing

from rt.brake.connection import Connection
from rt.brake.heartbeat import Heartbeat
from rt.brake.protocol import Kind, Message, encode
from rt.link.link import StreamLink
from rt.smartdevice.brake_client import HEARTBEAT_INTERVAL, BrakeClient

_NO_DESCRIPTOR = 1 << 29


class Wire(StreamLink):
    """A link with a descriptor."""

    def __init__(self, fd: int) -> None:
        super().__init__(trio.testing.memory_stream_pair()[0], "wire")
        self._fd = fd

    def fileno(self) -> int | None:
        return self._fd


@pytest.fixture
def connection() -> Iterator[Connection]:
    made = Connection()
    yield made
    for fd in {*made.device, *made.brake}:
        try:
            os.close(fd)
        except OSError:
            continue


def client_of(connection: Connection) -> BrakeClient:
    ends = connection.device._replace(channel=os.dup(connection.device.channel))
    return BrakeClient(ends, lambda: False, lambda: None)


def ask(peer: socket.socket) -> None:
    pidfd = os.pidfd_open(os.getpid())
    socket.send_fds(peer, [encode(Message(Kind.ASK, os.getpid()))], [pidfd])
    os.close(pidfd)


async def quiet() -> bool:
    """Return whether no task has a deadline."""
    await trio.testing.wait_all_tasks_blocked()
    return trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf


@pytest.mark.parametrize("unread", [True, False])
async def test_end_of_root_and_brake_does_not_end_client(
    connection: Connection, nursery: trio.Nursery, unread: bool
) -> None:
    client = client_of(connection)
    peer = socket.socket(fileno=os.dup(connection.brake.channel))
    os.close(connection.brake.channel)
    nursery.start_soon(client.run)
    await trio.testing.wait_all_tasks_blocked()
    ask(peer)
    await trio.testing.wait_all_tasks_blocked()
    while not unread:
        try:
            peer.recv(1000, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
    peer.close()
    with trio.fail_after(30):
        while not client._disconnected:  # noqa: ASYNC110
            await trio.sleep(0.005)
    client.add_line(Wire(1))
    client.stamp()
    assert await quiet()
    client.close()
    nursery.cancel_scope.cancel()


async def test_send_to_ended_brake_is_not_repeated(
    connection: Connection, nursery: trio.Nursery
) -> None:
    client = client_of(connection)
    peer = socket.socket(fileno=os.dup(connection.brake.channel))
    os.close(connection.brake.channel)
    peer.close()
    client.add_line(Wire(1))
    assert client._disconnected
    assert client._channel is not None
    nursery.start_soon(client._send_state, client._channel)
    client._outdated.set()
    assert await quiet()
    client.close()
    nursery.cancel_scope.cancel()


async def test_closed_line_is_skipped_and_brake_stays_connected(
    connection: Connection, nursery: trio.Nursery
) -> None:
    client = client_of(connection)
    client.add_line(Wire(_NO_DESCRIPTOR))
    assert not client._disconnected
    nursery.start_soon(client.run)
    assert await quiet()
    assert not client._disconnected
    client.close()
    nursery.cancel_scope.cancel()


async def test_full_channel_is_retried(connection: Connection, nursery: trio.Nursery) -> None:
    client = client_of(connection)
    peer = socket.socket(fileno=os.dup(connection.brake.channel))
    peer.setblocking(False)
    count = 0
    while not client._outdated.is_set():
        client.add_line(Wire(1))
        count += 1
    assert not client._disconnected
    nursery.start_soon(client.run)
    received: set[bytes] = set()
    with trio.fail_after(30):
        while len(received) < count:
            try:
                data, fds, _, _ = socket.recv_fds(peer, 1000, 4)
            except BlockingIOError:
                await trio.sleep(0.005)
                continue
            for fd in fds:
                os.close(fd)
            if data[0] == Kind.LINE:
                received.add(data[1:5])
    peer.close()
    client.close()
    nursery.cancel_scope.cancel()


async def test_renewed_lease_updates_end_in_heartbeat(
    connection: Connection, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    ends = iter([10**18, 2 * 10**18])
    page = Heartbeat(connection.device.memory)
    moving = True
    end = next(ends)
    device = connection.device._replace(channel=os.dup(connection.device.channel))
    client = BrakeClient(device, lambda: moving, lambda: None, lambda: end)
    client.add_line(Wire(1))
    client.stamp()
    assert page.stamp
    assert page.expiry == end
    nursery.start_soon(client.run)
    await trio.testing.wait_all_tasks_blocked()
    end = next(ends)
    await trio.sleep(HEARTBEAT_INTERVAL + 0.001)
    assert page.expiry == end

    moving = False
    start = trio.current_time()
    client.note_lapse()
    await trio.testing.wait_all_tasks_blocked()
    assert (page.stamp, page.expiry) == (0, 0), "the brake does not wait for the next stamp"
    assert trio.current_time() == start
    client.close()
    page.close()
    nursery.cancel_scope.cancel()


async def test_heartbeat_rests_only_when_no_device_moves(
    connection: Connection, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    page = Heartbeat(connection.device.memory)
    moving = True
    device = connection.device._replace(channel=os.dup(connection.device.channel))
    client = BrakeClient(device, lambda: moving, lambda: None)
    client.add_line(Wire(1))
    client.stamp()
    nursery.start_soon(client.run)
    client.note_lapse()
    await trio.sleep(1)
    assert page.stamp
    moving = False
    await trio.sleep(HEARTBEAT_INTERVAL)
    assert not page.stamp
    client.close()
    page.close()
    nursery.cancel_scope.cancel()


async def test_ending_process_stamps_until_last_line_is_closed(
    connection: Connection, autojump_clock: trio.testing.MockClock
) -> None:
    page = Heartbeat(connection.device.memory)
    device = connection.device._replace(channel=os.dup(connection.device.channel))
    client = BrakeClient(device, lambda: True, lambda: None)
    lines = [Wire(1), Wire(2)]
    for line in lines:
        client.add_line(line)
    client.stamp()
    ended = trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ended_after, client.run, ended)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            for line in lines:
                before = page.stamp
                await trio.sleep(2 * HEARTBEAT_INTERVAL)
                assert page.stamp > before, (
                    "the brake would act although this process disables the devices itself"
                )
                assert not ended.is_set()
                client.remove_line(line)
            with trio.fail_after(30):
                await ended.wait()
    assert page.stamp == 0
    client.close()
    page.close()


async def _ended_after(run: Callable[[], Awaitable[None]], ended: trio.Event) -> None:
    try:
        await run()
    finally:
        ended.set()
