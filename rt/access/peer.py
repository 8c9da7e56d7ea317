"""Users of loopback peers: the owners of the other ends of connections and datagrams.

The kernel reports the owner of a socket (sock_diag(7), else the tables of /proc/net).

Invariant: a peer is untrusted unless the kernel names its owner, and the owner is root or the user
that this process runs as.

Invariant: other users cannot make lookups expensive. A lookup queries one socket; a list of sockets
ends at the first one of another user; a table of /proc/net is read up to `TABLE_BYTES`; and all
lookups of one class share a `TimeBudget`.
"""

import contextlib
import errno
import ipaddress
import math
import os
import re
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

import msgspec
import trio

from rt import log
from rt.access.time_budget import TimeBudget
from rt.log.throttle import Throttle

LOG_INTERVAL = 10.0
"""Minimum time between log events about sources that are too expensive to look up, in s."""
REFUSAL_TIME = 1.0
"""Time for which an untrusted source is refused without another lookup, in s."""
UNTRUSTED_SHARE = 0.01
"""Processor time in each second for lookups of sources that are not known to be trusted, in s."""
TRUSTED_SHARE = 0.1
"""Processor time in each second for lookups of sources that are known to be trusted, in s."""
LIST_SHARE = 0.05
"""Processor time in each second for lists of a port's sockets, in s.

For each list, the kernel iterates over all UDP sockets of the computer.
"""
STREAM_SHARE = 0.1
"""Processor time in each second for lookups of TCP connections, in s: about 5000 connections."""
TABLE_BYTES = 1 << 20
"""Maximum number of bytes read from a table of /proc/net: about 7000 sockets, in about 10 ms."""
NET = Path("/proc/net")
"""Directory of the kernel's socket tables."""
MAX_PEERS = 256
"""Maximum size of each cache of trusted sources, refused sources, and shared sockets."""

ANOTHER_USER = "another user of this computer"
SHARED = "port can be shared with another user; do not set SO_REUSEADDR on the sending socket"
ENDED = "unknown user; its socket is closed, or belongs to another namespace"
CROWDED = "too many connections at once"
COSTLY = (
    "too many UDP sockets to look up the port; send from a socket that is neither bound nor "
    "connected, or with a key"
)

_UNREAD = -1

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
_ENDS = struct.Struct(">HH16s16s")
_INTERFACE = struct.Struct("=I")
_OWNER = struct.Struct("=II")
_OWNER_AT = 16 + 4 + 48 + 12
"""Offset of uid and inode in a reply: after netlink header, 4 bytes, socket id and three words."""
_ANY_COOKIE = struct.pack("=II", 0xFFFFFFFF, 0xFFFFFFFF)
_BUFFER = 1 << 16
_LOOPBACK = _MAPPED + bytes((127, 0, 0, 1))
_LOOPBACK_INTERFACE = 1  # the index of lo in each network namespace


class _CostlyError(Exception):
    """A lookup would exceed its time budget."""


class Peer(msgspec.Struct, frozen=True):
    """The peer of a connection.

    Attributes:
        host: Address of the peer.
        uid: User of this computer that owns the peer's socket; None if unknown.
        trusted: Whether that is root or the user that this process runs as.
    """

    host: str
    uid: int | None
    trusted: bool

    @property
    def refusal(self) -> str:
        """Reason why the peer is not trusted."""
        return ENDED if self.uid is None else ANOTHER_USER

    @property
    def log_context(self) -> dict[str, object]:
        """Context for log events."""
        return {"peer": self.host} | ({} if self.uid is None else {"uid": self.uid})


class UdpSocket(msgspec.Struct, frozen=True):
    """A UDP socket of this computer, as listed by the kernel.

    Attributes:
        uid: User that owns the socket.
        inode: Inode number; 0 if no program holds the socket.
        address: Local address, 16 bytes; IPv4 is mapped.
        to_port: Port to which it is connected; 0 if unconnected.
        interface: Index of the interface to which it is bound; 0 if none or not reported.
    """

    uid: int
    inode: int
    address: bytes
    to_port: int = 0
    interface: int = 0

    @property
    def is_wildcard(self) -> bool:
        """Whether the socket is bound to all local addresses."""
        return self.address in _WILDCARDS

    def may_be_source(self, address: bytes, to_port: int) -> bool:
        """Return whether this socket sends datagrams from an address (16 bytes) to a port.

        A socket can name a source address to which it is not bound, but such datagrams are not
        attributed to it.
        """
        if self.is_wildcard:
            return not self.interface and self.to_port in {0, to_port}
        return self.address == address and self.to_port in {0, to_port}


