"""A ZMQ socket for trio.

ZMQ's file descriptor does not say "readable"; it says "something may have changed since somebody
last looked", once. Any call on the socket looks, so a task that sends eats the news a receiver
waits for, and a receiver that waits for the descriptor alone may wait for ever although its message
has come. The rules of this module make that impossible:

1. Every operation is tried first without blocking; a task waits only after libzmq has said EAGAIN.
2. Before a task waits, it reads EVENTS, which takes in all news; it waits only when what it needs
is not there.
3. After every call, and at every reading of EVENTS itself, whoever can go on is woken, whatever
became of the descriptor. 4. One of the waiting tasks at a time watches the descriptor; when it
goes, for whatever reason, another takes over.

No message is touched while a task waits, so a cancel, which only ever arrives at a wait, loses
nothing and sends nothing.
"""

import contextlib
import errno
import os
import secrets
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import trio
import zmq

from rt.errors import ConfigError
from rt.protocol import rpc
from rt.transport.binding import bind_error
from rt.transport.counters import Counters

LINGER = 200
"""How long a closed socket may still deliver what was sent, in ms. It bounds how long the end of a process can take."""

HIGH_WATER_MARK = 1000
"""Messages that wait per peer and direction, bounding memory. Beyond it a DEALER's `send` waits, a ROUTER's `send_nowait`
raises `trio.WouldBlock`, a PUB drops for that subscriber without saying.
"""

MAX_FRAME = rpc.MAX_MESSAGE
"""The longest frame that is taken from a peer, in bytes; libzmq closes the connection of one that sends more.

libzmq knows no bound for the number of frames of one message, and keeps them until the last has
come: whoever may connect can take memory so. A port that strangers reach therefore needs keys.
"""

MAX_FRAMES = 64
"""Frames of one message that are read in one go: a million of them would hold up everything else for seconds."""

DEFAULTS: Mapping[int, int | bytes] = {
    zmq.LINGER: LINGER,
    zmq.SNDHWM: HIGH_WATER_MARK,
    zmq.RCVHWM: HIGH_WATER_MARK,
    zmq.MAXMSGSIZE: MAX_FRAME,
    # A child may start before the socket that it connects to is bound: the first tries follow one
    # another fast.
    zmq.RECONNECT_IVL: 10,
    zmq.RECONNECT_IVL_MAX: 500,
}

# The enumerations of pyzmq cost a microsecond at each use.
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_POLLOUT = int(zmq.POLLOUT)
_SOURCE = int(zmq.SRCFD)
_NOWAIT = int(zmq.DONTWAIT)
_NOWAIT_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)


_FILE = "ipc://"
FILE_DOMAIN = b"file"
"""The ZAP domain of socket files that are bound after CURVE was turned on: libzmq knows no way back to none. They need no key."""


class _Waiter:
    """A task that waits; the one that watches the descriptor needs no event, and a cancel scope would cost more than the wait."""

    __slots__ = ("event", "woken")

    def __init__(self, event: int, woken: trio.Event | None) -> None:
        self.event = event
        self.woken = woken


