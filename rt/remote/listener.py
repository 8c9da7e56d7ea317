"""TCP addresses that a process listens at, opened by rt and handed to libzmq, so that rt can shut them.

libzmq takes every connection that comes, and each takes a descriptor. When there is none left, it aborts the process at the
next connection to a socket file, or in `bind`: so many strangers, or one program that forgets to close what it opens, would
end the robot. The rule of this module: beyond `CONNECTIONS` nobody new is let in; who is in stays, and socket files and children
have descriptors.
"""

import ctypes
import fcntl
import math
import os
import resource
import socket
import struct
from collections.abc import Callable

import trio
import zmq

from rt import log
from rt.errors import ConfigError
from rt.limits import allow_descriptors
from rt.remote.binding import bind_error
from rt.remote.socket import Socket

CONNECTIONS = 2000
"""Descriptors in use from which on the addresses are shut; a quarter of those that the process may have, if that is less."""
DESCRIPTORS = 65_536
"""Descriptors that a process that listens asks the system for: from `CONNECTIONS` on there have to be plenty."""
LOOK_INTERVAL = 0.5
"""Time between two counts of the descriptors, in s; libzmq takes some thousand connections in it at most."""
SHORT_INTERVAL = 0.05
"""The same where so many would be too many, in s."""

COMPLAINT_INTERVAL = 10.0
"""Time between two log events about too many connections, in s."""

_BACKLOG = 100
_SIOCGIFADDR = 0x8915
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_TAKE_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # of linux/filter.h: return 0 bytes of whatever comes


class Listener:
    """One address; a socket file's would need none of this.

    Args:
        address: `tcp://HOST:PORT`; HOST is `*`, an IPv4 address, a network interface or a name, PORT may be `*`.

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

    def hand_to(self, taker: Socket) -> str:
        """Let a ZMQ socket take the connections; returns the address as libzmq writes it.

        Raises:
            OSError: There is no descriptor left.
        """
        host, port = self._socket.getsockname()
        descriptor = os.dup(self._socket.fileno())
        taker.set_option(zmq.USE_FD, descriptor)
        try:
            return taker.bind(f"tcp://{host}:{port}")
        finally:
            taker.set_option(zmq.USE_FD, -1)

    def close(self) -> None:
        """Give up the address, once whoever took the connections has too."""
        self._socket.close()

    def shut(self) -> None:
        """Let nobody new in from now on. Who comes meanwhile is not answered, and tries again by himself."""
        program = ctypes.create_string_buffer(_TAKE_NOTHING, len(_TAKE_NOTHING))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))

    def reopen(self) -> None:
        """Let everybody in again."""
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


class Turnstile:
    """Shuts listeners while too many connections stand.

    Attributes:
        most: Descriptors in use from which on.
        interval: Time between two counts, in s.
    """

    def __init__(self) -> None:
        self.most = CONNECTIONS
        self.interval = LOOK_INTERVAL
        self._listeners: list[Listener] = []
        self._shut = False
        self._said_at = -math.inf
        self._log = log.get_logger()

    def add(self, listener: Listener) -> None:
        """Shut this one too. With the first, this process gets as many descriptors as the system allows."""
        if not self._listeners:
            allowed = allow_descriptors(DESCRIPTORS)
            self.most = min(CONNECTIONS, allowed // 4)
            self.interval = LOOK_INTERVAL if allowed >= DESCRIPTORS // 2 else SHORT_INTERVAL
        self._listeners.append(listener)

    def close(self) -> None:
        """Give up all addresses."""
        for each in self._listeners:
            each.close()
        self._listeners.clear()

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            self.look()
            await trio.sleep(self.interval)

    def look(self) -> None:
        """Count once."""
        used = descriptors()
        if used >= self.most and not self._shut:
            self._shut = True
            self._tell(used, self._each(Listener.shut))
        elif used < self.most * 3 // 4 and self._shut:
            self._shut = False
            self._each(Listener.reopen)

    def _each(self, change: Callable[[Listener], None]) -> str:
        """Shut or reopen all; why that is not possible, which is no reason to end a robot."""
        try:
            for each in self._listeners:
                change(each)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _tell(self, used: int, trouble: str) -> None:
        if trio.current_time() - self._said_at >= COMPLAINT_INTERVAL:
            self._said_at = trio.current_time()
            about = {"descriptors": used, "most": self.most} | ({"trouble": trouble} if trouble else {})
            self._log.warning("too many connections: nobody new is let in", **about)


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