class PeerTable:
    """Lookup of the owners of sockets in the kernel; a context manager. No method blocks.

    A lookup of a connection or a UDP socket takes about 10 us, regardless of the number of sockets.
    A list of a port's UDP sockets takes about 40 us, plus 0.05 us for each UDP socket of the
    computer.

    Attributes:
        budget: Processor time for lookups of connections; callers must wait while it is spent.
    """

    def __init__(self) -> None:
        self.budget = TimeBudget(STREAM_SHARE)
        self._netlink: socket.socket | None = None
        self._sequence = 0
        self._is_working: bool | None = None
        self._finds_datagrams: bool | None = None
        self._unmapped = _unmapped_uid()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the netlink socket; later calls open a new one."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def trusts(self, uid: int | None) -> bool:
        """Return whether a user is root or the user that this process runs as."""
        return uid is not None and uid != self._unmapped and uid in {0, os.geteuid()}

    def peer_of(self, accepted: socket.socket | trio.socket.SocketType) -> Peer:
        """Return the peer of an accepted TCP connection.

        Raises:
            OSError: The connection is closed.
        """
        local, remote = accepted.getsockname(), accepted.getpeername()
        host = str(remote[0]).removeprefix("::ffff:")
        uid = None
        if ipaddress.ip_address(host).is_loopback:
            with self.budget.spend():
                uid = self._stream_owner(accepted.family, remote[0], remote[1], local[0], local[1])
        return Peer(host, uid, self.trusts(uid))

    def datagram_socket(
        self, source: bytes, port: int, to: bytes, to_port: int
    ) -> UdpSocket | None:
        """Return the UDP socket that would receive a reply to a datagram, or None.

        It is the sender's own socket, unless the sender named a source address to which its socket
        is not bound.

        Args:
            source: Source address, 16 bytes; IPv4 is mapped.
            port: Source port.
            to: Destination address, 16 bytes.
            to_port: Destination port.

        Raises:
            OSError: The kernel does not support the lookup.
        """
        # The kernel expects the ends of a UDP socket in the reverse order of those of TCP.
        ident = _ident(to[12:], to_port, source[12:], port, _LOOPBACK_INTERFACE)
        answer = self._ask(_REQUEST, _request(socket.AF_INET, socket.IPPROTO_UDP) + ident)
        if _HEADER.unpack_from(answer)[1] == _ERROR:
            if not self._works_for_datagrams():
                raise OSError("the kernel does not support lookups of UDP sockets")
            return None
        found = _udp_socket(answer, 0, len(answer))
        if found is None or found[0] != port:
            raise OSError("unexpected format of the kernel's reply about a UDP socket")
        return found[1]

    def datagram_sockets(self, port: int) -> list[UdpSocket]:
        """Return the UDP sockets that are bound to a port at any address.

        A socket can name any local address as the source of a datagram, but only its own port. The
        list ends at the first untrusted socket, because there may be any number of them.
        """
        try:
            sockets = self._dump(socket.AF_INET, port)
            if all(map(self.trusts_socket, sockets)):
                sockets += self._dump(socket.AF_INET6, port)
        except OSError:
            sockets = []
            for uid, inode, local, remote in _table("udp", port):
                sockets.append(
                    UdpSocket(uid, inode, local[:16], int.from_bytes(remote[16:], "big"))
                )
                if not self.trusts_socket(sockets[-1]):
                    break
        return sockets

    def trusts_socket(self, each: UdpSocket) -> bool:
        """Return whether a program of a trusted user holds a socket."""
        return self.trusts(each.uid) and each.inode != 0

    def can_be_shared(self, port: int) -> bool:
        """Return whether a UDP port in use can be bound at another address; True if unknown."""
        try:
            with socket.socket(type=socket.SOCK_DGRAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # A random address, so that no user can occupy it in advance.
                probe.bind(
                    (str(_LOOPBACKS[1 + secrets.randbelow(_LOOPBACKS.num_addresses - 2)]), port)
                )
        except OSError as error:
            return error.errno not in {errno.EADDRINUSE, errno.EACCES}
        return True

    def _stream_owner(
        self, family: int, host: str, port: int, to_host: str, to_port: int
    ) -> int | None:
        source, target = socket.inet_pton(family, host), socket.inet_pton(family, to_host)
        ident = _ident(source, port, target, to_port)
        try:
            return self._owner(family, ident)
        except OSError:
            wanted = (
                _address(source) + port.to_bytes(2, "big"),
                _address(target) + to_port.to_bytes(2, "big"),
            )
            found = (
                uid for uid, inode, *ends in _table("tcp", port) if inode and tuple(ends) == wanted
            )
            return next((uid for uid in found if uid != _UNREAD), None)

    def _owner(self, family: int, ident: bytes) -> int | None:
        """Return the owner of a TCP socket of this computer, or None.

        Raises:
            OSError: The kernel does not support the lookup.
        """
        answer = self._ask(_REQUEST, _request(family, socket.IPPROTO_TCP) + ident)
        if _HEADER.unpack_from(answer)[1] == _ERROR:
            # The kernel reports the same error for an unknown socket and without sock_diag for TCP.
            if not self._works():
                raise OSError("the kernel does not support lookups of TCP sockets")
            return None
        if len(answer) < _OWNER_AT + _OWNER.size or answer[20:24] != ident[:4]:
            return None
        uid, inode = _OWNER.unpack_from(answer, _OWNER_AT)
        # The kernel lists a socket that its program has closed as root's, without an inode.
        return uid if inode else None

    def _works(self) -> bool:
        """Return whether the kernel supports lookups of TCP sockets, tested with a connection."""
        if self._is_working is None:
            self._is_working = True  # ends the recursion of the lookup below
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
        body = _request(family, socket.IPPROTO_UDP) + bytes(48) + attribute
        answer = self._ask(_REQUEST | _DUMP, body)
        sockets: list[UdpSocket] = []
        while True:
            offset = 0
            while offset + _HEADER.size <= len(answer):
                length, kind, _, _, _ = _HEADER.unpack_from(answer, offset)
                if kind == _DONE:
                    return sockets
                if kind == _ERROR or length < _HEADER.size:
                    raise OSError("the kernel does not support lists of UDP sockets")
                found = _udp_socket(answer, offset, length)
                if found is None:
                    raise OSError("unexpected format of the kernel's list of UDP sockets")
                if found[0] == port:
                    sockets.append(found[1])
                    if not self.trusts_socket(found[1]):
                        self.close()  # so that the kernel stops generating the list
                        return sockets
                offset += (length + 3) & ~3
            answer = self._receive()

    def _works_for_datagrams(self) -> bool:
        """Return whether the kernel supports lookups of UDP sockets, tested with a socket.

        The kernel reports the same error for an unknown socket and without sock_diag for UDP.
        """
        if self._finds_datagrams is None:
            self._finds_datagrams = True  # ends the recursion of the lookup below
            with socket.socket(type=socket.SOCK_DGRAM) as probe:
                probe.bind(("127.0.0.1", 0))
                try:
                    found = self.datagram_socket(_LOOPBACK, probe.getsockname()[1], _LOOPBACK, 0)
                    self._finds_datagrams = (
                        found is not None and found.inode == os.fstat(probe.fileno()).st_ino
                    )
                except OSError:
                    self._finds_datagrams = False
        return self._finds_datagrams

    def _ask(self, flags: int, body: bytes) -> bytes:
        if self._netlink is None:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._netlink = socket.socket(socket.AF_NETLINK, kind, _SOCK_DIAG)
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        header = _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, flags, self._sequence, 0)
        self._netlink.sendto(header + body, (0, 0))
        return self._receive()

    def _receive(self) -> bytes:
        """Return the reply to the last request, which the kernel writes during the request."""
        assert self._netlink is not None
        while True:
            answer, (sender, _) = self._netlink.recvfrom(_BUFFER)
            if (
                sender == 0
                and len(answer) >= _HEADER.size
                and _HEADER.unpack_from(answer)[3] == self._sequence
            ):
                return answer


