"""A ZMQ socket for trio.

ZMQ's file descriptor is edge-triggered: it becomes readable when the state may have changed, and
any call on the socket resets it. A task that sends can therefore consume the edge for which a
receiver waits, and a receiver that waits only for the descriptor may miss its message forever. The
following rules prevent that:

1. Every operation is first tried without blocking. A task waits only after EAGAIN.
2. Before a task waits, it reads EVENTS, which processes pending events. It waits only if its event
   is not set.
3. After every call, and whenever EVENTS is read, all tasks whose event is set are woken.
4. One waiting task at a time watches the descriptor. When it stops, another one takes over.

Messages are only sent and received outside of waits, and cancellation is only delivered in waits,
so a cancel neither loses nor sends a message.
"""

import contextlib
import errno
import os
import secrets
import struct
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self, cast

import trio
import zmq

from rt.errors import ConfigError
from rt.protocol import rpc
from rt.transport.address import bind_error
from rt.transport.counters import Counters

LINGER = 200
"""Time within which a closed socket still sends queued messages, in ms; delays process exit."""

HIGH_WATER_MARK = 1000
"""Maximum number of queued messages for each peer and direction.

Beyond it a DEALER's `send` waits, a ROUTER's `send_nowait` raises `trio.WouldBlock`, and a PUB
silently drops messages for that subscriber.
"""

MAX_FRAME = rpc.MAX_MESSAGE
"""Maximum length of a received frame, in bytes; libzmq closes the connection on a longer one.

libzmq does not limit the number of frames of a message and buffers them until the last arrives, so
any peer that can connect can exhaust memory. Ports that untrusted peers can reach need keys.
"""

MAX_FRAMES = 64
"""Frames of one message that are read at once: reading a million would take seconds."""

DEFAULTS: Mapping[int, int | bytes] = {
    zmq.LINGER: LINGER,
    zmq.SNDHWM: HIGH_WATER_MARK,
    zmq.RCVHWM: HIGH_WATER_MARK,
    zmq.MAXMSGSIZE: MAX_FRAME,
    # A child may start before the socket to which it connects is bound, so retry quickly at first.
    zmq.RECONNECT_IVL: 10,
    zmq.RECONNECT_IVL_MAX: 500,
}

# Each use of pyzmq's enumerations takes a microsecond.
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_POLLOUT = int(zmq.POLLOUT)
_SOURCE = int(zmq.SRCFD)
_NOWAIT = int(zmq.DONTWAIT)
_NOWAIT_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)


_MONITOR_EVENT = struct.Struct("=Hi")
_FILE = "ipc://"
FILE_DOMAIN = b"file"
"""ZAP domain of socket files that are bound after CURVE was enabled.

They need no key, but libzmq cannot unset a ZAP domain.
"""


class _Waiter:
    """A waiting task; the one that watches the descriptor has no `trio.Event`."""

    __slots__ = ("event", "woken")

    def __init__(self, event: int, woken: trio.Event | None) -> None:
        self.event = event
        self.woken = woken


