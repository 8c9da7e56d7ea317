"""Owners of peers: this user, root, another user, or none."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec import structs
from structlog.testing import capture_logs
from support.stranger import UID, require_another_user, run_stranger, start_stranger

from rt.access.keyring import Keyring
from rt.access.peer import (
    LIST_SHARE,
    MAX_PEERS,
    REFUSAL_TIME,
    TRUSTED_SHARE,
    UNTRUSTED_SHARE,
    DatagramPeers,
    PeerTable,
    UdpSocket,
)
from rt.remote import DatagramNode
from rt.remote.signed_node import VerifyingNode

CONNECT = """
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))):
    print("connected", flush=True)
    sys.stdin.read()
"""
SEND = """
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    if len(sys.argv) > 2:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sender.bind((sys.argv[2], int(sys.argv[3])))
    sender.sendto(b"stranger", ("127.0.0.1", int(sys.argv[1])))
    print("sent", flush=True)
    sys.stdin.read()
"""


LOOPBACK = bytes(10) + b"\xff\xff" + socket.inet_aton("127.0.0.1")


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def table() -> Iterator[PeerTable]:
    with PeerTable() as table:
        yield table


@pytest.fixture(params=["sock_diag", "/proc/net"])
def either(
    request: pytest.FixtureRequest, table: PeerTable, monkeypatch: pytest.MonkeyPatch
) -> PeerTable:
    """A table that uses either interface of the kernel."""

    def refuse(_flags: int, _body: bytes) -> bytes:
        raise OSError("protocol not supported")

    if request.param == "/proc/net":
        monkeypatch.setattr(table, "_ask", refuse)
        monkeypatch.setattr(
            "rt.access.peer.TABLE_BYTES", 1 << 28
        )  # the sockets of other programs are in the tables too
    return table


def test_own_connection_is_trusted(server: socket.socket, either: PeerTable) -> None:
    with socket.create_connection(server.getsockname()), server.accept()[0] as accepted:
        peer = either.peer_of(accepted)
    assert (peer.host, peer.uid, peer.trusted) == ("127.0.0.1", os.geteuid(), True)


def test_mapped_ipv6_connection_is_trusted(server: socket.socket, either: PeerTable) -> None:
    with socket.socket(socket.AF_INET6) as client:
        try:
            client.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
        except OSError as error:
            pytest.skip(f"no IPv6: {error.strerror}")
        with server.accept()[0] as accepted:
            assert either.peer_of(accepted).trusted


def test_ipv6_loopback_connection_is_trusted(either: PeerTable) -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6: {error.strerror}")
    with server, socket.create_connection(server.getsockname()[:2]), server.accept()[0] as accepted:
        peer = either.peer_of(accepted)
    assert (peer.uid, peer.trusted) == (os.geteuid(), True)


def test_closed_peer_is_untrusted(server: socket.socket, either: PeerTable) -> None:
    # The kernel lists a socket without a program as root's.
    client = socket.create_connection(server.getsockname())
    with server.accept()[0] as accepted:
        client.sendall(b"a command")
        client.close()
        peer = either.peer_of(accepted)
    assert (peer.uid, peer.trusted) == (None, False)


def test_half_closed_peer_is_still_trusted(server: socket.socket, either: PeerTable) -> None:
    with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
        client.shutdown(socket.SHUT_WR)
        assert either.peer_of(accepted).trusted


def test_other_users_connection_is_not_trusted(server: socket.socket, either: PeerTable) -> None:
    require_another_user()
    with start_stranger(CONNECT, str(server.getsockname()[1])) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "connected\n"
        with server.accept()[0] as accepted:
            peer = either.peer_of(accepted)
        process.stdin.close()
    assert (peer.uid, peer.trusted) == (UID, False)


def test_peer_without_lookup_is_untrusted(
    server: socket.socket, table: PeerTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError("not permitted")

    monkeypatch.setattr(table, "_ask", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    with socket.create_connection(server.getsockname()), server.accept()[0] as accepted:
        assert not table.peer_of(accepted).trusted
    assert table.datagram_sockets(server.getsockname()[1]) == []


def test_unmapped_user_is_untrusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rt.access.peer._unmapped_uid", lambda: 65534)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    with PeerTable() as table:
        assert [table.trusts(uid) for uid in (65534, 0, 1000, None)] == [False, True, False, False]


def test_ordinary_user_trusts_itself_and_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with PeerTable() as table:
        assert [table.trusts(uid) for uid in (1000, 0, 1001, None)] == [True, True, False, False]


def test_missing_support_for_tcp_lookups_is_detected(
    server: socket.socket, table: PeerTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Such a kernel replies that the socket does not exist.
    monkeypatch.setattr(
        table, "_ask", lambda *_: struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -errno.ENOENT) + bytes(16)
    )
    with socket.create_connection(server.getsockname()), server.accept()[0] as accepted:
        assert table.peer_of(accepted).trusted


@pytest.mark.parametrize(
    "answer", [struct.pack("=IHHII", 16, 20, 0, 1, 0), struct.pack("=IHHII", 16, 3, 0, 1, 0)]
)
def test_malformed_reply_names_no_owner(
    server: socket.socket, table: PeerTable, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(table, "_ask", lambda *_: answer)
    with socket.create_connection(server.getsockname()), server.accept()[0] as accepted:
        assert not table.peer_of(accepted).trusted
    assert table.datagram_sockets(1) == []


def test_datagram_sockets_of_a_port(either: PeerTable) -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sender,
        socket.socket(type=socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("127.0.0.1", 0))
        sender.bind(("127.0.0.1", 0))
        port = sender.getsockname()[1]
        found = UdpSocket(os.geteuid(), os.fstat(sender.fileno()).st_ino, LOOPBACK)
        assert either.datagram_sockets(port) == [found]
        sender.connect(receiver.getsockname())
        assert either.datagram_sockets(port) == [
            structs.replace(found, to_port=receiver.getsockname()[1])
        ]
    assert either.datagram_sockets(port) == []


def test_datagram_socket_at_all_addresses_is_a_wildcard(either: PeerTable) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.bind(("0.0.0.0", 0))
        assert [each.is_wildcard for each in either.datagram_sockets(sender.getsockname()[1])] == [
            True
        ]
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        try:
            sender.bind(("::", 0))
        except OSError as error:
            pytest.skip(f"no IPv6: {error.strerror}")
        assert [each.is_wildcard for each in either.datagram_sockets(sender.getsockname()[1])] == [
            True
        ]


@pytest.mark.parametrize(
    ("address", "reuse", "shared"),
    [("0.0.0.0", False, False), ("0.0.0.0", True, True), ("127.0.0.1", False, True)],
)
def test_can_be_shared(table: PeerTable, address: str, reuse: bool, shared: bool) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        sender.bind((address, 0))
        assert table.can_be_shared(sender.getsockname()[1]) == shared


HOLD_SOCKETS = """
for number in range(int(sys.argv[1])):
    globals()[f"socket_{number}"] = each = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    each.bind((f"127.1.{number >> 8}.{number & 255}", int(sys.argv[2])))