class DatagramPeers:
    """Access control of unsigned datagrams: accepts those of root and of the robot's user.

    A datagram is looked up after it was read, when its socket may already be closed. It is accepted
    only if a socket that can have sent it is open: one bound to the source address, or one bound to
    all addresses with a port that no other user can share. It is refused if another user has a
    socket with that port at any address. The receiving socket is never considered the sender.

    First the socket that would receive a reply is looked up. It is decisive if it is another
    user's, or if no other user can share its port. Otherwise all sockets of the port are listed.

    Each datagram of a trusted source is looked up, because its port may pass to another user.
    Datagrams of untrusted sources take a bounded share of processor time.

    Args:
        table: Lookup of sockets.
        timer: Returns the processor time of this thread, in s.
    """

    def __init__(
        self, table: PeerTable | None = None, *, timer: Callable[[], float] = time.thread_time
    ) -> None:
        self._table = table or PeerTable()
        self._trusted: dict[bytes, None] = {}
        self._refused: dict[bytes, float] = {}
        self._foreign: dict[int, float] = {}
        self._shared: dict[int, None] = {}
        self._users: set[int] = set()
        self._untrusted_time = TimeBudget(UNTRUSTED_SHARE, timer=timer)
        self._trusted_time = TimeBudget(TRUSTED_SHARE, timer=timer)
        self._list_time = TimeBudget(LIST_SHARE, timer=timer)
        self._costly = Throttle(burst=1, interval=LOG_INTERVAL, clock=trio.current_time)
        self._log = log.get_logger()

    def close(self) -> None:
        """Close the netlink socket."""
        self._table.close()

    def admits(self, peer: bytes, receiver: UdpSocket | None = None) -> bool:
        """Return whether an unsigned datagram is accepted.

        Args:
            peer: Source of the datagram, `host:port`.
            receiver: Socket that received it; its `to_port` is the port to which it is bound.
        """
        host, _, text = peer.decode().rpartition(":")
        if not host.startswith("127."):
            return False
        now, port = trio.current_time(), int(text)
        if max(self._refused.get(peer, -math.inf), self._foreign.get(port, -math.inf)) > now:
            return False
        budget = self._trusted_time if peer in self._trusted else self._untrusted_time
        if budget.is_spent:
            return False
        with budget.spend():
            try:
                uid = self._sender(peer, mapped(host), port, receiver)
            except _CostlyError:
                self._costly.log(
                    self._log.warning, "control datagram refused", reason=COSTLY, peer=peer.decode()
                )
                return False
        self._refused.pop(peer, None)
        if uid is not None:
            if peer not in self._trusted:
                _remember(self._trusted, peer, None)
            if uid not in self._users:
                self._users.add(uid)
                self._log.info(
                    "unsigned control datagrams accepted from a local user",
                    uid=uid,
                    peer=peer.decode(),
                )
            return True
        self._trusted.pop(peer, None)
        _remember(self._refused, peer, now + REFUSAL_TIME)
        return False

    def _sender(
        self, peer: bytes, source: bytes, port: int, receiver: UdpSocket | None
    ) -> int | None:
        """Return the trusted user who sent a datagram; None if another user may have sent it.

        Raises:
            _CostlyError: The sockets of the port have to be listed, and the budget is spent.
        """
        to_port = receiver.to_port if receiver else 0
        with contextlib.suppress(OSError):
            to = (
                receiver.address
                if receiver and receiver.address and not receiver.is_wildcard
                else _LOOPBACK
            )
            found = self._table.datagram_socket(source, port, to, to_port)
            if found is None:
                return None
            if not self._table.trusts_socket(found):
                self._note_foreign(port)
                return None
            if (
                found.is_wildcard
                and (receiver is None or found.inode != receiver.inode)
                and found.may_be_source(source, to_port)
                and not self._is_shared(found, port, peer)
            ):
                return found.uid
        if self._list_time.is_spent:
            raise _CostlyError
        with self._list_time.spend():
            sockets = self._table.datagram_sockets(port)
        if not all(map(self._table.trusts_socket, sockets)):
            self._note_foreign(port)
            return None
        for each in sockets:
            if receiver is not None and each.inode == receiver.inode:
                continue
            if each.may_be_source(source, to_port) and not (
                each.is_wildcard and self._is_shared(each, port, peer)
            ):
                return each.uid
        return None

    def _note_foreign(self, port: int) -> None:
        """Refuse a port of another user for `REFUSAL_TIME` at all addresses, without a lookup."""
        _remember(self._foreign, port, trio.current_time() + REFUSAL_TIME)

    def _is_shared(self, sender: UdpSocket, port: int, peer: bytes) -> bool:
        """Return whether another user may share a socket's port, now or at an earlier lookup."""
        if sender.inode in self._shared:
            return True
        if not self._table.can_be_shared(port):
            return False
        _remember(self._shared, sender.inode, None)
        self._log.warning(
            "control datagram refused", reason=SHARED, peer=peer.decode(), uid=sender.uid
        )
        return True


