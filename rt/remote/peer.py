"""Owners of loopback peers: which user of this computer holds the other end of a connection, or sent a datagram.

The kernel tells the owner of a socket (sock_diag(7), else the tables of /proc/net). Invariant: a peer is a stranger unless the
kernel names its owner, and the owner is root or the user that this process runs as.
"""

import errno
import ipaddress
import math
import os
import secrets
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import trio

from rt import log

REFUSED_FOR = 1.0
"""Seconds for which a source is a stranger's without another look, once it was found to be one."""
CHECKS = 200
"""Looks per second at sources that have not been found to be trusted. Together they cost about 1 % of one core."""
MOST_PEERS = 256
"""Sources that are remembered as trusted, and as strangers'; and sockets that are remembered as shared."""

ANOTHER_USER = "it belongs to another user of this computer"
SHARED = "its port can be shared with another user: do not set SO_REUSEADDR on the socket that sends"
ENDED = "its user is unknown: it has ended, or belongs to another namespace"

K = TypeVar("K")
T = TypeVar("T")

_MAPPED = bytes(10) + b"\xff\xff"
_LOOPBACKS = ipaddress.IPv4Network("127.0.0.0/8")
_WILDCARDS = (bytes(16), _MAPPED + bytes(4))
_SOCK_DIAG = 4  # linux/netlink.h: NETLINK_SOCK_DIAG
_BY_FAMILY = 20  # linux/sock_diag.h: SOCK_DIAG_BY_FAMILY
_REQUEST, _DUMP = 0x001, 0x300  # linux/netlink.h
_ERROR, _DONE = 2, 3
_PORT_EQUALS = 1  # linux/inet_diag.h: INET_DIAG_REQ_BYTECODE, of S_GE and S_LE below
_S_GE, _S_LE = 2, 3
_HEADER = struct.Struct("=IHHII")
_SOCKET = struct.Struct("=BBBB")
_PORTS = struct.Struct(">HH")
_ENDS = struct.Struct(">HH16s16s")
_INTERFACE = struct.Struct("=I")
_OWNER = struct.Struct("=II")
_OWNER_AT = 16 + 4 + 48 + 12
"""Offset of the uid and the inode in an answer: behind netlink's header, four bytes, the socket's id, and three words."""
_ANY_COOKIE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
_BUFFER = 1 << 16


class Peer(msgspec.Struct, frozen=True):
    """The other end of a connection.

    Attributes:
        host: Its address.
        uid: The user of this computer that holds it, or None where the kernel does not tell.
        trusted: Whether that is root or the user that this process runs as.
    """

    host: str
    uid: int | None
    trusted: bool

    @property
    def refusal(self) -> str:
        """Why it is not trusted."""
        return ENDED if self.uid is None else ANOTHER_USER

    @property
    def described(self) -> dict[str, object]:
        """For the log."""
        return {"peer": self.host} | ({} if self.uid is None else {"uid": self.uid})


class UdpSocket(msgspec.Struct, frozen=True):
    """A UDP socket of this computer, as the kernel lists it.

    Attributes:
        uid: Its user.
        inode: Its number.
        address: Its local address, of 16 bytes; IPv4 is mapped.
        to_port: The port that it is connected to; 0 without a connection.
        interface: The number of the interface that it is bound to; 0 for none, and where the kernel does not tell.
    """

    uid: int
    inode: int
    address: bytes
    to_port: int = 0
    interface: int = 0

    @property
    def is_wildcard(self) -> bool:
        """Whether it has every local address."""
        return self.address in _WILDCARDS

    def may_be_source(self, address: bytes, to_port: int) -> bool:
        """Whether a datagram from an address (16 bytes) to a port is one that this socket sends, by what it is bound to.

        A socket may name another local address than its own as the source, but then it does not vouch for the datagram.
        """
        if self.is_wildcard:
            return not self.interface and self.to_port in {0, to_port}
        return self.address == address and self.to_port in {0, to_port}