print("bound", flush=True)
sys.stdin.read()
"""
"""Program that holds many UDP sockets with one port."""


def test_list_of_sockets_ends_at_the_first_of_another_user(either: PeerTable) -> None:
    require_another_user()
    with socket.socket(type=socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 0))
        port = own.getsockname()[1]
        with start_stranger(HOLD_SOCKETS, "300", str(port)) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "bound\n"
            found = either.datagram_sockets(port)
            assert [each.uid for each in found if each.uid != os.geteuid()] == [UID]
            assert found[-1].uid == UID
            # The unread rest of that list must not be taken for the next reply.
            with socket.socket(type=socket.SOCK_DGRAM) as other:
                other.bind(("127.0.0.1", 0))
                assert [each.uid for each in either.datagram_sockets(other.getsockname()[1])] == [
                    os.geteuid()
                ]
            process.stdin.close()


async def test_lookup_of_another_users_port_reads_few_bytes(
    table: PeerTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_another_user()
    read: list[int] = []
    receive = table._receive

    def count() -> bytes:
        answer = receive()
        read.append(len(answer))
        return answer

    monkeypatch.setattr(table, "_receive", count)
    with socket.socket(type=socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 0))
        port = own.getsockname()[1]
        with start_stranger(HOLD_SOCKETS, "900", str(port)) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "bound\n"
            for source in (b"127.1.0.7:%d", b"127.0.0.1:%d", b"127.1.3.7:%d"):
                # A reply about one socket, or the beginning of a list.
                assert not DatagramPeers(table).admits(source % port, RECEIVER)
                assert 0 < sum(read) <= 1 << 16
                read.clear()
            process.stdin.close()


def test_sender_of_a_datagram_is_found_until_it_closes(table: PeerTable) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.bind(("0.0.0.0", 0))
        port = sender.getsockname()[1]
        found = table.datagram_socket(LOOPBACK, port, LOOPBACK, CONTROL)
        assert found is not None
        assert (found.inode, found.is_wildcard) == (os.fstat(sender.fileno()).st_ino, True)
    assert table.datagram_socket(LOOPBACK, port, LOOPBACK, CONTROL) is None


def test_connected_sender_is_found_by_both_ends(table: PeerTable) -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sender,
        socket.socket(type=socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        port, to_port = sender.getsockname()[1], receiver.getsockname()[1]
        found = table.datagram_socket(LOOPBACK, port, LOOPBACK, to_port)
        assert found == UdpSocket(os.geteuid(), os.fstat(sender.fileno()).st_ino, LOOPBACK, to_port)
        assert table.datagram_socket(LOOPBACK, port, LOOPBACK, 1) is None


def test_missing_support_for_udp_lookups_is_detected(
    table: PeerTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Such a kernel replies that the socket does not exist.
    monkeypatch.setattr(
        table, "_ask", lambda *_: struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -errno.ENOENT) + bytes(16)
    )
    with pytest.raises(OSError, match="does not support lookups of UDP sockets"):
        table.datagram_socket(LOOPBACK, 1, LOOPBACK, CONTROL)


@pytest.mark.parametrize("count", [1, 20_000])
def test_truncated_table_yields_no_trusted_socket(
    table: PeerTable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int
) -> None:
    def refuse(_flags: int, _body: bytes) -> bytes:
        raise OSError("protocol not supported")

    ends = "0100007F:1388 00000000:0000"
    line = f"  1: {ends} 07 00000000:00000000 00:00000000 00000000 {ME:5} 0 77 2 0 0\n"
    (tmp_path / "udp").write_text("header\n" + count * line)
    monkeypatch.setattr(table, "_ask", refuse)
    monkeypatch.setattr("rt.access.peer.NET", tmp_path)
    sockets = table.datagram_sockets(5000)
    assert all(map(table.trusts_socket, sockets)) == (count == 1)
    assert len(sockets) < 20_000


class Inbox:
    """A control socket without keys."""

    def __init__(self, folder: Path) -> None:
        self.node = VerifyingNode(
            "127.0.0.1", 0, Keyring(folder / "keys"), required=False, peers=DatagramPeers()
        )

    @property
    def port(self) -> int:
        return self.node.port

    async def wait_until_dropped(self, count: int) -> None:
        """Receive until a number of datagrams was dropped; fail at an accepted one."""
        while self.node.verdicts["stranger"] < count:
            with trio.move_on_after(0.01):
                accepted = await self.node.recv()
                pytest.fail(f"untrusted datagram accepted: {accepted}")


async def test_own_datagrams_are_accepted(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    async with inbox.node, DatagramNode("127.0.0.1", inbox.port, bind=False) as air:
        with trio.fail_after(30):
            for number in range(10):
                await air.send(b"", b"%d" % number)
                assert (await inbox.node.recv())[1] == b"%d" % number
    assert inbox.node.verdicts["stranger"] == 0


async def test_other_users_datagrams_are_dropped_and_counted(tmp_path: Path) -> None:
    require_another_user()
    inbox = Inbox(tmp_path)
    async with inbox.node:
        with trio.fail_after(60):
            await trio.to_thread.run_sync(
                run_stranger,
                "sys.stdin.close()\n" + SEND.replace("    sys.stdin.read()\n", ""),
                str(inbox.port),
            )
            await inbox.wait_until_dropped(1)


async def test_closed_sender_is_untrusted(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    async with inbox.node:
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(b"late", ("127.0.0.1", inbox.port))
        with trio.fail_after(30):
            await inbox.wait_until_dropped(1)


SEND_AND_CLOSE = """
for number in range(200):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((f"127.0.{number}.77", int(sys.argv[2])))
        try:
            sender.sendto(b"stranger", ("127.0.0.1", int(sys.argv[1])))
        except BlockingIOError:
            pass