def _remember(peers: dict[K, T], peer: K, value: T) -> None:
    if len(peers) >= MAX_PEERS:
        del peers[next(iter(peers))]
    peers[peer] = value


def _unmapped_uid() -> int | None:
    """Return the uid of users outside this user namespace; None if it maps all users."""
    try:
        if Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]:
            return None
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return 65534


def _request(family: int, protocol: int) -> bytes:
    """Return the beginning of a request for sockets in any state."""
    return struct.pack("=BBBBI", family, protocol, 0, 0, 0xFFFFFFFF)


def _ident(source: bytes, port: int, target: bytes, to_port: int, interface: int = 0) -> bytes:
    ends = _ENDS.pack(port, to_port, source, target)  # pads IPv4 addresses with zeros
    return ends + _INTERFACE.pack(interface) + _ANY_COOKIE


def _udp_socket(answer: bytes, offset: int, length: int) -> tuple[int, UdpSocket] | None:
    """Parse a sock_diag message into port and UDP socket; return None if it is malformed."""
    if length < _OWNER_AT + _OWNER.size or offset + length > len(answer):
        return None
    family = answer[offset + _HEADER.size]
    ident = offset + _HEADER.size + _SOCKET.size
    port, to_port, source, _ = _ENDS.unpack_from(answer, ident)
    (interface,) = _INTERFACE.unpack_from(answer, ident + _ENDS.size)
    uid, inode = _OWNER.unpack_from(answer, offset + _OWNER_AT)
    return port, UdpSocket(
        uid, inode, _MAPPED + source[:4] if family == socket.AF_INET else source, to_port, interface
    )