class Socket:
    """A ZMQ socket whose waits are trio's.

    Any number of tasks may send and receive at the same time; a message goes to one of the
    receivers. All calls belong to the thread of the trio run in which the socket is used.

    Args:
        socket_type: DEALER, ROUTER, PUB, SUB and their like. REQ and REP are refused: one lost
            answer stops them for ever.
        options: ZMQ option -> value, over `DEFAULTS`. They are set before anything is bound or
            connected.
        context: Where the socket belongs; by default the one of this process, made at the first
            use, never before a fork.
        names_peer: Whether `peer_identity` is wanted.

    Attributes:
        counters: What passed.
        peer_identity: The name that the sender of the last received message gives itself; empty if
            it is no text.
        source: Of a ROUTER: number of the connection that the last received message came over, or
            -1 if it has none. A number is used again once its connection is closed.

    Raises:
        ValueError: For REQ and REP.
        ConfigError: libzmq refuses an option's value.
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
            raise ValueError("REQ and REP stop at the first lost answer; use DEALER and ROUTER")
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
        self._cut = False
        try:
            for option, value in {**DEFAULTS, **(options or {})}.items():
                self._set(option, value)
            self._fd = self._get(zmq.FD)
            timeout = self._get(zmq.SNDTIMEO)
        except BaseException:
            self._socket.close(linger=0)
            raise
        self.send_timeout = timeout / 1000 if timeout >= 0 else float("inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Close the socket; what was sent is still delivered for `LINGER` ms. Whoever waits gets `trio.ClosedResourceError`."""
        if self._closed:  # its descriptor may be another's by now, who is not to be woken
            return
        self._closed = True
        for waiter in self._waiters:
            self._wake(waiter)
        if self._monitor is not None and not self._monitor.closed:
            # In this order: libzmq's own thread would wait for ever for the other end of a monitor
            # that was just closed.
            self._socket.disable_monitor()
            self._monitor.close()
        self._socket.close()

    def bind(self, address: str, *, descriptor: int = -1) -> str:
        """Bind to an address and return the real one (`tcp://127.0.0.1:*` takes a free port).

        Args:
            address: The address.
            descriptor: Of a socket that listens there already; it belongs to ZMQ from now on.

        Raises:
            InstanceBusyError: Another program holds the address.
            ConfigError: It is no address of this machine, or may not be used.
        """
        try:
            self._set(zmq.USE_FD, descriptor)
            self._socket.bind(address)
        except zmq.ZMQError as error:
            raise bind_error(address, error.errno, zmq.strerror(error.errno or 0)) from error
        finally:
            self._settle()
        endpoint = cast(bytes, self._socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
        if endpoint.startswith(f"{_FILE}/") and descriptor < 0:
            with contextlib.suppress(OSError):  # removed already: to be mended
                self._files[endpoint] = Path(endpoint.removeprefix(_FILE)).lstat()
                _bound.add(self)
        return endpoint

    def rebind(self) -> list[str]:
        """Bind the socket files again that were removed or replaced; their addresses.

        Connections that stand stay. A socket file needs no key, whatever was set since it was bound
        first.

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
                    self._set(zmq.CURVE_SERVER, 0)
                    self._set(zmq.ZAP_DOMAIN, FILE_DOMAIN)
                for address in missing:
                    self.bind(address)
            finally:
                if secured[zmq.CURVE_SERVER]:
                    self._set(zmq.CURVE_SERVER, 1)
                    self._set(zmq.ZAP_DOMAIN, bytes(secured[zmq.ZAP_DOMAIN]).rstrip(b"\0"))
        return missing

    def unbind(self, address: str) -> None:
        """Stop listening at an address that `bind` returned; its connections end too, once the socket is used.

        Closing takes a moment in libzmq's own thread, after which the address can be bound again.
        """
        try:
            self._socket.unbind(address)
        except zmq.ZMQError as error:
            if error.errno != errno.ENOENT:
                raise
        finally:
            self._settle()

    def set_option(self, option: int, value: int | bytes) -> None:
        """Set a ZMQ option; most count for what is bound or connected afterwards.

        Raises:
            ConfigError: libzmq refuses the value.
        """
        self._set(option, value)

    def connect(self, address: str) -> None:
        """Connect to an address, now or as soon as somebody binds it, and again whenever the connection is lost.

        Raises:
            ConfigError: It is no address.
        """
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"{address} is no address to connect to: {zmq.strerror(error.errno or 0)}; write tcp://HOST:PORT",
                address=address,
            ) from error
        finally:
            self._settle()

    def monitor(self, events: int) -> "Socket":
        """A socket on which libzmq tells what becomes of this one's connections; it is closed with this one, once made.

        Args:
            events: Which of `zmq.Event`; `rt.transport.monitor` reads what comes.
        """
        address = f"inproc://rt-monitor-{secrets.token_hex(8)}"
        self._socket.monitor(address, events)
        # libzmq's own thread, which does the work of all sockets, waits for room here: there has to
        # be some at any time.
        self._monitor = Socket(zmq.PAIR, options={zmq.RCVHWM: 0}, context=self._socket.context)
        self._monitor.connect(address)
        return self._monitor

    def subscribe(self, topic: bytes) -> None:
        """Receive messages whose first frame begins with `topic` (SUB only)."""
        self._socket.setsockopt(zmq.SUBSCRIBE, topic)

    def unsubscribe(self, topic: bytes) -> None:
        """Take back one `subscribe` of `topic` (SUB only)."""
        self._socket.setsockopt(zmq.UNSUBSCRIBE, topic)

    def send_nowait(self, frames: Sequence[bytes]) -> None:
        """Hand a message over at once, whole or not at all.

        Raises:
            trio.WouldBlock: The high-water mark is reached, or a DEALER has no connection.
            zmq.ZMQError: EHOSTUNREACH when a mandatory ROUTER does not know the recipient.
            trio.ClosedResourceError: The socket was closed.
        """
        if self._closed:
            raise trio.ClosedResourceError("the socket is closed")
        if not all(isinstance(frame, bytes) for frame in frames):
            raise TypeError(
                "frames are bytes"
            )  # found in the middle, it would leave half a message in the socket
        try:
            # Should a peer go between two frames, libzmq takes back the first, and EAGAIN is said
            # of the whole.
            for frame in frames[:-1]:
                self._socket.send(frame, _NOWAIT_MORE)
            self._socket.send(frames[-1], _NOWAIT)
        except zmq.Again:
            raise trio.WouldBlock from None
        finally:
            self._settle()
        self.counters.sent += 1

    def recv_nowait(self) -> list[bytes]:
        """Take the next message that has already come; one of more than `MAX_FRAMES` frames in pieces of so many empty ones.

        Raises:
            trio.WouldBlock: There is none.
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
            self._settle()
        self.counters.received += 1
        if part.more or self._cut:
            self._cut = part.more
            return [b""] * MAX_FRAMES  # no end of it may be taken for a message of its own
        return frames

    def has_message(self) -> bool:
        """Whether `recv_nowait` would return a message; cheaper than to be told by its exception."""
        return not self._closed and bool(self._look() & _POLLIN)

    async def send(self, frames: Sequence[bytes]) -> None:
        """Send a message, waiting while the high-water mark is reached or a DEALER has no connection.

        A checkpoint. A cancel leaves nothing sent. The ZMQ option SNDTIMEO bounds the wait.

        Raises:
            trio.TooSlowError: SNDTIMEO passed; the message was dropped and counted.
            trio.WouldBlock: A ROUTER's peer does not keep up. A ROUTER never waits: it would wait
            for the slowest of all.
            zmq.ZMQError: EHOSTUNREACH when a mandatory ROUTER does not know the recipient.
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
        raise trio.TooSlowError(f"nobody took the message within {self.send_timeout:g} s")

    async def recv(self) -> list[bytes]:
        """Wait for a message and return its frames.

        A checkpoint. A cancel leaves every message in the socket.

        Raises:
            trio.ClosedResourceError: The socket was closed, also while waiting.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        # Most of the time there is nothing yet, and to ask is cheaper than to be told by an
        # exception.
        if self._closed or self._look() & _POLLIN:
            with contextlib.suppress(trio.WouldBlock):
                frames = self.recv_nowait()
                await trio.lowlevel.cancel_shielded_checkpoint()
                return frames
        looked = True
        while True:
            await self._wait(_POLLIN, looked=looked)
            try:
                return self.recv_nowait()
            except trio.WouldBlock:
                looked = False

    async def _wait(self, event: int, *, looked: bool = False) -> None:
        """Wait until `event` may be possible, a checkpoint; the caller tries again, and comes back when another was faster."""
        if not looked and self._look() & event:
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
            pass  # how `_wake` calls the one that watches
        finally:
            self._waiters.remove(waiter)
            if self._watcher is waiter:
                self._watcher = None
            self._settle()
            # Also when the watch was offered to this task and it leaves with a message instead.
            if self._watcher is None and self._waiters:
                self._wake(self._waiters[0])

    def _wake(self, waiter: _Waiter) -> None:
        if waiter.woken is not None:
            waiter.woken.set()
        else:
            trio.lowlevel.notify_closing(self._fd)

    def _settle(self) -> None:
        """After any call that may have taken in news: let those know whom they concern."""
        if self._waiters and not self._closed:
            self._look()

    def _look(self) -> int:
        """Read EVENTS, the only place that does: to read it takes in news too, and whoever waits for them is woken."""
        events = self._get(_EVENTS)
        for waiter in self._waiters:
            if waiter.event & events:
                self._wake(waiter)
        return events

    def _get(self, option: int) -> int:
        return cast(int, self._socket.getsockopt(option))

    def _set(self, option: int, value: int | bytes) -> None:
        try:
            self._socket.setsockopt(option, value)
        except (zmq.ZMQError, TypeError) as error:
            name = zmq.SocketOption(option).name if option in set(zmq.SocketOption) else str(option)
            raise ConfigError(
                f"ZMQ option {name} cannot be {value!r}: {error}", option=name
            ) from error


def _source(part: zmq.Frame) -> int:
    try:
        return part.get(_SOURCE)
    except zmq.ZMQError:
        return -1  # from within this process


def _is_file(path: Path, before: os.stat_result) -> bool:
    """As `rt.instance.is_file`, which a child does not import."""
    try:
        return os.path.samestat(path.lstat(), before)
    except OSError:
        return False


def _identity(part: zmq.Frame) -> str:
    try:
        return str(part.get("Identity"))
    except (zmq.ZMQError, UnicodeDecodeError):
        return ""


async def terminate(context: zmq.Context[zmq.Socket[bytes]] | None = None) -> None:
    """End the ZMQ context once all sockets are closed, so that their last messages are delivered.

    Waits for `LINGER` ms at most, in a worker thread; a cancel is heeded afterwards.
    """
    await trio.to_thread.run_sync((context or zmq.Context.instance()).term)


_bound: weakref.WeakSet[Socket] = weakref.WeakSet()


def rebind_socket_files() -> list[str]:
    """Bind the socket files of all sockets of this process again that were removed or replaced; their addresses.

    Raises:
        InstanceBusyError, ConfigError: An address cannot be bound.
    """
    return [address for each in list(_bound) if not each.closed for address in each.rebind()]
