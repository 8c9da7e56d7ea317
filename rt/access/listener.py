"""TCP addresses that a process listens at, and a limit for the connections that it accepts there.

Each connection takes descriptors. When there is none left, libzmq aborts the process at the next
connection to a socket file, or in `bind`: so many strangers, or one program that forgets to close
what it opens, would end the robot. Invariant: while more than `CONNECTIONS` descriptors are in use
no connection is accepted; those that stand stay, and socket files and children have descriptors.
"""

import errno
import fcntl
import math
import os
import resource
import socket
import struct

import trio

from rt import log
from rt.errors import ConfigError
from rt.limits import allow_descriptors
from rt.transport.binding import bind_error

CONNECTIONS = 2000
"""Descriptors in use from which on the addresses are shut; a quarter of those that the process may have, if that is less."""
DESCRIPTORS = 65_536
"""Descriptors that a process that listens asks the system for: from `CONNECTIONS` on there have to be plenty."""
CHECK_INTERVAL = 0.05
"""Time between two counts of the descriptors while the addresses are shut, in s."""

LOG_INTERVAL = 10.0
"""Time between two log events about too many connections, in s."""

_BACKLOG = 100
_SIOCGIFADDR = 0x8915
_SCARCITY = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener:
    """One address; a socket file's would need none of this.

    Args:
        address: `tcp://HOST:PORT`; HOST is `*`, an IPv4 address, a network interface or a name,
            PORT may be `*`.

    Attributes:
        endpoint: The real address.

    Raises:
        InstanceBusyError: Another program holds the address.
        ConfigError: It is none of this machine.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setblocking(False)
            self._socket.bind((_resolve(self._socket, host), 0 if port == "*" else int(port)))
            self._socket.listen(_BACKLOG)
        except (ValueError, OverflowError) as error:
            self.close()
            raise ConfigError(f"{address} cannot be bound: {error}", address=address) from None
        except OSError as error:
            self.close()
            raise bind_error(address, error.errno, error.strerror) from error
        host, port = self._socket.getsockname()
        self.endpoint = f"tcp://{host}:{port}"
        self._opened = trio.Event()
        self._opened.set()

    async def accept(self) -> trio.socket.SocketType:
        """Wait for a connection; none comes while the address is shut.

        A checkpoint. A cancel loses nothing.
        """
        while True:
            await self._opened.wait()
            await trio.lowlevel.wait_readable(self._socket)
            if not self._opened.is_set():
                continue
            try:
                accepted, _ = self._socket.accept()
            except OSError as error:
                if error.errno in _SCARCITY:
                    await trio.sleep(CHECK_INTERVAL)
                continue
            return trio.socket.from_stdlib_socket(accepted)

    def close(self) -> None:
        """Give up the address; nobody may be in `accept`."""
        self._socket.close()

    def pause(self) -> None:
        """Accept nothing from now on. Some connections wait in the kernel, further ones are not answered."""
        self._opened = trio.Event()

    def resume(self) -> None:
        """Accept connections again."""
        self._opened.set()


class ConnectionLimiter:
    """Shuts listeners while too many connections stand. Nothing is counted while no connection comes.

    Attributes:
        most: Descriptors in use from which on.
    """

    def __init__(self) -> None:
        self.most = CONNECTIONS
        self._listeners: list[Listener] = []
        self._shut = False
        self._shutting = trio.Event()
        self._said_at = -math.inf
        self._log = log.get_logger()

    def add(self, listener: Listener) -> None:
        """Shut this one too, now if others are shut. With the first, this process gets as many descriptors as the system allows."""
        if not self._listeners:
            self.most = min(CONNECTIONS, allow_descriptors(DESCRIPTORS) // 4)
        self._listeners.append(listener)
        if self._shut:
            listener.pause()

    def close(self) -> None:
        """Give up all addresses."""
        for each in self._listeners:
            each.close()
        self._listeners.clear()

    async def run(self) -> None:
        """Reopen the addresses when there are few connections again, until cancelled."""
        while True:
            await self._shutting.wait()
            await trio.sleep(CHECK_INTERVAL)
            self.look()

    def look(self) -> None:
        """Count once; to be called for each connection that comes."""
        used = descriptors()
        if used >= self.most and not self._shut:
            self._shut = True
            self._shutting.set()
            for each in self._listeners:
                each.pause()
            self._tell(used)
        elif used < self.most * 3 // 4 and self._shut:
            self._shut = False
            self._shutting = trio.Event()
            for each in self._listeners:
                each.resume()

    def _tell(self, used: int) -> None:
        if trio.current_time() - self._said_at >= LOG_INTERVAL:
            self._said_at = trio.current_time()
            self._log.warning(
                "too many connections: new ones are not accepted", descriptors=used, most=self.most
            )


def descriptors() -> int:
    """About how many descriptors are in use: the system gives the lowest that is free."""
    try:
        lowest = os.eventfd(0)
    except OSError:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.close(lowest)
    return lowest


def _resolve(probe: socket.socket, host: str) -> str:
    """The IPv4 address that a host means to libzmq."""
    if host == "*":
        return "0.0.0.0"  # noqa: S104 - the person wrote every interface
    if host in {name for _, name in socket.if_nameindex()}:
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", host.encode()))
        return socket.inet_ntoa(answer[20:24])
    return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
