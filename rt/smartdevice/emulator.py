"""An emulated Smart Device that behaves as firmware does.

`EmulatedDevice` is a state machine without I/O: messages and the time in, messages out. `run_emulated` puts it on a link;
`connect_emulated` and `serve_pty` give it a link of its own, over TCP or on a pseudo-terminal.
"""

import contextlib
import os
import tty
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import trio

from rt.catalog import Parameter, Peripheral
from rt.errors import RemoteProtocolError
from rt.protocol import frames
from rt.protocol.message import (
    DevData,
    DevDisable,
    DevRead,
    DevWrite,
    Error,
    ErrorCode,
    HbReq,
    HbRes,
    Message,
    Ping,
    SubReq,
    SubRes,
)
from rt.smartdevice.link import Link, LinkGoneError, StreamLink
from rt.smartdevice.motion import World, motions_for

SHORTEST_INTERVAL: Final = 40
LONGEST_INTERVAL: Final = 250
"""What firmware clamps a subscription's interval to, in ms."""

HEARTBEAT_TIMEOUT: Final = 1.0
"""How long a device that asks for heartbeats acts on without an answer, in s."""

_OUTBOX: Final = 64
_RETRY_FIRST: Final = 0.05
_RETRY_LONGEST: Final = 0.25
_SETTLED: Final = 5.0


class EmulatedDevice:
    """The state of one device.

    Args:
        peripheral: What kind of device it is.
        uid: Its UID; the device id in it should be the peripheral's.
        values: What its parameters start with; the others start with zero. A sensor that is given a value keeps it.
        world: What it shares with other emulated devices of the same robot; one of its own if None.
        on_message: Called with every message that arrives, for whoever watches.

    Attributes:
        values: The present value of every parameter, by name.
        disabled: Whether the device has stopped acting, by DEV_DISABLE or for want of a heartbeat, and nothing was
            written since.
    """

    def __init__(
        self,
        peripheral: Peripheral,
        uid: int,
        values: Mapping[str, Any] | None = None,
        *,
        world: World | None = None,
        on_message: Callable[[Message], object] | None = None,
    ) -> None:
        self.peripheral = peripheral
        self.uid = uid
        self.values: dict[str, Any] = {param.name: param.default for param in peripheral.params}
        given = {name: peripheral.param(name).checked(value) for name, value in (values or {}).items()}
        self.values.update(given)
        self._fixed = {name: value for name, value in given.items() if not peripheral.param(name).writeable}
        self.disabled = False
        self._on_message = on_message
        self._motions = motions_for(peripheral, world or World())
        self._moved: float | None = None
        self._actuators = tuple(param.name for param in peripheral.params if _acts(param))
        self.reset()

    def reset(self) -> None:
        """Start as after power-up: nothing is subscribed, nothing acts."""
        self._params = 0
        self._interval = 0
        self._next_data = float("inf")
        self._next_heartbeat = float("inf") if self.peripheral.heartbeat_interval is None else 0.0
        self._heartbeat_id = 0
        self._unanswered_since: float | None = None
        self._stop()

    @property
    def next_due(self) -> float:
        """When `due` has something to do next, on the clock that it is given; may be in the past or infinite."""
        return min(self._next_data, self._next_heartbeat)

    def handle(self, item: Message | RemoteProtocolError, now: float) -> list[Message]:
        """Take in a message, or what could not be read as one, and return the answers."""
        if isinstance(item, RemoteProtocolError):
            return [Error(item.context.get("code", ErrorCode.GENERIC_ERROR))]
        if self._on_message is not None:
            self._on_message(item)
        self._move(now)
        try:
            return self._answer(item, now)
        except RemoteProtocolError:
            return [Error(ErrorCode.GENERIC_ERROR)]

    def due(self, now: float) -> list[Message]:
        """Return what the device sends on its own: subscribed values and heartbeat requests.

        A late call sends once, not once for each period missed.
        """
        messages: list[Message] = []
        if now >= self._next_data:
            self._move(now)
            messages.append(self._data(self._params))
            period = self._interval / 1000
            self._next_data = max(self._next_data + period, now)
        if now >= self._next_heartbeat:
            if self._unanswered_since is None:
                self._unanswered_since = now
            elif now - self._unanswered_since >= HEARTBEAT_TIMEOUT:
                self._stop()
            self._heartbeat_id = (self._heartbeat_id + 1) % 256
            messages.append(HbReq(self._heartbeat_id))
            self._next_heartbeat = now + (self.peripheral.heartbeat_interval or 0)
        return messages

    def _answer(self, message: Message, now: float) -> list[Message]:
        match message:
            case DevWrite(params=params, data=data):
                return self._write(params, data)
            case DevRead(params=params):
                return [self._data(params & self.peripheral.readable)]
            case HbReq(id=id_):
                return [HbRes(id_)]
            case SubReq(params=params, interval=interval):
                self._subscribe(params, interval, now)
                return [SubRes(self._params, self._interval, self.uid)]
            case Ping():
                return [SubRes(self._params, self._interval, self.uid)]
            case _:
                return self._take(message)

    def _take(self, message: Message) -> list[Message]:
        """Take in what is not answered in the normal course."""
        if isinstance(message, DevData | SubRes):
            return [Error(ErrorCode.INVALID_TYPE)]
        if isinstance(message, DevDisable):
            self._stop()
        elif isinstance(message, HbRes):
            self._unanswered_since = None
        return []

    def _write(self, params: int, data: bytes) -> list[Message]:
        written = self.peripheral.unpack(params, data)
        writeable = self.peripheral.names(params & self.peripheral.writeable)
        self.values.update((name, written[name]) for name in writeable)
        if writeable:
            self.disabled = False
        answered = params & self.peripheral.writeable & self.peripheral.readable
        return [self._data(answered)] if answered else []

    def _subscribe(self, params: int, interval: int, now: float) -> None:
        self._params = params & self.peripheral.readable if interval else 0
        self._interval = min(max(interval, SHORTEST_INTERVAL), LONGEST_INTERVAL) if self._params else 0
        self._next_data = now + self._interval / 1000 if self._interval else float("inf")

    def _data(self, params: int) -> DevData:
        names = self.peripheral.names(params)
        return DevData(*self.peripheral.pack({name: self.values[name] for name in names}))

    def _move(self, now: float) -> None:
        seconds = 0.0 if self._moved is None else max(0.0, now - self._moved)
        self._moved = now
        for motion in self._motions:
            motion.step(self.values, seconds)
        self.values.update(self._fixed)

    def _stop(self) -> None:
        self.disabled = True
        for name in self._actuators:
            self.values[name] = 0.0


