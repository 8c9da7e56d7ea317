"""A node over UDP datagrams, used for incoming gamepads and outgoing device updates.

Invariant: sending never waits for a receiver, and a network error never stops the sender. Multicast
leaves the machine only if an interface is named; by default it uses the loopback interface.
"""

import errno
import ipaddress
import os
import socket
import struct
from typing import Self
from urllib.parse import urlsplit

import trio

from rt.access.peer import UdpSocket, mapped
from rt.errors import ConfigError, LocalProtocolError
from rt.remote.node import check_not_opened
from rt.transport.address import LOOPBACK, bind_error
from rt.transport.counters import Counters

MAX_DATAGRAM = 65_507
"""Maximum payload of a UDP datagram over IPv4, in bytes."""

_PAUSE = 0.05
_IP_MULTICAST_ALL = 49  # linux/in.h; the socket module has no name for it


class DatagramNode:
    """A node over UDP (IPv4), unicast or multicast. Peers have the form `host:port`.

    Args:
        host: Address or name; `*` binds to every interface. With a multicast address the node
            joins the group or sends to it.
        port: 0 to 65535; 0 binds to a free port.
        bind: True to receive at the address and answer senders; False to send to it.
        interface: Interface for multicast, as a name (`wlan0`) or an address; `0.0.0.0` leaves
            the choice to the routing table.
        ttl: Time to live of multicast, 0 to 255; 0 stays on this machine, 1 on its networks.
        loopback: Whether receivers on this machine get multicast that is sent to a network.

    Attributes:
        kernel_socket: The bound socket as listed by the kernel, with the port to which it is bound
            as `to_port`; None before the node is open.
        routed: False, because datagrams do not pass a router.

    Raises:
        ConfigError: `ttl` is out of range.
    """

    routed = False

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
            raise ConfigError(f"invalid multicast TTL {ttl}; use a number from 0 to 255", ttl=ttl)
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
        self._filters_sources = False
        self.kernel_socket: UdpSocket | None = None

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
        """Create a node for `udp://host:port`; the other arguments are those of the class.

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
                f"invalid datagram address: {address}; use udp://host:port (IPv4)", address=address
            )
        return cls(host, port, bind=bind, interface=interface, ttl=ttl, loopback=loopback)

    @property
    def display_address(self) -> str:
        """The address as shown in messages."""
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
                # connect() fails without a route to the group, and the route may only appear when
                # the radio is up.
                self._unconnected = not self._bind
                self._prepare_multicast(sock, target[0])
            elif ipaddress.IPv4Address(target[0]).is_loopback and not self._bind:
                # A socket bound to all addresses owns its port exclusively; a connected socket has
                # one address, so other users of this computer could bind the port at another one.
                self._unconnected = self._filters_sources = True
                await sock.bind(("0.0.0.0", 0))  # noqa: S104 - recv drops other sources
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
            self.kernel_socket = UdpSocket(
                os.geteuid(), os.fstat(sock.fileno()).st_ino, mapped(host), self.port
            )
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        if self._socket is not None:
            self._socket.close()

    async def post(self, peer: bytes, payload: bytes) -> None:
        """Send one datagram like `send`."""
        await self.send(peer, payload)

    async def send(self, peer: bytes, payload: bytes) -> None:
        """Send one datagram.

        A bound node sends to `peer`, a source returned by `recv`; any other node to its address.

        A checkpoint. If cancelled, nothing is sent. Network errors are counted as dropped
        datagrams, never raised.

        Raises:
            LocalProtocolError: The payload is longer than `MAX_DATAGRAM`, or the node is bound and
                `peer` is not `host:port`.
            trio.ClosedResourceError: The node is not open.
        """
        sock = self._open()
        if len(payload) > MAX_DATAGRAM:
            raise LocalProtocolError(
                f"payload of {len(payload)} bytes exceeds the {MAX_DATAGRAM} bytes of a datagram; "
                "send fewer values at once",
                reason="size",
                size=len(payload),
            )
        # The kernel may report the error of an earlier datagram instead of sending this one, so
        # try twice.
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
        """Send one datagram to a source returned by `recv`; drop and count it if that would block.

        Raises:
            LocalProtocolError: `peer` is not `host:port`.
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
        """Wait for a datagram; return its source as `host:port` and its payload.

        A checkpoint. If cancelled, no datagram is lost. The kernel queues a few hundred datagrams
        and drops newer ones.

        Raises:
            trio.ClosedResourceError: The node is not open, or was closed while waiting.
        """
        sock = self._open()
        while True:
            try:
                data, (host, port) = await sock.recvfrom(MAX_DATAGRAM)
            except OSError as error:
                if error.errno == errno.EBADF or sock.fileno() < 0:
                    raise
                if error.errno != errno.ECONNREFUSED:
                    await trio.sleep(_PAUSE)  # a persistent error must not busy the event loop
                continue
            if self._filters_sources and (host, port) != self._target:
                continue
            self.counters.received += 1
            return f"{host}:{port}".encode(), data

    def _recv_nowait(self) -> tuple[bytes, bytes] | None:
        """Return a datagram that has already arrived, like `recv`, or None."""
        self._open()
        assert self._plain is not None
        try:
            data, (host, port) = self._plain.recvfrom(MAX_DATAGRAM)
        except OSError:
            return None  # `recv` handles a persistent error
        if self._filters_sources and (host, port) != self._target:
            return None
        self.counters.received += 1
        return f"{host}:{port}".encode(), data

    async def _resolve(self, name: str) -> tuple[str, int]:
        if self.host == "*":
            return ("0.0.0.0" if self._bind else LOOPBACK), self.port  # noqa: S104 - as configured
        if self.host == "localhost":
            return LOOPBACK, self.port
        try:
            found = await trio.socket.getaddrinfo(
                self.host, self.port, trio.socket.AF_INET, trio.socket.SOCK_DGRAM
            )
        except OSError as error:
            raise ConfigError(
                f"{name}: cannot resolve host {self.host}: {error.strerror}", address=name
            ) from error
        return str(found[0][4][0]), self.port

    def _prepare_multicast(self, sock: trio.socket.SocketType, group: str) -> None:
        request = struct.pack(
            "4s4si", ipaddress.IPv4Address(group).packed, *self._resolve_interface()
        )  # ip_mreqn
        ip = trio.socket.IPPROTO_IP
        if self._bind:
            # Several receivers share the port, also those of different users, which SO_REUSEPORT
            # would not allow.
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
            sock.setsockopt(ip, trio.socket.IP_ADD_MEMBERSHIP, request)
            # Do not receive groups that other programs of this machine joined on other interfaces.
            sock.setsockopt(ip, _IP_MULTICAST_ALL, 0)
        else:
            sock.setsockopt(ip, trio.socket.IP_MULTICAST_IF, request)
            sock.setsockopt(ip, trio.socket.IP_MULTICAST_LOOP, self._loopback)
            sock.setsockopt(ip, trio.socket.IP_MULTICAST_TTL, self._ttl)

    def _resolve_interface(self) -> tuple[bytes, int]:
        """Return the address and the index of the interface, one of which is zero."""
        try:
            return ipaddress.IPv4Address(self._interface).packed, 0
        except ValueError:
            pass
        try:
            return bytes(4), socket.if_nametoindex(self._interface)
        except OSError:
            names = ", ".join(name for _, name in socket.if_nameindex())
            raise ConfigError(
                f"no network interface {self._interface}; available are {names}",
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
            f"invalid peer {peer!r}; a bound node sends to host:port", reason="peer"
        ) from None
