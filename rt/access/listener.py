"""TCP listeners, and a limiter of the connections that they accept.

Without a free descriptor, libzmq aborts the process at the next connection to a socket file or in
`bind`, so a flood of connections, or one leaking program, would end the robot.

Invariant: while more than `CONNECTIONS` descriptors are in use, no connection is accepted. Existing
connections stay open, and descriptors remain for socket files and children.
"""

import errno
import fcntl
import os
import resource
import socket
import struct

import trio

from rt import log
from rt.errors import ConfigError
from rt.log.throttle import Throttle
from rt.process_limits import allow_descriptors
from rt.transport.address import bind_error

CONNECTIONS = 2000
"""Descriptors in use at which listeners pause; at most a quarter of the process's limit."""
DESCRIPTORS = 65_536
"""Descriptor limit that a listening process requests, far above `CONNECTIONS`."""
CHECK_INTERVAL = 0.05
"""Time between checks while listeners are paused, in s."""

LOG_INTERVAL = 10.0
"""Minimum time between log events about too many connections, in s."""

_BACKLOG = 100
_SIOCGIFADDR = 0x8915
_SCARCITY = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener:
    """A TCP listener that can be paused.

    Args:
        address: `tcp://HOST:PORT`. HOST is `*`, an IPv4 address, a network interface or a name;
            PORT may be `*`.

    Attributes:
        endpoint: The actual address.

    Raises:
        InstanceBusyError: Another program uses the address.
        ConfigError: The address is invalid, or not one of this machine.
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
            raise ConfigError(f"cannot bind {address}: {error}", address=address) from None
        except OSError as error:
            self.close()
            raise bind_error(address, error.errno, error.strerror) from error
        host, port = self._socket.getsockname()
        self.endpoint = f"tcp://{host}:{port}"
        self._accepting = trio.Event()
        self._accepting.set()

    async def accept(self) -> trio.socket.SocketType:
        """Wait for a connection; accepts none while paused.

        A checkpoint. If cancelled, no connection is lost.
        """
        while True:
            await self._accepting.wait()
            await trio.lowlevel.wait_readable(self._socket)
            if not self._accepting.is_set():
                continue
            try:
                accepted, _ = self._socket.accept()
            except OSError as error:
                if error.errno in _SCARCITY:
                    await trio.sleep(CHECK_INTERVAL)
                continue
            return trio.socket.from_stdlib_socket(accepted)

    def close(self) -> None:
        """Close the listener; no task may be waiting in `accept`."""
        self._socket.close()

    def pause(self) -> None:
        """Stop accepting; the kernel queues a few connections and ignores further ones."""
        self._accepting = trio.Event()

    def resume(self) -> None:
        """Accept connections again."""
        self._accepting.set()


class ConnectionLimiter:
    """A limiter that pauses listeners while too many descriptors are in use.

    Descriptors are only counted when a connection arrives, and periodically while paused.

    Attributes:
        limit: Number of descriptors in use at which the listeners pause.
    """

    def __init__(self) -> None:
        self.limit = CONNECTIONS
        self._listeners: list[Listener] = []
        self._paused = trio.Event()
        self._events = Throttle(burst=1, interval=LOG_INTERVAL, clock=trio.current_time)
        self._log = log.get_logger()

    def add(self, listener: Listener) -> None:
        """Add a listener, and pause it if the others are paused.

        The first one raises the process's descriptor limit to `DESCRIPTORS`, if that is allowed.
        """
        if not self._listeners:
            self.limit = min(CONNECTIONS, allow_descriptors(DESCRIPTORS) // 4)
        self._listeners.append(listener)
        if self._paused.is_set():
            listener.pause()

    def close(self) -> None:
        """Close all listeners."""
        for each in self._listeners:
            each.close()
        self._listeners.clear()

    async def run(self) -> None:
        """Resume paused listeners when enough descriptors are free, until cancelled."""
        while True:
            await self._paused.wait()
            await trio.sleep(CHECK_INTERVAL)
            self.check()

    def check(self) -> None:
        """Pause or resume the listeners; call this for each accepted connection."""
        used = descriptors_in_use()
        if used >= self.limit and not self._paused.is_set():
            self._paused.set()
            for each in self._listeners:
                each.pause()
            self._events.log(
                self._log.warning,
                "too many connections; not accepting new ones",
                descriptors=used,
                limit=self.limit,
            )
        elif used < self.limit * 3 // 4 and self._paused.is_set():
            self._paused = trio.Event()
            for each in self._listeners:
                each.resume()


def descriptors_in_use() -> int:
    """Return an estimate of the descriptors in use: the lowest free one."""
    try:
        lowest = os.eventfd(0)
    except OSError:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.close(lowest)
    return lowest


def _resolve(probe: socket.socket, host: str) -> str:
    """Resolve a host to an IPv4 address like libzmq."""
    if host == "*":
        return "0.0.0.0"  # noqa: S104 - as configured
    if host in {name for _, name in socket.if_nameindex()}:
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", host.encode()))
        return socket.inet_ntoa(answer[20:24])
    return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