async def run_emulated(device: EmulatedDevice, link: Link) -> None:
    """Let a device live on a link until the peer is gone or the link is closed."""
    # A full outbox makes the reader wait, and with it the peer: as on a real line, nothing is lost.
    outbox, answers = trio.open_memory_channel[Message](_OUTBOX)

    async def listen() -> None:
        reader = frames.FrameReader()
        while True:
            for item in reader.feed(await link.receive()):
                for answer in device.handle(item, trio.current_time()):
                    await outbox.send(answer)

    async def speak() -> None:
        while True:
            messages = device.due(trio.current_time())
            with contextlib.suppress(trio.WouldBlock):
                while True:
                    messages.append(answers.receive_nowait())
            if not messages:
                with trio.move_on_at(device.next_due):
                    messages.append(await answers.receive())
            await link.send(b"".join(map(frames.encode, messages)))

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            nursery.start_soon(speak)
    except* (LinkGoneError, trio.ClosedResourceError):
        pass


async def connect_emulated(
    device: EmulatedDevice, host: str, port: int, *, on_connect: Callable[[bool], None] | None = None
) -> None:
    """Keep a device connected over TCP, for ever: tried again at once when the line ends, then ever less often (0.25 s).

    Args:
        device: The device.
        host: Where the robot listens.
        port: Its port, 1..65535.
        on_connect: Called with True when the device is connected, with False when a try failed or the line ended.
    """
    delay = _RETRY_FIRST
    while True:
        started = trio.current_time()
        with contextlib.suppress(OSError):
            async with await trio.open_tcp_stream(host, port) as stream:
                device.reset()
                if on_connect is not None:
                    on_connect(True)
                await run_emulated(device, StreamLink(stream, f"tcp://{host}:{port}"))
        if on_connect is not None:
            on_connect(False)
        if trio.current_time() - started > _SETTLED:
            delay = _RETRY_FIRST
        await trio.sleep(delay)
        delay = min(2 * delay, _RETRY_LONGEST)


async def serve_pty(
    device: EmulatedDevice, path: Path | None = None, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Let a device live on a pseudo-terminal until cancelled; then the terminal is gone as an unplugged board's is.

    Args:
        device: The device.
        path: Where to put a symbolic link to the terminal, e.g. a name that a pattern of ports matches; removed in the end.
        task_status: Told the path to open: ``path`` if given, else the terminal's own.
    """
    with _terminal(path) as (master, port):
        async with trio.lowlevel.FdStream(master) as stream:
            task_status.started(port)
            await run_emulated(device, StreamLink(stream, port))


@contextlib.contextmanager
def _terminal(path: Path | None) -> Iterator[tuple[int, str]]:
    """A new pseudo-terminal: its master, which the caller closes, and the path to open."""
    master, slave = os.openpty()
    # Our own slave stays open, so that the terminal outlives whoever opens and closes it, as a board does.
    try:
        tty.setraw(slave)
        port = os.ttyname(slave)
        if path is None:
            yield master, port
        else:
            path.symlink_to(port)
            yield master, str(path)
    finally:
        os.close(slave)
        if path is not None:
            path.unlink(missing_ok=True)


def _acts(param: Parameter) -> bool:
    """Whether a parameter moves something: a real number that may be written, with a rest in the middle of its range."""
    return param.writeable and param.is_real and param.lower == -param.upper and param.upper < float("inf")