"""


@pytest.mark.parametrize(
    "candidate",
    ["the receiver", "the user's socket at another address", "the user's shared socket"],
)
async def test_datagram_of_closed_socket_is_not_attributed_to_another(
    tmp_path: Path, candidate: str
) -> None:
    require_another_user()
    inbox = Inbox(tmp_path)
    with socket.socket(type=socket.SOCK_DGRAM) as own:
        shared = candidate == "the user's shared socket"
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, shared)
        own.bind(("0.0.0.0" if shared else "127.0.0.1", 0))
        program = SEND_AND_CLOSE
        if shared:
            program = program.replace(
                "sender.bind",
                "sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n        sender.bind",
            )
        async with inbox.node:
            port = inbox.port if candidate == "the receiver" else own.getsockname()[1]
            # All datagrams are in the receiver's queue, and their sockets are closed.
            await trio.to_thread.run_sync(run_stranger, program, str(inbox.port), str(port))
            with trio.fail_after(30):
                await inbox.wait_until_dropped(200)
    assert inbox.node.verdicts["obeyed"] == 0


async def test_accepted_unsigned_datagrams_are_counted(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    async with inbox.node, DatagramNode("127.0.0.1", inbox.port, bind=False) as air:
        with trio.fail_after(30):
            for _ in range(3):
                await air.send(b"", b"payload")
                await inbox.node.recv()
    assert (inbox.node.verdicts["obeyed"], inbox.node.verdicts["obeyed_unsigned"]) == (3, 3)


async def test_node_does_not_share_its_port_with_other_users(
    tmp_path: Path, table: PeerTable
) -> None:
    inbox = Inbox(tmp_path)
    async with inbox.node, DatagramNode("127.0.0.1", inbox.port, bind=False) as air:
        with trio.fail_after(30):
            await air.send(b"", b"payload")
            peer, _ = await inbox.node.recv()
            assert not table.can_be_shared(int(peer.rpartition(b":")[2]))
            with socket.socket(type=socket.SOCK_DGRAM) as stranger:
                stranger.sendto(
                    b"not from the target", ("127.0.0.1", int(peer.rpartition(b":")[2]))
                )
            await inbox.node.send(peer, b"answer")
            assert (await air.recv())[1] == b"answer"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
async def test_port_shared_with_another_user_is_not_trusted(tmp_path: Path, address: str) -> None:
    # A socket can name any local address as the source of its datagrams, but only its own port.
    require_another_user()
    inbox = Inbox(tmp_path)
    with socket.socket(type=socket.SOCK_DGRAM) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind(("127.0.0.1", 0))
        async with inbox.node:
            with start_stranger(
                SEND, str(inbox.port), address, str(own.getsockname()[1])
            ) as process:
                assert process.stdout is not None
                assert process.stdin is not None
                assert await trio.to_thread.run_sync(process.stdout.readline) == "sent\n"
                with trio.fail_after(30):
                    await inbox.wait_until_dropped(1)
                process.stdin.close()


class Sockets(PeerTable):
    """A fake table with fixed sockets, which counts lookups and lists, each taking fake time."""

    def __init__(
        self,
        sockets: dict[int, list[UdpSocket]],
        *,
        shared: bool = False,
        lookup: float = 0.0,
        listing: float = 0.0,
    ) -> None:
        super().__init__()
        self.sockets = sockets
        self.shared = shared
        self.lookups = 0
        self.listed = 0
        self.time = 0.0
        self._lookup = lookup
        self._listing = listing

    def timer(self) -> float:
        return self.time

    def datagram_socket(
        self,
        source: bytes,
        port: int,
        to: bytes,  # noqa: ARG002 - part of the interface
        to_port: int,
    ) -> UdpSocket | None:
        self.lookups += 1
        self.time += self._lookup
        there = self.sockets.get(port, [])
        found = [each for each in there if each.address == source and each.to_port in {0, to_port}]
        return next(
            iter(
                found
                + [each for each in there if each.is_wildcard and each.to_port in {0, to_port}]
            ),
            None,
        )

    def datagram_sockets(self, port: int) -> list[UdpSocket]:
        self.listed += 1
        self.time += self._listing
        return self.sockets.get(port, [])

    def can_be_shared(self, port: int) -> bool:
        return self.shared or any(each.uid == NOT_ME for each in self.sockets.get(port, []))


ELSEWHERE = LOOPBACK[:-1] + b"\x4d"
GROUP = LOOPBACK[:12] + socket.inet_aton("224.1.1.1")
EVERYWHERE = LOOPBACK[:12] + bytes(4)
ME, NOT_ME = os.geteuid(), 4711
CONTROL = 6002
RECEIVER = UdpSocket(ME, 1, b"", CONTROL)
OWN = [UdpSocket(ME, 7, LOOPBACK)]
OTHERS = [UdpSocket(NOT_ME, 8, LOOPBACK)]


async def test_port_that_passes_to_another_user_is_refused() -> None:
    sockets = {5000: OWN}
    peers = DatagramPeers(Sockets(sockets))
    assert peers.admits(b"127.0.0.1:5000")
    sockets[5000] = OTHERS
    assert not peers.admits(b"127.0.0.1:5000")


@pytest.mark.parametrize(
    ("sockets", "admitted"),
    [
        ([], False),
        ([UdpSocket(ME, 1, LOOPBACK)], False),  # the receiving socket itself
        ([UdpSocket(ME, 1, EVERYWHERE)], False),
        ([UdpSocket(ME, 7, ELSEWHERE)], False),  # this user's, at another address
        ([UdpSocket(ME, 7, GROUP)], False),
        ([UdpSocket(ME, 7, LOOPBACK, 53)], False),  # connected to another port
        ([UdpSocket(ME, 7, EVERYWHERE, 0, 2)], False),  # bound to one interface
        ([UdpSocket(ME, 0, LOOPBACK)], False),  # without a program
        ([*OWN, UdpSocket(NOT_ME, 8, ELSEWHERE)], False),
        ([UdpSocket(ME, 7, EVERYWHERE), UdpSocket(NOT_ME, 8, ELSEWHERE)], False),
        (OWN, True),
        ([UdpSocket(ME, 7, LOOPBACK, CONTROL)], True),
        ([UdpSocket(0, 7, LOOPBACK)], True),
        ([UdpSocket(ME, 7, EVERYWHERE)], True),
        ([UdpSocket(ME, 7, bytes(16))], True),
        ([UdpSocket(ME, 1, LOOPBACK), *OWN], True),
    ],
)
async def test_datagram_is_accepted_only_from_a_socket_that_can_send_it(
    sockets: list[UdpSocket], admitted: bool
) -> None:
    assert DatagramPeers(Sockets({5000: sockets})).admits(b"127.0.0.1:5000", RECEIVER) == admitted


async def test_socket_with_a_once_shared_port_stays_untrusted() -> None:
    table = Sockets({5000: [UdpSocket(ME, 7, EVERYWHERE)]}, shared=True)
    peers = DatagramPeers(table)
    assert not peers.admits(b"127.0.0.1:5000", RECEIVER)
    table.shared = False
    assert not peers.admits(b"127.0.0.2:5000", RECEIVER)
    table.sockets[5000] = [UdpSocket(ME, 9, EVERYWHERE)]
    assert peers.admits(b"127.0.0.3:5000", RECEIVER)


async def test_first_sender_of_a_user_is_logged() -> None:
    peers = DatagramPeers(Sockets({5000: OWN, 5001: OWN}))
    with capture_logs() as events:
        assert all(
            peers.admits(peer, RECEIVER)
            for peer in (b"127.0.0.1:5000", b"127.0.0.1:5001", b"127.0.0.1:5000")
        )
    assert [(each["uid"], each["peer"]) for each in events] == [(ME, "127.0.0.1:5000")]


async def test_refused_port_is_looked_up_again_after_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sockets = {5000: OTHERS}
    table = Sockets(sockets)
    peers = DatagramPeers(table)
    assert not peers.admits(b"127.0.0.1:5000")
    sockets[5000] = OWN
    assert not peers.admits(b"127.0.0.1:5000")
    assert table.lookups == 1
    await trio.sleep(REFUSAL_TIME)
    assert peers.admits(b"127.0.0.1:5000")


@pytest.mark.parametrize("lookup", [20e-6, 1e-3, 5e-3])
async def test_flood_takes_bounded_time_and_blocks_no_trusted_port(
    autojump_clock: trio.testing.MockClock, lookup: float
) -> None:
    table = Sockets({60000: OWN, 60002: [UdpSocket(ME, 7, EVERYWHERE)]}, lookup=lookup)
    peers = DatagramPeers(table, timer=table.timer)
    assert peers.admits(b"127.0.0.1:60000")
    assert peers.admits(b"127.0.0.1:60002")
    for second in range(1, 6):
        for port in range(1, 10_000):
            assert not peers.admits(b"127.0.%d.1:%d" % (second, port))
        assert peers.admits(b"127.0.0.1:60002")
        assert table.time <= UNTRUSTED_SHARE * (second + 1) + lookup * (second + 5)
        await trio.sleep(1)
    assert len(peers._refused) <= MAX_PEERS
    await trio.sleep(1)
    table.sockets[60001] = OWN
    assert peers.admits(b"127.0.0.1:60001")


async def test_trusted_source_takes_bounded_time(autojump_clock: trio.testing.MockClock) -> None:
    table = Sockets({60000: [UdpSocket(ME, 7, EVERYWHERE)]}, lookup=1e-3)
    peers = DatagramPeers(table, timer=table.timer)
    admitted = sum(peers.admits(b"127.0.0.1:60000", RECEIVER) for _ in range(1000))
    assert 0 < admitted * 1e-3 <= UNTRUSTED_SHARE + TRUSTED_SHARE + 2e-3
    await trio.sleep(1)
    assert peers.admits(b"127.0.0.1:60000", RECEIVER)


async def test_expensive_lists_are_rare_and_do_not_delay_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    everywhere = [UdpSocket(ME, 9, EVERYWHERE)]
    table = Sockets({60000: OWN, 60001: everywhere}, listing=10 * LIST_SHARE)
    peers = DatagramPeers(table, timer=table.timer)
    assert peers.admits(b"127.0.0.1:60001", RECEIVER)
    assert peers.admits(b"127.0.0.1:60000", RECEIVER)
    with capture_logs() as events:
        for _ in range(80):
            await trio.sleep(0.1)
            assert not peers.admits(b"127.0.0.1:60000", RECEIVER)
    assert [each["peer"] for each in events] == ["127.0.0.1:60000"]
    assert table.listed == 1
    await trio.sleep(2)
    assert peers.admits(b"127.0.0.1:60001", RECEIVER)
    assert peers.admits(b"127.0.0.1:60000", RECEIVER)


async def test_port_of_another_user_is_refused_at_all_addresses() -> None:
    table = Sockets(
        {5000: [UdpSocket(NOT_ME, 8, LOOPBACK[:12] + bytes((127, 0, 1, n))) for n in range(250)]}
    )
    peers = DatagramPeers(table)
    assert not any(peers.admits(b"127.0.1.%d:5000" % n, RECEIVER) for n in range(250))
    assert (table.lookups, table.listed) == (1, 0)


async def test_source_with_exclusive_port_needs_no_list() -> None:
    table = Sockets({5000: [UdpSocket(ME, 7, EVERYWHERE)]})
    peers = DatagramPeers(table)
    assert all(peers.admits(b"127.0.0.1:5000", RECEIVER) for _ in range(10))
    assert (table.lookups, table.listed) == (10, 0)


async def test_datagram_from_another_computer_is_untrusted() -> None:
    assert not DatagramPeers(Sockets({5000: OWN})).admits(b"10.0.0.7:5000")
