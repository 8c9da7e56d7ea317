"""Calls that cost a service time, up to and beyond the size limit, and the time they take."""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, cast

import msgspec
import trio
import trio.testing

from rt.buffer import LeaseTable
from rt.buffer.lease import Bar
from rt.buffer.write_event import WriteEvent
from rt.config import Config
from rt.executor.dispatcher import Dispatcher
from rt.executor.pool import ExecutorPool
from rt.protocol import rpc
from rt.remote import Handler, Service
from rt.remote.caller import Caller
from rt.smartdevice.client import SmartDeviceClient
from rt.smartdevice.handler import DeviceHandler
from rt.transport.counters import Counters

PEER = b"hostile-client"
MESSAGES = (512, 1024, 4096, 8192, 16_384, 65_536, rpc.MAX_MESSAGE)


def values(size: int, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield values of nearly a size in bytes, each with a description."""
    yield "small integers", [1] * (size - 5)
    yield "large integers", [(1 << 64) - 1] * (size // 9)
    yield "empty arrays", [[]] * (size - 5)
    yield "empty maps", [{}] * (size - 5)
    yield "short texts", ["m1"] * (size // 3)
    yield "pairs", [["a", 1.5]] * (size // 13)
    yield "one text", "x" * (size - 5)
    yield "unprintable text", "\x1b" * (size - 5)
    yield "wide text", "\U0001f600" * ((size - 5) // 4)
    yield "binary", bytes(size - 5)
    yield "map", {str(number): number for number in range(size // 9)}
    yield "distinct texts", [str(number) for number in range(size // 7)]
    yield "long texts", ["x" * 250] * (size // 252)
    for name in names:
        yield f"almost {name}", f"{name[:-1]}x"
        yield f"many of {name}", [name] * (size // (len(name) + 2))
        yield (
            f"many like {name}",
            [f"{name[:-1]}{number}" for number in range(size // (len(name) + 7))],
        )
        yield f"{name} repeated", name * (size // len(name) - 1)


def payloads(
    method: str, names: Sequence[str], sizes: Sequence[int] = MESSAGES
) -> Iterator[tuple[str, bytes]]:
    """Yield requests of a method, each with a description; some are invalid MessagePack."""
    for size in sizes:
        space = size - 160
        for what, value in values(space, names):
            yield f"{size} bytes, {what}", _encoded(method, [value])
            if isinstance(value, list):
                yield f"{size} bytes, {what} as arguments", _encoded(method, value)
        for opening, what in (
            (b"\x91", "arrays"),
            (b"\x81\xa1a", "maps"),
            (b"\x91\x81\xa1a", "arrays and maps"),
        ):
            yield (
                f"{size} bytes, nested {what}",
                _raw(method, opening * (space // len(opening)) + b"\xc0"),
            )
        yield (
            f"{size} bytes, extension",
            _raw(method, b"\xc9" + space.to_bytes(4, "big") + b"\x05" + bytes(space)),
        )
        yield f"{size} bytes, promised array", _raw(method, b"\xdd\xff\xff\xff\xff" + bytes(space))
        yield f"{size} bytes, promised text", _raw(method, b"\xdb\xff\xff\xff\xff" + bytes(space))
        yield f"{size} bytes, noise", _raw(method, b"\xc1" * space)
    yield "not a number", _encoded(method, [float("nan"), float("inf")])
    yield "no arguments", _encoded(method, [])


def unknown_methods() -> Iterator[tuple[str, bytes]]:
    """Yield requests of methods that do not exist."""
    for name in (
        "x" * 128,
        "\U0001f600" * 128,
        "list_uid",
        "subscribf",
        "__class__",
        "$cancel",
        "\x1b[2J",
    ):
        yield name[:20], _encoded(name, [])
    yield "x" * 129, _encoded("x" * 129, [])


def _encoded(method: str, params: list[Any]) -> bytes:
    return msgspec.msgpack.encode([0, 1, method, params])


def _raw(method: str, argument: bytes) -> bytes:
    return _encoded(method, [None])[:-1] + argument


class Wire:
    """A fake node: calls are put in, and answers are kept."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.routed = True
        self.display_address = "a test"
        self.answers: list[rpc.Response] = []
        self.lengths: list[int] = []
        self.put, self._get = trio.open_memory_channel[tuple[bytes, bytes]](1000)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.put.close()
        self._get.close()

    async def send(self, peer: bytes, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if not peer:
            self.put.send_nowait((b"", b""))  # the router's hello
            return
        self.lengths.append(len(payload))
        message = rpc.decode(payload)
        assert isinstance(message, rpc.Response)
        self.answers.append(message)

    async def post(self, peer: bytes, payload: bytes) -> None:
        await self.send(peer, payload)

    async def recv(self) -> tuple[bytes, bytes]:
        return await self._get.receive()


class LongestStep(trio.abc.Instrument):
    """Measures the longest time for which a task blocks all others."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = math.inf  # it is added during a step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self._began = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self.seconds = max(self.seconds, time.perf_counter() - self._began)


async def answered(
    service: Service, wire: Wire, payload: bytes
) -> tuple[float, list[rpc.Response]]:
    """Call a service; return its longest step in s and its answers."""
    step = LongestStep()
    wire.answers.clear()
    wire.lengths.clear()
    wire.put.send_nowait((PEER, payload))
    trio.lowlevel.add_instrument(step)
    try:
        await trio.testing.wait_all_tasks_blocked()
        # While a worker thread runs, the loop counts as blocked.
        while service._running or service._urgent:
            await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked()
    finally:
        trio.lowlevel.remove_instrument(step)
    return step.seconds, list(wire.answers)


class _StillDevice:
    """A fake device that answers at once."""

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()

    disable = unsubscribe = resubscribe = ping

    async def subscribe(self, *_: object, **__: object) -> None:
        await trio.lowlevel.checkpoint()

    def end_sessions(self, _is_over: object) -> bool:
        return True

    def read(self, params: list[str] | None) -> None: ...

    async def heartbeat(self, _heartbeat_id: int | None, *, within: float) -> float:
        await trio.lowlevel.checkpoint()
        return within

    def send_heartbeat(self, _heartbeat_id: int | None) -> int:
        return 0


def device_handler(devices: int = 16, names: int = 100) -> tuple[Handler, list[str]]:
    """Return a handler of devices that answer at once, and some of their names."""
    known = {f"left_motor_{number}": (12 << 72) + number for number in range(names)}
    handler = DeviceHandler(known, lambda _visit: False)
    for number in range(devices):
        handler.devices[(12 << 72) + number] = cast(SmartDeviceClient, _StillDevice())
    return handler, ["left_motor_7", str(12 << 72)]


class _OtherDriver:
    """Another driver in control, so that no call starts a process."""

    is_live = False
    bar = Bar.DRIVER

    def begin(self) -> str | None:
        return None

    def may_command(self, _caller: Caller) -> str | None:
        return "blue has control"


@contextlib.contextmanager
def modes_handler(prefix: str) -> Iterator[tuple[Handler, list[str]]]:
    """Yield a dispatcher that starts no mode, and names of functions."""
    with contextlib.closing(WriteEvent()) as wakeup, LeaseTable.open(prefix) as leases:
        dispatcher = Dispatcher(
            cast(ExecutorPool, None),
            leases,
            wakeup,
            needs_driver=True,
            is_moving=lambda: False,
            on_estop=lambda: None,
            time_limit=Config().time_limit,
            insecure=True,
        )
        dispatcher.driver = _OtherDriver()
        yield dispatcher, ["teleop_main", "lift"]