class PeerTable:
    """Asks the kernel who owns sockets of this computer; a context manager. Its calls wait for nothing.

    A connection costs about 10 microseconds, a datagram about 60, whatever the number of sockets.
    """

    def __init__(self) -> None:
        self._netlink: socket.socket | None = None
        self._sequence = 0
        self._is_working: bool | None = None
        self._unmapped = _unmapped_uid()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the descriptor; a later call opens another one."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def trusts(self, uid: int | None) -> bool:
        """Whether a user may do what the user that this process runs as may do."""
        return uid is not None and uid != self._unmapped and uid in {0, os.geteuid()}

    def peer_of(self, accepted: socket.socket | trio.socket.SocketType) -> Peer:
        """The other end of a TCP connection that was accepted.

        Raises:
            OSError: The connection has ended.
        """
        local, remote = accepted.getsockname(), accepted.getpeername()
        host = str(remote[0]).removeprefix("::ffff:")
        uid = None
        if ipaddress.ip_address(host).is_loopback:
            uid = self._stream_owner(accepted.family, remote[0], remote[1], local[0], local[1])
        return Peer(host, uid, self.trusts(uid))

    def datagram_sockets(self, port: int) -> list[UdpSocket]:
        """The UDP sockets with a port, whatever their address is: each of them may send from that port.

        A socket may name any local address as the source of a datagram, but no port other than its own.
        """
        try:
            return self._dump(socket.AF_INET, port) + self._dump(socket.AF_INET6, port)
        except OSError:
            return [
                UdpSocket(uid, inode, local[:16], int.from_bytes(remote[16:], "big"))
                for uid, inode, local, remote in _table("udp", port)
            ]

    def can_be_shared(self, port: int) -> bool:
        """Whether a user may bind a UDP port that is in use at another local address; True where that is not known."""
        try:
            with socket.socket(type=socket.SOCK_DGRAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # Another address each time, so that no user can occupy it beforehand.
                probe.bind((str(_LOOPBACKS[1 + secrets.randbelow(_LOOPBACKS.num_addresses - 2)]), port))
        except OSError as error:
            return error.errno not in {errno.EADDRINUSE, errno.EACCES}
        return True

    def _stream_owner(self, family: int, host: str, port: int, to_host: str, to_port: int) -> int | None:
        source, target = socket.inet_pton(family, host), socket.inet_pton(family, to_host)
        ident = _ident(source, port, target, to_port)
        try:
            return self._owner(family, ident)
        except OSError:
            wanted = (_address(source) + port.to_bytes(2, "big"), _address(target) + to_port.to_bytes(2, "big"))
            return next((uid for uid, inode, *ends in _table("tcp", port) if inode and tuple(ends) == wanted), None)

    def _owner(self, family: int, ident: bytes) -> int | None:
        """The owner of a TCP socket of this computer.

        Raises:
            OSError: The kernel does not tell.
        """
        answer = self._ask(_REQUEST, struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + ident)
        if _HEADER.unpack_from(answer)[1] == _ERROR:
            # The error is the same where there is no such socket, and where the kernel was built without sock_diag for TCP.
            if not self._works():
                raise OSError("the kernel does not look TCP sockets up")
            return None
        if len(answer) < _OWNER_AT + _OWNER.size or answer[20:24] != ident[:4]:
            return None
        uid, inode = _OWNER.unpack_from(answer, _OWNER_AT)
        # A socket that its program has closed belongs to no user any more, and counts as root's in the kernel's tables.
        return uid if inode else None

    def _works(self) -> bool:
        """Whether the kernel finds a connection that is there."""
        if self._is_working is None:
            self._is_working = True  # of the connection below an error says no more
            with (
                socket.create_server(("127.0.0.1", 0)) as server,
                socket.create_connection(server.getsockname()) as end,
            ):
                (host, port), (to_host, to_port) = end.getsockname(), server.getsockname()
                ident = _ident(socket.inet_aton(host), port, socket.inet_aton(to_host), to_port)
                try:
                    self._is_working = self._owner(socket.AF_INET, ident) is not None
                except OSError:
                    self._is_working = False
        return self._is_working

    def _dump(self, family: int, port: int) -> list[UdpSocket]:
        code = struct.pack("=BBHBBHBBHBBH", _S_GE, 8, 20, 0, 0, port, _S_LE, 8, 12, 0, 0, port)
        attribute = struct.pack("=HH", 4 + len(code), _PORT_EQUALS) + code
        body = struct.pack("=BBBBI", family, socket.IPPROTO_UDP, 0, 0, 0xFFFFFFFF) + bytes(48) + attribute
        answer = self._ask(_REQUEST | _DUMP, body)
        sockets: list[UdpSocket] = []
        while True:
            offset = 0
            while offset + _HEADER.size <= len(answer):
                length, kind, _, _, _ = _HEADER.unpack_from(answer, offset)
                if kind == _DONE:
                    return sockets
                if kind == _ERROR or length < _HEADER.size:
                    raise OSError("the kernel does not list UDP sockets")
                if length < _OWNER_AT + _OWNER.size:
                    raise OSError("the kernel lists UDP sockets in another form")
                ident = offset + 16 + _SOCKET.size
                from_port, to_port, source, _ = _ENDS.unpack_from(answer, ident)
                if from_port == port:
                    address = _MAPPED + source[:4] if family == socket.AF_INET else source
                    uid, inode = _OWNER.unpack_from(answer, offset + _OWNER_AT)
                    (interface,) = _INTERFACE.unpack_from(answer, ident + _ENDS.size)
                    sockets.append(UdpSocket(uid, inode, address, to_port, interface))
                offset += (length + 3) & ~3
            answer = self._receive()

    def _ask(self, flags: int, body: bytes) -> bytes:
        if self._netlink is None:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._netlink = socket.socket(socket.AF_NETLINK, kind, _SOCK_DIAG)
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        header = _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, flags, self._sequence, 0)
        self._netlink.sendto(header + body, (0, 0))
        return self._receive()

    def _receive(self) -> bytes:
        """The answer to the last question: the kernel writes it while the question is sent."""
        assert self._netlink is not None
        while True:
            answer, (sender, _) = self._netlink.recvfrom(_BUFFER)
            if sender == 0 and len(answer) >= _HEADER.size and _HEADER.unpack_from(answer)[3] == self._sequence:
                return answer