def mapped(host: str) -> bytes:
    """Return an IPv4 address as 16 bytes, mapped to IPv6."""
    return _MAPPED + socket.inet_aton(host)


def _address(packed: bytes) -> bytes:
    return packed if len(packed) == 16 else _MAPPED + packed


def _table(protocol: str, port: int) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Yield uid, inode and both ends of the open sockets with a local port, from /proc/net.

    Yields nothing for an unreadable table. A table longer than `TABLE_BYTES` is truncated and ends
    with a socket of the user `_UNREAD`, which no process trusts.
    """
    for name in (protocol, f"{protocol}6"):
        try:
            with (NET / name).open("rb") as file:
                table = file.read(TABLE_BYTES)
                is_cut = bool(file.read(1))
        except OSError:
            continue
        # The last line of a truncated table is incomplete.
        for line in re.finditer(rb"^ *\d+: [0-9A-F]+:%04X .*\n" % port, table, re.MULTILINE):
            _, local, remote, _, _, _, _, uid, _, inode, *_ = line[0].decode("ascii").split()
            yield int(uid), int(inode), _end(local), _end(remote)
        if is_cut:
            yield _UNREAD, 0, bytes(18), bytes(18)


def _end(text: str) -> bytes:
    """Parse an address and a port of /proc/net, where each 32 bits are in host byte order."""
    host, _, port = text.partition(":")
    words = [bytes.fromhex(host[at : at + 8]) for at in range(0, len(host), 8)]
    packed = b"".join(int.from_bytes(word, "big").to_bytes(4, "little") for word in words)
    return _address(packed) + bytes.fromhex(port)
