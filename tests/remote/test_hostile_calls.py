"""Whatever a caller sends, a service of rt answers it once, shortly, and works on."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio
from support.hostile import Wire, answered, device_handler, modes_handler, payloads, unknown_methods

from rt import catalog
from rt.broker import Broker, GamepadFeed
from rt.broker.serving import Controls
from rt.buffer import BufferStore
from rt.config import Config
from rt.errors import RemoteProtocolError
from rt.protocol import rpc
from rt.remote import Handler, Service
from rt.remote.service import EAGER_DECODE_MAX

Made = tuple[Handler, list[str]]
SIZES = (1024, 8192, 65_536, rpc.MAX_MESSAGE)
LONGEST = 2000
"""The longest answer to a call that is refused, in bytes."""


@pytest.fixture
def broker(tmp_path: Path) -> Made:
    feed = GamepadFeed(BufferStore(catalog.load(), "", shared=False))
    return Broker(Config(), feed, dict, state=tmp_path / "state", directory=tmp_path), [
        "log_level",
        "dev_name.left",
    ]


@pytest.fixture
def controls(broker: Made) -> Made:
    handler, names = broker
    assert isinstance(handler, Broker)
    return Controls(handler), names


@pytest.fixture
def device() -> Made:
    return device_handler()


@pytest.fixture
def modes(prefix: str) -> Iterator[Made]:
    with modes_handler(prefix) as handler:
        yield handler


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Made:
    found: Made = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("made", ["device", "broker", "controls", "modes"], indirect=True)
async def test_each_hostile_call_is_answered_once_and_shortly(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, names = made
    wire = Wire()
    service = Service(wire, handler)
    decode, decode_raw, lengths = rpc.decode, rpc.decode_raw, list[int]()

    def watched(data: bytes) -> rpc.Envelope:
        lengths.append(len(data))
        return decode(data)

    def watched_raw(data: bytes) -> rpc.Request | rpc.Notification:
        lengths.append(len(data))
        return decode_raw(data)

    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        monkeypatch.setattr("rt.remote.service.rpc.decode", watched)
        monkeypatch.setattr("rt.remote.service.rpc.decode_raw", watched_raw)
        for method, route in service._routes.items():
            for what, payload in payloads(method, names, SIZES):
                lengths.clear()
                _, answers = await answered(service, wire, payload)
                place = f"{method}: {what}"
                # Answers are decoded by the test itself.
                asked = [length for length in lengths if length not in wire.lengths]
                assert all(length <= route.bounds.message for length in asked), place
                assert len(answers) == _is_answered(payload), place
                for answer in answers:
                    assert answer.id == 1, place
                    if answer.error is not None:
                        assert len(msgspec.msgpack.encode(answer)) <= LONGEST, place
                        assert answer.error[0].isprintable(), place
        for what, payload in unknown_methods():
            _, answers = await answered(service, wire, payload)
            assert len(answers) == _is_answered(payload), what
        (last,) = list(service._routes)[-1:]
        _, (answer,) = await answered(service, wire, msgspec.msgpack.encode([0, 1, last, [[[]]]]))
        assert answer.error is not None
        nursery.cancel_scope.cancel()


def _is_answered(payload: bytes) -> bool:
    """Whether a service can tell that a request asks for an answer: of a long one the head says so."""
    if len(payload) > EAGER_DECODE_MAX:
        return rpc.peek(payload) is not None
    try:
        return isinstance(rpc.decode(payload), rpc.Request)
    except RemoteProtocolError:
        return False


@pytest.mark.parametrize("made", ["device", "broker", "controls", "modes"], indirect=True)
def test_each_route_declares_bounds_of_its_process(made: Made) -> None:
    handler, _ = made
    most = {"DeviceHandler": 8192, "Broker": 16_384, "Controls": 4096, "Dispatcher": 16_384}[
        type(handler).__name__
    ]
    assert all(route.bounds.message <= most for route in handler.routes().values())


async def test_a_device_that_is_named_twice_is_asked_once() -> None:
    handler, _ = device_handler()
    wire = Wire()
    service = Service(wire, handler)
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        uid = str(12 << 72)
        asked: list[str] = []
        (client,) = [each for number, each in handler.devices.items() if number == 12 << 72]  # type: ignore[attr-defined]

        async def ping() -> None:
            asked.append(uid)
            await trio.lowlevel.checkpoint()

        client.ping = ping
        for uids in ([uid] * 100, [uid, "left_motor_0"] * 50):
            _, (answer,) = await answered(
                service, wire, msgspec.msgpack.encode([0, 1, "ping", [uids]])
            )
            assert answer.error is None
        assert asked == [uid, uid]
        _, (answer,) = await answered(
            service, wire, msgspec.msgpack.encode([0, 1, "ping", [[uid] * 129]])
        )
        assert answer.error is not None
        assert "Expected `array` of length <= 128" in answer.error[0]
        nursery.cancel_scope.cancel()