class Socket:
    """A ZMQ socket for trio.

    Any number of tasks may send and receive concurrently; each message goes to one receiver. Use a
    socket only in the thread of its trio run.

    Args:
        socket_type: DEALER, ROUTER, PUB, SUB and similar. REQ and REP are refused, because one lost
            reply blocks them forever.
        options: ZMQ options by number, which override `DEFAULTS`; set before any bind or connect.
        context: ZMQ context; by default the one of this process, which is created at the first
            use, never before a fork.
        names_peer: Whether `peer_identity` is recorded.

    Attributes:
        counters: Message counters.
        peer_identity: Identity that the sender of the last received message claims; empty if it is
            not text.
        source: For a ROUTER, connection number of the last received message, or -1 if it has none.
            The number of a closed connection is reused.

    Raises:
        ValueError: The type is REQ or REP.
        ConfigError: libzmq rejects an option's value.
    """

    def __init__(
        self,
        socket_type: int,
        *,
        options: Mapping[int, int | bytes] | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        names_peer: bool = False,
    ) -> None:
        if socket_type in (zmq.REQ, zmq.REP):
            raise ValueError("REQ and REP block at a lost reply; use DEALER and ROUTER")
        self.counters = Counters()
        self.source = -1
        self.peer_identity = ""
        self._names_peer = names_peer
        self._context = context
        self._socket = (context or zmq.Context.instance()).socket(socket_type)
        self._files: dict[str, os.stat_result] = {}
        self._routes = socket_type == zmq.ROUTER
        self._closed = False
        self._waiters: list[_Waiter] = []
        self._watcher: _Waiter | None = None
        self._monitor: Socket | None = None
        self._is_partial = False
        try:
            for option, value in {**DEFAULTS, **(options or {})}.items():
                self.set_option(option, value)
            self._fd = self._get(zmq.FD)
            timeout = self._get(zmq.SNDTIMEO)
        except BaseException:
            self._socket.close(linger=0)
            raise
        self.send_timeout = timeout / 1000 if timeout >= 0 else float("inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Close the socket; libzmq still sends queued messages for up to `LINGER`.

        Waiting tasks raise `trio.ClosedResourceError`.
        """
        if self._closed:  # its descriptor may have been reused
            return
        self._closed = True
        for waiter in self._waiters:
            self._wake(waiter)
        if self._monitor is not None and not self._monitor.closed:
            # In this order: libzmq's thread would block forever on a monitor whose other end is
            # closed.
            self._socket.disable_monitor()
            self._monitor.close()
        self._socket.close()

    def bind(self, address: str, *, descriptor: int = -1) -> str:
        """Bind to an address and return the actual one (`tcp://127.0.0.1:*` binds to a free port).

        Args:
            address: The address.
            descriptor: Descriptor of a socket that already listens there; ZMQ takes ownership.

        Raises:
            InstanceBusyError: Another program uses the address.
            ConfigError: The address is not one of this machine, or binding is not permitted.
        """
        try:
            self.set_option(zmq.USE_FD, descriptor)
            self._socket.bind(address)
        except zmq.ZMQError as error:
            raise bind_error(address, error.errno, zmq.strerror(error.errno or 0)) from error
        finally:
            self._wake_ready()
        endpoint = cast(bytes, self._socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
        if endpoint.startswith(f"{_FILE}/") and descriptor < 0:
            with contextlib.suppress(OSError):  # already removed again
                self._files[endpoint] = Path(endpoint.removeprefix(_FILE)).lstat()
                _bound.add(self)
        return endpoint

    def rebind(self) -> list[str]:
        """Bind socket files again that were removed or replaced; return their addresses.

        Existing connections stay open. Socket files need no key, whatever security options were set
        since.

        Raises:
            InstanceBusyError, ConfigError: An address cannot be bound.
        """
        missing = [
            each
            for each, file in self._files.items()
            if not _is_file(Path(each.removeprefix(_FILE)), file)
        ]
        if missing and not self._closed:
            secured = {
                option: self._socket.getsockopt(option)
                for option in (zmq.CURVE_SERVER, zmq.ZAP_DOMAIN)
            }
            try:
                if secured[zmq.CURVE_SERVER]:
                    self.set_option(zmq.CURVE_SERVER, 0)
                    self.set_option(zmq.ZAP_DOMAIN, FILE_DOMAIN)
                for address in missing:
                    self.bind(address)
            finally:
                if secured[zmq.CURVE_SERVER]:
                    self.set_option(zmq.CURVE_SERVER, 1)
                    self.set_option(zmq.ZAP_DOMAIN, bytes(secured[zmq.ZAP_DOMAIN]).rstrip(b"\0"))
        return missing

    def unbind(self, address: str) -> None:
        """Unbind an address that `bind` returned, and close its connections at the next call.

        libzmq closes the listener asynchronously; the address can be bound again afterwards.
        """
        try:
            self._socket.unbind(address)
        except zmq.ZMQError as error:
            if error.errno != errno.ENOENT:
                raise
        finally:
            self._wake_ready()

    def set_option(self, option: int, value: int | bytes) -> None:
        """Set a ZMQ option; most apply to later binds and connects.

        Raises:
            ConfigError: libzmq rejects the value.
        """
        try:
            self._socket.setsockopt(option, value)
        except (zmq.ZMQError, TypeError) as error:
            name = zmq.SocketOption(option).name if option in set(zmq.SocketOption) else str(option)
            raise ConfigError(
                f"invalid value {value!r} of ZMQ option {name}: {error}", option=name
            ) from error

    def connect(self, address: str) -> None:
        """Connect to an address, which may be bound later; reconnect when the connection is lost.

        Raises:
            ConfigError: The address is invalid.
        """
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"cannot connect to {address}: {zmq.strerror(error.errno or 0)}; "
                "use tcp://HOST:PORT",
                address=address,
            ) from error
        finally:
            self._wake_ready()

    def monitor(self, events: int) -> "Socket":
        """Create a socket that receives the events of this socket's connections.

        It is closed with this socket.

        Args:
            events: Mask of `zmq.Event`; `parse_event` parses the messages.
        """
        address = f"inproc://rt-monitor-{secrets.token_hex(8)}"
        self._socket.monitor(address, events)
        # Unlimited, because libzmq's I/O thread, which serves all sockets, blocks on a full queue.
        self._monitor = Socket(zmq.PAIR, options={zmq.RCVHWM: 0}, context=self._socket.context)
        self._monitor.connect(address)
        return self._monitor

    def subscribe(self, topic: bytes) -> None:
        """Subscribe to messages whose first frame begins with `topic` (SUB only)."""
        self._socket.setsockopt(zmq.SUBSCRIBE, topic)

    def unsubscribe(self, topic: bytes) -> None:
        """Undo one `subscribe` of `topic` (SUB only)."""
        self._socket.setsockopt(zmq.UNSUBSCRIBE, topic)

    def send_nowait(self, frames: Sequence[bytes]) -> None:
        """Send a message without waiting, completely or not at all.

        Raises:
            trio.WouldBlock: The high-water mark is reached, or a DEALER has no connection.
            zmq.ZMQError: EHOSTUNREACH if a mandatory ROUTER does not know the recipient.
            trio.ClosedResourceError: The socket was closed.
        """
        if self._closed:
            raise trio.ClosedResourceError("the socket is closed")
        if not all(isinstance(frame, bytes) for frame in frames):
            # An error after the first frame would leave half a message in the socket.
            raise TypeError("frames must be bytes")
        try:
            # If the peer disconnects between frames, libzmq discards the first ones and reports
            # EAGAIN for the whole message.
            for frame in frames[:-1]:
                self._socket.send(frame, _NOWAIT_MORE)
            self._socket.send(frames[-1], _NOWAIT)
        except zmq.Again:
            raise trio.WouldBlock from None
        finally:
            self._wake_ready()
        self.counters.sent += 1

    def recv_nowait(self) -> list[bytes]:
        """Return the frames of a message that has already arrived.

        A message of more than `MAX_FRAMES` frames is returned in parts, each with its frames
        replaced by `MAX_FRAMES` empty ones.

        Raises:
            trio.WouldBlock: No message has arrived.
            trio.ClosedResourceError: The socket was closed.
        """
        if self._closed:
            raise trio.ClosedResourceError("the socket is closed")
        try:
            part = self._socket.recv(_NOWAIT, copy=False)
            if self._routes:
                self.source = _source(part)
            if self._names_peer:
                self.peer_identity = _identity(part)
            frames = [part.bytes]
            while part.more and len(frames) < MAX_FRAMES:
                part = self._socket.recv(_NOWAIT, copy=False)
                frames.append(part.bytes)
        except zmq.Again:
            raise trio.WouldBlock from None
        finally:
            self._wake_ready()
        self.counters.received += 1
        if part.more or self._is_partial:
            self._is_partial = part.more
            return [b""] * MAX_FRAMES  # no part may look like a complete message
        return frames

    def has_message(self) -> bool:
        """Return whether `recv_nowait` would return a message; cheaper than its exception."""
        return not self._closed and bool(self._read_events() & _POLLIN)

    async def send(self, frames: Sequence[bytes]) -> None:
        """Send a message; wait while the high-water mark is reached or a DEALER has no connection.

        A checkpoint. If cancelled, nothing is sent. The ZMQ option SNDTIMEO limits the wait.

        Raises:
            trio.TooSlowError: SNDTIMEO elapsed; the message was dropped and counted.
            trio.WouldBlock: The queue of a ROUTER's peer is full. A ROUTER never waits, because it
                would wait for its slowest peer.
            zmq.ZMQError: EHOSTUNREACH if a mandatory ROUTER does not know the recipient.
            trio.ClosedResourceError: The socket was closed, also while waiting.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self.send_nowait(frames)
        except trio.WouldBlock:
            if self._routes:
                self.counters.dropped += 1
                raise
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        with trio.move_on_after(self.send_timeout):
            while True:
                await self._wait(_POLLOUT)
                with contextlib.suppress(trio.WouldBlock):
                    self.send_nowait(frames)
                    return
        self.counters.dropped += 1
        raise trio.TooSlowError(f"message not sent within {self.send_timeout:g} s")

    async def recv(self) -> list[bytes]:
        """Wait for a message and return its frames.

        A checkpoint. If cancelled, no message is lost.

        Raises:
            trio.ClosedResourceError: The socket was closed, also while waiting.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        # Usually no message has arrived, and checking is cheaper than an exception.
        if self._closed or self._read_events() & _POLLIN:
            with contextlib.suppress(trio.WouldBlock):
                frames = self.recv_nowait()
                await trio.lowlevel.cancel_shielded_checkpoint()
                return frames
        checked = True
        while True:
            await self._wait(_POLLIN, checked=checked)
            try:
                return self.recv_nowait()
            except trio.WouldBlock:
                checked = False

    async def _wait(self, event: int, *, checked: bool = False) -> None:
        """Wait until `event` may be set; the caller has to try again. A checkpoint.

        Args:
            event: `_POLLIN` or `_POLLOUT`.
            checked: Whether the caller has just read EVENTS.
        """
        if not checked and self._read_events() & event:
            await trio.lowlevel.checkpoint()
            return
        waiter = _Waiter(event, None if self._watcher is None else trio.Event())
        self._waiters.append(waiter)
        try:
            if waiter.woken is None:
                self._watcher = waiter
                await trio.lowlevel.wait_readable(self._fd)
            else:
                await waiter.woken.wait()
        except trio.ClosedResourceError:
            pass  # raised by `_wake` for the watching task
        finally:
            self._waiters.remove(waiter)
            if self._watcher is waiter:
                self._watcher = None
            self._wake_ready()
            # Also if this task was woken to take over the watch, but leaves with a message.
            if self._watcher is None and self._waiters:
                self._wake(self._waiters[0])

    def _wake(self, waiter: _Waiter) -> None:
        if waiter.woken is not None:
            waiter.woken.set()
        else:
            trio.lowlevel.notify_closing(self._fd)

    def _wake_ready(self) -> None:
        """Wake all ready tasks, after any call that may have processed events."""
        if self._waiters and not self._closed:
            self._read_events()

    def _read_events(self) -> int:
        """Read EVENTS, which processes pending events, and wake all ready tasks.

        No other code may read EVENTS.
        """
        events = self._get(_EVENTS)
        for waiter in self._waiters:
            if waiter.event & events:
                self._wake(waiter)
        return events

    def _get(self, option: int) -> int:
        return cast(int, self._socket.getsockopt(option))


def parse_event(frames: Sequence[bytes]) -> tuple[int, int]:
    """Return the `zmq.Event` of a message from a monitor, and its value; zmq_socket_monitor(3).

    pyzmq's own parser imports asyncio.
    """
    event, value = _MONITOR_EVENT.unpack(frames[0])
    return event, value


def _source(part: zmq.Frame) -> int:
    try:
        return part.get(_SOURCE)
    except zmq.ZMQError:
        return -1  # a peer in this process


def _is_file(path: Path, before: os.stat_result) -> bool:
    """Return whether a path still is the same file.

    Like `rt.instance.is_same_file`, which a child must not import.
    """
    try:
        return os.path.samestat(path.lstat(), before)
    except OSError:
        return False


def _identity(part: zmq.Frame) -> str:
    try:
        return str(part.get("Identity"))
    except (zmq.ZMQError, UnicodeDecodeError):
        return ""


_bound: weakref.WeakSet[Socket] = weakref.WeakSet()


def rebind_socket_files() -> list[str]:
    """Bind removed or replaced socket files of this process again; return their addresses.

    Raises:
        InstanceBusyError, ConfigError: An address cannot be bound.
    """
    return [address for each in list(_bound) if not each.closed for address in each.rebind()]