class DatagramPeers:
    """Decides for each datagram from the loopback interface whether its sender is root or the robot's user.

    A datagram is looked up after it was read, and its socket may be closed by then. So a datagram counts only if a socket that
    can have sent it is there: one with the source's address, or with every address and a port that no user can share. Sockets of
    other users with the port, at any address, refuse it; the socket that received it never counts.

    A datagram of a trusted source is looked up each time, so that a port that changes hands gives nothing away. What a stranger
    sends costs a bounded number of looks.

    Args:
        table: Where sockets are looked up.
    """

    def __init__(self, table: PeerTable | None = None) -> None:
        self._table = table or PeerTable()
        self._trusted: dict[bytes, None] = {}
        self._refused: dict[bytes, float] = {}
        self._shared: dict[int, None] = {}
        self._users: set[int] = set()
        self._looks = 0
        self._second = -math.inf
        self._log = log.get_logger()

    def close(self) -> None:
        """Free the descriptor."""
        self._table.close()

    def admits(self, peer: bytes, receiver: UdpSocket | None = None) -> bool:
        """Whether a datagram from a peer, `host:port`, may be obeyed without a signature.

        Args:
            peer: Its source.
            receiver: The socket that received it; its `to_port` is the port that it is bound to.
        """
        now = trio.current_time()
        until = self._refused.get(peer)
        if until is not None and until > now:
            return False
        if peer not in self._trusted and not self._may_look(now):
            return False
        self._refused.pop(peer, None)
        uid = self._sender(peer, receiver)
        if uid is not None:
            if peer not in self._trusted:
                _remember(self._trusted, peer, None)
            if uid not in self._users:
                self._users.add(uid)
                self._log.info("unsigned control datagrams accepted from a local user", uid=uid, peer=peer.decode())
            return True
        self._trusted.pop(peer, None)
        _remember(self._refused, peer, now + REFUSED_FOR)
        return False

    def _sender(self, peer: bytes, receiver: UdpSocket | None) -> int | None:
        """The trusted user whose socket has sent a datagram; None if there is no such socket, or another user may have sent it."""
        host, _, port = peer.decode().rpartition(":")
        if not host.startswith("127."):
            return None
        source, to_port = _address(socket.inet_aton(host)), receiver.to_port if receiver else 0
        sockets = self._table.datagram_sockets(int(port))
        if not all(self._table.trusts(each.uid) and each.inode for each in sockets):
            return None
        for each in sockets:
            if receiver is not None and each.inode == receiver.inode:
                continue
            if each.may_be_source(source, to_port) and not (
                each.is_wildcard and self._is_shared(each, int(port), peer)
            ):
                return each.uid
        return None

    def _is_shared(self, sender: UdpSocket, port: int, peer: bytes) -> bool:
        """Whether another user may have had the port of a socket too; a socket that was shared once stays so."""
        if sender.inode in self._shared:
            return True
        if not self._table.can_be_shared(port):
            return False
        _remember(self._shared, sender.inode, None)
        self._log.warning("a control datagram was refused", reason=SHARED, peer=peer.decode(), uid=sender.uid)
        return True

    def _may_look(self, now: float) -> bool:
        if now - self._second >= 1:
            self._second, self._looks = now, 0
        self._looks += 1
        return self._looks <= CHECKS


def _remember(peers: dict[K, T], peer: K, value: T) -> None:
    if len(peers) >= MOST_PEERS:
        del peers[next(iter(peers))]
    peers[peer] = value


def _unmapped_uid() -> int | None:
    """The number that stands for every user that this process's user namespace does not know; None where it knows all."""
    try:
        if Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]:
            return None
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return 65534


def _ident(source: bytes, port: int, target: bytes, to_port: int) -> bytes:
    return _PORTS.pack(port, to_port) + source.ljust(16, b"\0") + target.ljust(16, b"\0") + _ANY_COOKIE


def _address(packed: bytes) -> bytes:
    return packed if len(packed) == 16 else _MAPPED + packed


def _table(protocol: str, port: int) -> list[tuple[int, int, bytes, bytes]]:
    """The uid, the inode and both ends of the open sockets with a local port, as /proc/net lists them; empty where that cannot be read."""
    found = []
    for name in (protocol, f"{protocol}6"):
        try:
            lines = Path("/proc/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, remote, _, _, _, _, uid, _, inode, *_ = line.split()
            if int(local.rpartition(":")[2], 16) == port:
                found.append((int(uid), int(inode), _end(local), _end(remote)))
    return found


def _end(text: str) -> bytes:
    """An address and a port of /proc/net, which writes each 32 bits of an address in the order of the processor."""
    host, _, port = text.partition(":")
    words = [bytes.fromhex(host[at : at + 8]) for at in range(0, len(host), 8)]
    packed = b"".join(int.from_bytes(word, "big").to_bytes(4, "little") for word in words)
    return _address(packed) + bytes.fromhex(port)
