"""Datagrams as a node: gamepads in, device updates out.

The rule of this module: datagrams are news, not letters. Nothing waits for a receiver, nothing that
a network answers ends
the sender, and nothing leaves the machine unless an interface is named: multicast goes over the
loopback interface.
"""

import errno
import ipaddress
import os
import socket
import struct
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import trio

from rt.access.peer import UdpSocket, mapped
from rt.errors import ConfigError, LocalProtocolError
from rt.remote.node import check_not_opened
from rt.transport.binding import bind_error
from rt.transport.counters import Counters

MAX_DATAGRAM = 65_507
"""The most bytes that a UDP datagram carries over IPv4."""

LOOPBACK = "127.0.0.1"

_PAUSE = 0.05
_IP_MULTICAST_ALL = 49  # linux/in.h; the socket module has no name for it


class DatagramNode:
    """A node over UDP (IPv4), unicast or multicast. Peers are written `host:port`.

    Args:
        host: Address or name; `*` is every interface when bound. A multicast address makes the node
            join or address a group.
        port: 0 to 65535; 0 takes a free one when bound.
        bind: True receives at the address (and may answer whoever sent); False sends to it.
        interface: The interface over which multicast goes, in and out: its name (`wlan0`) or its
            address; `0.0.0.0` leaves the choice to the system's routes.
        ttl: How many routers multicast may cross, plus one; 0 to 255, and 0 stays on this machine.
        loopback: Whether receivers on this machine hear the multicast that it sends over a network.

    Raises:
        ConfigError: `ttl` is out of range.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        bind: bool,
        interface: str = LOOPBACK,
        ttl: int = 1,
        loopback: bool = True,
    ) -> None:
        if not 0 <= ttl <= 255:
            raise ConfigError(
                f"multicast cannot live for {ttl} routers; 0 to 255 are possible", ttl=ttl
            )
        self._loopback = loopback
        self.counters = Counters()
        self.host = host
        self.port = port
        self._bind = bind
        self._interface = interface
        self._ttl = ttl
        self._socket: trio.socket.SocketType | None = None
        self._plain: socket.socket | None = None
        self._target = (host, port)
        self._unconnected = False
        self._is_alone = False
        self._kernel_socket: UdpSocket | None = None

    @classmethod
    def from_address(
        cls,
        address: str,
        *,
        bind: bool,
        interface: str = LOOPBACK,
        ttl: int = 1,
        loopback: bool = True,
    ) -> Self:
        """Make a node for `udp://host:port`; the rest is as for the node itself.

        Raises:
            ConfigError: The address has another form.
        """
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if host is None or port is None or parts.scheme != "udp" or ":" in host:
            raise ConfigError(
                f"{address} is no datagram address; write udp://host:port (IPv4)", address=address
            )
        return cls(host, port, bind=bind, interface=interface, ttl=ttl, loopback=loopback)

    @property
    def routed(self) -> bool:
        """No router is at the other end."""
        return False

    @property
    def display_address(self) -> str:
        """The address, for a person."""
        return f"udp://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        check_not_opened(
            self._socket, closed=self._socket is not None and self._socket.fileno() < 0
        )
        name = self.display_address
        target = await self._resolve(name)
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock = trio.socket.from_stdlib_socket(plain)
        try:
            self._target = target
            if ipaddress.IPv4Address(target[0]).is_multicast:
                # A group without a route cannot be connected to; the route comes when the radio is
                # up.
                self._unconnected = not self._bind
                self._prepare_multicast(sock, target[0])
            elif ipaddress.IPv4Address(target[0]).is_loopback and not self._bind:
                # A socket with every address keeps its port from other users of this computer; a
                # connected one has one address.
                self._unconnected = self._is_alone = True
                await sock.bind(("0.0.0.0", 0))  # noqa: S104 - datagrams of other sources are dropped
            if self._bind:
                await sock.bind(target)
            elif not self._unconnected:
                await sock.connect(target)
        except OSError as error:
            sock.close()
            raise bind_error(name, error.errno, error.strerror) from error
        except BaseException:
            sock.close()
            raise
        self._socket, self._plain = sock, plain
        if self._bind:
            host, self.port = sock.getsockname()
            self._kernel_socket = UdpSocket(
                os.geteuid(), os.fstat(sock.fileno()).st_ino, mapped(host), self.port
            )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    @property
    def kernel_socket(self) -> UdpSocket | None:
        """This bound node's socket as the kernel lists it, `to_port` being the port that it is bound to; None before it is open."""
        return self._kernel_socket

    async def post(self, peer: bytes, payload: bytes) -> None:
        """See `send`."""
        await self.send(peer, payload)

    async def send(self, peer: bytes, payload: bytes) -> None:
        """Send one datagram: to the address of this node, or, when it is bound, to a peer that `recv` has named.

        A checkpoint. A cancel leaves nothing sent. What the network reports, now or of earlier
        datagrams, is counted as dropped and never raised.

        Raises:
            LocalProtocolError: The payload is longer than `MAX_DATAGRAM`, or the peer of a bound
                node is none.
            trio.ClosedResourceError: The node is not open.
        """
        sock = self._open()
        if len(payload) > MAX_DATAGRAM:
            raise LocalProtocolError(
                f"{len(payload)} bytes are too many for one datagram, {MAX_DATAGRAM} fit; send fewer values at once",
                reason="size",
                size=len(payload),
            )
        # The report of an earlier datagram is handed out in place of sending this one, so this one
        # has a second try.
        for last in (False, True):
            try:
                if self._bind:
                    await sock.sendto(payload, _parse_peer(peer))
                elif self._unconnected:
                    await sock.sendto(payload, self._target)
                else:
                    await sock.send(payload)
            except OSError as error:
                if error.errno == errno.EBADF or sock.fileno() < 0:
                    raise
                if last or error.errno != errno.ECONNREFUSED:
                    self.counters.dropped += 1
                    return
            else:
                self.counters.sent += 1
                return

    def send_nowait(self, peer: bytes, payload: bytes) -> None:
        """Send one datagram to a peer that `recv` has named, or drop and count it where the socket has no room.

        Raises:
            LocalProtocolError: The peer is none.
            trio.ClosedResourceError: The node is not open.
        """
        self._open()
        assert self._plain is not None
        try:
            self._plain.sendto(payload, socket.MSG_DONTWAIT, _parse_peer(peer))
        except OSError:
            self.counters.dropped += 1
        else:
            self.counters.sent += 1

    async def recv(self) -> tuple[bytes, bytes]:
        """Wait for a datagram; returns `host:port` of who sent it, and it.

        A checkpoint. A cancel loses nothing. When nobody receives, the kernel keeps some hundred
        and drops the newest.

        Raises:
            trio.ClosedResourceError: The node is not open, or was closed meanwhile.
        """
        sock = self._open()
        while True:
            try:
                data, (host, port) = await sock.recvfrom(MAX_DATAGRAM)
            except OSError as error:
                if error.errno == errno.EBADF or sock.fileno() < 0:
                    raise
                if error.errno != errno.ECONNREFUSED:
                    await trio.sleep(_PAUSE)  # an error that stays may not keep the loop busy
                continue
            if self._is_alone and (host, port) != self._target:
                continue
            self.counters.received += 1
            return f"{host}:{port}".encode(), data

    def recv_nowait(self) -> tuple[bytes, bytes]:
        """Take a datagram that has already come, as `recv` does: for whoever has many to look through.

        Raises:
            trio.WouldBlock: There is none.
            trio.ClosedResourceError: The node is not open.
        """
        self._open()
        assert self._plain is not None
        try:
            data, (host, port) = self._plain.recvfrom(MAX_DATAGRAM)
        except OSError:
            raise trio.WouldBlock from None  # an error that stays is met again by `recv`
        if self._is_alone and (host, port) != self._target:
            raise trio.WouldBlock
        self.counters.received += 1
        return f"{host}:{port}".encode(), data

    async def _resolve(self, name: str) -> tuple[str, int]:
        if self.host == "*":
            return ("0.0.0.0" if self._bind else LOOPBACK), self.port  # noqa: S104 - the person wrote every interface
        if self.host == "localhost":
            return LOOPBACK, self.port
        try:
            found = await trio.socket.getaddrinfo(
                self.host, self.port, trio.socket.AF_INET, trio.socket.SOCK_DGRAM
            )
        except OSError as error:
            raise ConfigError(
                f"{name}: the name {self.host} is not known: {error.strerror}", address=name
            ) from error
        return str(found[0][4][0]), self.port

    def _prepare_multicast(self, sock: trio.socket.SocketType, group: str) -> None:
        request = struct.pack(
            "4s4si", ipaddress.IPv4Address(group).packed, *self._resolve_interface()
        )  # ip_mreqn
        ip = trio.socket.IPPROTO_IP
        if self._bind:
            # Several receivers share the port. SO_REUSEPORT would do too, but only among processes
            # of one user.
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
            sock.setsockopt(ip, trio.socket.IP_ADD_MEMBERSHIP, request)
            # Otherwise what any program of the machine joined on any interface would come in here
            # too.
            sock.setsockopt(ip, _IP_MULTICAST_ALL, 0)
        else:
            sock.setsockopt(ip, trio.socket.IP_MULTICAST_IF, request)
            sock.setsockopt(ip, trio.socket.IP_MULTICAST_LOOP, self._loopback)
            sock.setsockopt(ip, trio.socket.IP_MULTICAST_TTL, self._ttl)

    def _resolve_interface(self) -> tuple[bytes, int]:
        """The address and the number of the interface, one of them zero."""
        try:
            return ipaddress.IPv4Address(self._interface).packed, 0
        except ValueError:
            pass
        try:
            return bytes(4), socket.if_nametoindex(self._interface)
        except OSError:
            names = ", ".join(name for _, name in socket.if_nameindex())
            raise ConfigError(
                f"there is no network interface {self._interface}; there are {names}",
                interface=self._interface,
            ) from None

    def _open(self) -> trio.socket.SocketType:
        if self._socket is None:
            raise trio.ClosedResourceError("the node is not open yet")
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("the node is closed")
        return self._socket


def _parse_peer(peer: bytes) -> tuple[str, int]:
    host, _, port = peer.decode("ascii", "replace").rpartition(":")
    try:
        return str(ipaddress.IPv4Address(host)), int(port)
    except ValueError:
        raise LocalProtocolError(
            f"{peer!r} is no peer; a bound node answers host:port", reason="peer"
        ) from None
